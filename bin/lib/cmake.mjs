// CMake, driven by cmake-js in a checkout, where this package is developed, tested and released. A user's `npx llama-headstart build`
// does without it: CMake itself, with the same settings.

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

/** @returns {((directory: string, config: string) => Driver) | undefined} */
export function cmakeJs() {
  // Ours, of the version that we know, and not what another package brought into the same project.
  const program = join(root, 'node_modules', 'cmake-js', 'bin', 'cmake-js');
  if (!existsSync(program)) return undefined;
  return (directory, config) => {
    const common = ['--out', directory, '--config', config];
    // The build takes the settings too, or cmake-js would configure again without them.
    let given = /** @type {string[]} */ ([]);
    return {
      async configure(settings) {
        given = settings.map((setting) => `--CD${setting}`);
        return [process.execPath, [program, 'configure', ...common, ...given]];
      },
      build: (target, jobs) => [
        process.execPath,
        [program, 'build', ...common, ...given, '--target', target, '--parallel', String(jobs)],
      ],
    };
  };
}

/** @type {(directory: string, config: string) => Driver} */
export const plainCMake = (directory, config) => ({
  async configure(settings) {
    const own = [
      `CMAKE_JS_INC=${nodeApi().join(';')}`,
      `CMAKE_BUILD_TYPE=${config}`,
      `CMAKE_LIBRARY_OUTPUT_DIRECTORY=${join(directory, config)}`,
    ];
    const definitions = [...own, ...settings].map((setting) => `-D${setting}`);
    return ['cmake', ['-S', root, '-B', directory, '--no-warn-unused-cli', ...(await generator()), ...definitions]];
  },
  build: (target, jobs) => [
    'cmake',
    ['--build', directory, '--config', config, '--target', target, '--parallel', String(jobs)],
  ],
});

/** @returns {Promise<string[]>} ninja where it is, else what CMake prefers: make, Visual Studio */
async function generator() {
  if (process.platform === 'win32') return [];
  const hasNinja = (await run('ninja', ['--version'])).code === 0;
  return ['-G', hasNinja ? 'Ninja' : 'Unix Makefiles'];
}

/** Node-API's headers, which come as npm packages: no build downloads any. */
const nodeApi = () => [
  require('node-api-headers').include_dir,
  dirname(require.resolve('node-addon-api/package.json')),
];
