// Directories for files that are shared by all checkouts: models, compilers, other versions of Node.js.

import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

/**
 * This package's directory in the user's cache. It repeats a rule of the loader (lib/native/places.ts), because scripts
 * run before dist is compiled. test/unit/places.test.ts checks that both agree.
 */
export function userCache() {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  let caches = absolute(XDG_CACHE_HOME) ?? join(homedir(), '.cache');
  if (process.platform === 'darwin') caches = join(homedir(), 'Library', 'Caches');
  if (process.platform === 'win32') caches = absolute(LOCALAPPDATA) ?? join(homedir(), 'AppData', 'Local');
  if (!isAbsolute(caches)) throw new Error('Expected a home directory for caches, found none. Set HOME.');
  return join(caches, 'llama-headstart');
}

const absolute = (/** @type {string | undefined} */ path) => (path && isAbsolute(path) ? path : undefined);

/**
 * Tools that scripts download: compilers, other versions of Node.js, emulators. Deleting it is safe: scripts download
 * them again.
 */
export const toolsDirectory = () => process.env.LLAMA_HEADSTART_TOOLS_DIR ?? join(userCache(), 'tools');
