// Makes a directory and its missing parents. Unlike Node's recursive `mkdir`, this function never hangs.
// lib/files.ts contains the same function and explains the difference. Scripts need this copy, because they run before
// dist is compiled. test/unit/files.test.ts runs the same tests on both functions.

import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** @param {string} path @returns {Promise<void>} */
export async function makeDirectory(path) {
  const failure = await tryToMake(path);
  const parent = dirname(path);
  if (failure?.code === 'ENOENT' && parent !== path) {
    await makeDirectory(parent);
    const second = await tryToMake(path);
    if (second !== undefined) throw second;
  } else if (failure !== undefined) {
    throw failure;
  }
}

/**
 * @param {string} path
 * @returns {Promise<NodeJS.ErrnoException | undefined>} the error if `path` is no directory now
 */
async function tryToMake(path) {
  try {
    await mkdir(path);
    return undefined;
  } catch (error) {
    const stats = await stat(path).catch(() => undefined);
    return stats?.isDirectory() ? undefined : /** @type {NodeJS.ErrnoException} */ (error);
  }
}
