import { join } from 'node:path';
import { userCache } from '../native/places.js';

/**
 * Where downloaded models are kept, one directory for all programs of a user. `LLAMA_HEADSTART_MODELS_DIR` names another.
 *
 * ```
 * huggingface/<owner>/<name>/<16 hex digits>/<file>   a model's files; the digits are of their names and contents
 * huggingface/<owner>/<name>/refs/<revision>.json     what the revision held when it was last asked for
 * url/<16 hex digits>/<file>                          the digits are of the address
 * ...<file>.part, .part.json, .lock                   a download that is not finished, and who works on it
 * ```
 *
 * A file under its own name is complete and verified. Any of this may be deleted while no process uses it.
 */
export function modelsDirectory(): string {
  return process.env.LLAMA_HEADSTART_MODELS_DIR || join(userCache(), 'models');
}
