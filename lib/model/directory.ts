import { homedir } from 'node:os';
import { join } from 'node:path';

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
  const { LLAMA_HEADSTART_MODELS_DIR, XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (LLAMA_HEADSTART_MODELS_DIR) {
    return LLAMA_HEADSTART_MODELS_DIR;
  }
  let caches = XDG_CACHE_HOME || join(homedir(), '.cache');
  if (process.platform === 'darwin') {
    caches = join(homedir(), 'Library', 'Caches');
  } else if (process.platform === 'win32') {
    caches = LOCALAPPDATA || join(homedir(), 'AppData', 'Local');
  }
  return join(caches, 'llama-headstart', 'models');
}
