import { join } from 'node:path';
import { userCache } from '../native/places.js';

/**
 * The directory of downloaded models. All programs of a user share this directory, unless `LLAMA_HEADSTART_MODELS_DIR`
 * names another directory.
 *
 * ```
 * huggingface/<owner>/<name>/<16 hex digits>/<file>   a model's files; the digits are a hash of their names and contents
 * huggingface/<owner>/<name>/refs/<revision>.json     the Hub's newest list of the files of the revision
 * url/<16 hex digits>/<file>                          the digits are a hash of the address
 * ...<file>.part, .part.json, .lock                   an unfinished download, and the lock of the process that works on it
 * ```
 *
 * A file gets its final name only when it is complete and verified. Any file may be deleted while no process uses it.
 */
export function modelsDirectory(): string {
  return process.env.LLAMA_HEADSTART_MODELS_DIR || join(userCache(), 'models');
}
