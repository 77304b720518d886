// Makes a directory and its parents. Unlike Node's recursive `mkdir`, it always ends: lib/files.ts explains why. This is a second copy
// of that function, because scripts run before dist is compiled. test/unit/files.test.ts runs the same tests on both.

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

/** @param {string} path @returns {Promise<NodeJS.ErrnoException | undefined>} why there is no directory now */
async function tryToMake(path) {
  try {
    await mkdir(path);
    return undefined;
  } catch (error) {
    const stats = await stat(path).catch(() => undefined);
    return stats?.isDirectory() ? undefined : /** @type {NodeJS.ErrnoException} */ (error);
  }
}
