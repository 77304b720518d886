// Downloads tools into the user's cache, once per version. One rename puts a complete directory in place.

import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory } from '../../bin/lib/make-directory.mjs';
import { toolsDirectory } from './caches.mjs';

/**
 * @param {string} name the tool's name with its version: "zig-0.15.2"
 * @param {(directory: string) => Promise<void>} fill puts the tool into an empty directory
 * @returns {Promise<string>} the tool's directory
 */
export async function ensureTool(name, fill) {
  const parent = toolsDirectory();
  const target = join(parent, name);
  if (existsSync(target)) return target;
  await makeDirectory(parent);
  const work = await mkdtemp(join(parent, '.fetch-'));
  const removeWork = () => rm(work, { recursive: true, force: true });
  const interrupted = () => void removeWork().finally(() => process.exit(130));
  process.once('SIGINT', interrupted);
  try {
    const directory = join(work, 'tool');
    await mkdir(directory);
    await fill(directory);
    await rename(directory, target).catch((error) => {
      // Another process has put the same version in place.
      if (!existsSync(target)) throw error;
    });
    return target;
  } finally {
    process.off('SIGINT', interrupted);
    await removeWork();
  }
}
