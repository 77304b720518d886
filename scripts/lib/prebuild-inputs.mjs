// Hashes everything that a prebuilt binary is built from. As long as the hash does not change, `prebuild` uses binaries
// that were built earlier.

import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { root } from '../../bin/lib/run.mjs';

/**
 * The hashed files and directories. llama-pin.json identifies llama.cpp. The version in zig.mjs identifies the
 * compiler.
 */
const SOURCES = [
  'CMakeLists.txt',
  'cmake',
  'native',
  'bin/lib/build-native.mjs',
  'bin/lib/cmake.mjs',
  'bin/lib/libc.mjs',
  'scripts/lib/prebuild-gyp.mjs',
  'scripts/lib/zig.mjs',
  'scripts/llama-pin.json',
  'scripts/prebuild.mjs',
];
/** npm packages whose headers are compiled or whose programs build and strip the binaries. */
const PACKAGES = ['node-addon-api', 'node-api-headers', 'prebuildify', 'cmake-js'];

/**
 * @param {string} platform "linux-x64"
 * @param {string} [directory] root of the checkout
 * @returns {Promise<string>} 16 hexadecimal digits
 */
export async function prebuildInputs(platform, directory = root) {
  const hash = createHash('sha256').update(platform);
  const { version, dependencies, devDependencies } = JSON.parse(
    await readFile(join(directory, 'package.json'), 'utf8'),
  );
  hash.update(JSON.stringify([version, ...PACKAGES.map((name) => dependencies[name] ?? devDependencies[name])]));
  for (const source of SOURCES) {
    for (const file of await filesOf(directory, source)) {
      const bytes = await readFile(join(directory, file));
      hash.update(`\n${file} ${bytes.length}\n`).update(bytes);
    }
  }
  return hash.digest('hex').slice(0, 16);
}

/**
 * @param {string} directory
 * @param {string} path
 * @returns {Promise<string[]>} the files at `path`, sorted, because a file system may list them in any order
 */
async function filesOf(directory, path) {
  if ((await stat(join(directory, path))).isFile()) return [path];
  const names = (await readdir(join(directory, path))).sort();
  return (await Promise.all(names.map((name) => filesOf(directory, `${path}/${name}`)))).flat();
}
