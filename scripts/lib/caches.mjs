// Directories for downloads that all checkouts of this repository share: models, compilers, other versions of Node.js.

import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

/**
 * Returns this package's directory in the user's cache directory. The loader has the same function in
 * lib/native/places.ts. Scripts cannot import that function, because they run before dist is compiled.
 * test/unit/places.test.ts checks that both functions return the same path.
 */
export function userCache() {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  let caches = absolute(XDG_CACHE_HOME) ?? join(homedir(), '.cache');
  if (process.platform === 'darwin') caches = join(homedir(), 'Library', 'Caches');
  if (process.platform === 'win32') caches = absolute(LOCALAPPDATA) ?? join(homedir(), 'AppData', 'Local');
  if (!isAbsolute(caches)) throw new Error('Expected a home directory for caches, but there is none. Set HOME.');
  return join(caches, 'llama-headstart');
}

const absolute = (/** @type {string | undefined} */ path) => (path && isAbsolute(path) ? path : undefined);

/**
 * Returns the directory for tools that scripts download: compilers, other versions of Node.js, emulators. You may
 * delete the directory. The scripts then download the tools again.
 */
export const toolsDirectory = () => process.env.LLAMA_HEADSTART_TOOLS_DIR ?? join(userCache(), 'tools');
