// Makes the commands of a CMake build. In a checkout of this repository, cmake-js runs CMake. A user's
// `npx llama-headstart build` runs CMake directly with the same settings, so that users need not install cmake-js.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { root, run } from './run.mjs';

const require = createRequire(import.meta.url);

/**
 * @typedef {[command: string, args: string[]]} Command
 * @typedef {object} Driver
 * @property {(settings: string[]) => Promise<Command>} configure settings: "NAME=VALUE"
 * @property {(target: string, jobs: number) => Command} build
 */

/** @returns {((directory: string, config: string) => Driver) | undefined} undefined if cmake-js is not installed */
export function cmakeJs() {
  // Only the cmake-js of this checkout is used, because its version is pinned. A user's project may have another
  // version.
  const program = join(root, 'node_modules', 'cmake-js', 'bin', 'cmake-js');
  if (!existsSync(program)) return undefined;
  return (directory, config) => {
    const common = ['--out', directory, '--config', config];
    // `build` also needs the settings. Without the settings, cmake-js would configure the build again with the defaults
    // of cmake-js.
    let definitions = /** @type {string[]} */ ([]);
    return {
      async configure(settings) {
        definitions = settings.map((setting) => `--CD${setting}`);
        return [process.execPath, [program, 'configure', ...common, ...definitions]];
      },
      build: (target, jobs) => [
        process.execPath,
        [program, 'build', ...common, ...definitions, '--target', target, '--parallel', String(jobs)],
      ],
    };
  };
}

/** @type {(directory: string, config: string) => Driver} */
export const plainCMake = (directory, config) => ({
  async configure(settings) {
    const defaults = [
      `CMAKE_JS_INC=${nodeApi().join(';')}`,
      `CMAKE_BUILD_TYPE=${config}`,
      `CMAKE_LIBRARY_OUTPUT_DIRECTORY=${join(directory, config)}`,
    ];
    const definitions = [...defaults, ...settings].map((setting) => `-D${setting}`);
    return ['cmake', ['-S', root, '-B', directory, '--no-warn-unused-cli', ...(await generator()), ...definitions]];
  },
  build: (target, jobs) => [
    'cmake',
    ['--build', directory, '--config', config, '--target', target, '--parallel', String(jobs)],
  ],
});

/**
 * @returns {Promise<string[]>} arguments that select ninja if it is installed, otherwise make; empty on Windows, so
 *   that CMake selects its default generator
 */
async function generator() {
  if (process.platform === 'win32') return [];
  const hasNinja = (await run('ninja', ['--version'])).code === 0;
  return ['-G', hasNinja ? 'Ninja' : 'Unix Makefiles'];
}

/**
 * Returns the directories of Node-API's headers. The headers come from npm packages, so that a build downloads nothing.
 */
const nodeApi = () => [
  require('node-api-headers').include_dir,
  dirname(require.resolve('node-addon-api/package.json')),
];
