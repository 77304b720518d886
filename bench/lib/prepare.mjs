// Prepares the addon, the baseline program, a model and an empty directory for the benchmarks that use run-bench.mjs.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { step } from '../../bin/lib/progress.mjs';
import { setup } from '../../scripts/setup.mjs';

/**
 * @param {string} [model] a GGUF file; default: SmolLM2
 * @param {object} [needs]
 * @param {boolean} [needs.baseline] whether to build the baseline program; default true
 * @param {boolean} [needs.microModels] whether to generate the micro models too if `model` is undefined; default false
 */
export async function prepare(model, { baseline: needsBaseline = true, microModels = false } = {}) {
  const isDefault = model === undefined;
  const prepared = await setup({ model: isDefault, microModels: isDefault && microModels, quiet: true });
  const path = model ?? prepared.model?.path;
  if (path === undefined) throw new Error('SmolLM2 could not be downloaded. Name a model with --model FILE.');
  const baseline = needsBaseline ? await buildBaseline() : undefined;
  const directory = await mkdtemp(join(tmpdir(), 'llama-headstart-bench-'));
  return {
    model: path,
    isDefaultModel: isDefault,
    microModels: prepared.microModels ?? undefined,
    baselineProgram: baseline?.path,
    directory,
    cleanUp: () => rm(directory, { recursive: true, force: true }),
  };
}

async function buildBaseline() {
  const { buildNative } = await import('../../bin/lib/build-native.mjs');
  return step('baseline program', { quiet: true }, (progress) =>
    buildNative({ baseline: true, onProgress: (state) => progress.update(state) }),
  );
}
