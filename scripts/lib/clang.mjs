// Downloads pinned versions of clang-format and clang-tidy as Python wheels, so that every machine gets the same
// results.

import { chmod, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { mustRun } from '../../bin/lib/run.mjs';
import { downloadWheel, unpackWheel } from './python-package.mjs';
import { ensureTool } from './tools.mjs';

const VERSIONS = /** @type {const} */ ({ 'clang-format': '23.1.5', 'clang-tidy': '23.1.4' });

/**
 * @param {keyof typeof VERSIONS} name
 * @returns {Promise<string>} the program's path
 */
export async function ensureClang(name) {
  const version = VERSIONS[name];
  const folder = name.replace('-', '_');
  const directory = await ensureTool(`${name}-${version}`, async (empty) => {
    await unpackWheel(await downloadWheel(`${name}==${version}`, dirname(empty)), dirname(empty));
    await rename(join(dirname(empty), folder), join(empty, folder));
    await chmod(join(empty, folder, 'data', 'bin', name), 0o755);
  });
  return join(directory, folder, 'data', 'bin', name);
}

/**
 * Lists this repository's C++ files, without those in vendor/.
 * @returns {Promise<string[]>} relative to the repository's root
 */
export async function nativeSources() {
  const { stdout } = await mustRun('git', ['ls-files', '--', 'native/*.cpp', 'native/*.h', 'bench/native/*.cpp']);
  return stdout.split('\n').filter(Boolean);
}
