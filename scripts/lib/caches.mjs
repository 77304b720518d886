// Where things are kept that outlive a checkout: models, toolchains, runtimes of the tests.

import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

/**
 * This package's directory in the user's cache. The loader's rule (lib/native/places.ts), said again, as scripts run before
 * dist is compiled; test/unit/places.test.ts holds them together.
 */
export function userCache() {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  let caches = absolute(XDG_CACHE_HOME) ?? join(homedir(), '.cache');
  if (process.platform === 'darwin') caches = join(homedir(), 'Library', 'Caches');
  if (process.platform === 'win32') caches = absolute(LOCALAPPDATA) ?? join(homedir(), 'AppData', 'Local');
  if (!isAbsolute(caches)) throw new Error('Expected a home directory to keep caches in, found none: set HOME.');
  return join(caches, 'llama-headstart');
}

const absolute = (/** @type {string | undefined} */ path) => (path && isAbsolute(path) ? path : undefined);

/** Tools that scripts fetch: compilers, Node.js of other versions, emulators. Safe to delete; fetched again when needed. */
export const toolsDirectory = () => process.env.LLAMA_HEADSTART_TOOLS_DIR ?? join(userCache(), 'tools');
