// Builds an addon with assertions and runs the tests of the low-level API with this addon. The addon is not installed.
// Vitest gets the arguments of the command line.

import { relative } from 'node:path';
import { buildNative } from '../../bin/lib/build-native.mjs';
import { step } from '../../bin/lib/progress.mjs';
import { root, run } from '../../bin/lib/run.mjs';
import { setup } from '../setup.mjs';

/**
 * @param {string} name of the build, for the progress line
 * @param {import('../../bin/lib/build-native.mjs').BuildOptions} options
 * @param {number} patience the factor for the time limits of tests, compared with a release build
 * @param {NodeJS.ProcessEnv} env additional environment variables for the tests
 */
export async function testAssertingAddon(name, options, patience, env = {}) {
  const { model, microModels } = await setup({ model: true, microModels: true, quiet: true });
  const { path } = await step(
    name,
    {},
    (progress) => buildNative({ ...options, onProgress: (state) => progress.update(state) }),
    (built) => relative(root, built.path),
  );
  const vitestArguments = process.argv.slice(2);
  const limits = ['--testTimeout', '--hookTimeout'].map((option) => `${option}=${120_000 * patience}`);
  const args = [...(vitestArguments.length > 0 ? vitestArguments : ['test/native']), ...limits];
  const result = await run(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...args], {
    cwd: root,
    inherit: true,
    env: {
      LLAMA_HEADSTART_ADDON: path,
      LLAMA_HEADSTART_ASSERTS: '1',
      LLAMA_HEADSTART_PATIENCE: String(patience),
      LLAMA_HEADSTART_TEST_MODEL: model?.path ?? '',
      LLAMA_HEADSTART_MICRO_MODELS: microModels ?? '',
      ...env,
    },
  });
  process.exitCode = result.code;
}
