// Prepares the addon, the baseline program, a model and an empty directory for the benchmarks that use run-bench.mjs.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { step } from '../../bin/lib/progress.mjs';
import { setup } from '../../scripts/setup.mjs';

/** @param {string} [model] a GGUF file; default: SmolLM2 */
export async function prepare(model) {
  const prepared = await setup({ model: model === undefined, quiet: true });
  const path = model ?? prepared.model?.path;
  if (path === undefined) throw new Error('SmolLM2 could not be downloaded. Name a model with --model FILE.');
  const { buildNative } = await import('../../bin/lib/build-native.mjs');
  const baseline = await step('baseline program', { quiet: true }, (progress) =>
    buildNative({ baseline: true, onProgress: (state) => progress.update(state) }),
  );
  const directory = await mkdtemp(join(tmpdir(), 'llama-headstart-bench-'));
  return {
    model: path,
    baselineProgram: baseline.path,
    directory,
    cleanUp: () => rm(directory, { recursive: true, force: true }),
  };
}
