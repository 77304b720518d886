// Where things are kept that outlive a checkout: models, toolchains, runtimes of the tests.

import { homedir } from 'node:os';
import { join } from 'node:path';

/** This package's directory in the user's cache. The loader has the same rule: lib/native/places.ts. */
export function userCache() {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  let caches = XDG_CACHE_HOME || join(homedir(), '.cache');
  if (process.platform === 'darwin') caches = join(homedir(), 'Library', 'Caches');
  if (process.platform === 'win32') caches = LOCALAPPDATA || join(homedir(), 'AppData', 'Local');
  return join(caches, 'llama-headstart');
}

/** Tools that scripts fetch: compilers, Node.js of other versions, emulators. Safe to delete; fetched again when needed. */
export const toolsDirectory = () => process.env.LLAMA_HEADSTART_TOOLS_DIR ?? join(userCache(), 'tools');
