// `npm run test:reproducible [-- --sessions N] [FILE...]`: sessions at once in `reproducible` mode, each compared with itself
// alone by the bytes of all logits, on models of any size. Without a file: SmolLM2 (Q4_1), the micro models (F16, Q8_0, Q4_K,
// IQ2_XXS; sliding-window, recurrent, hybrid) and TinyLlama (IQ2_XXS). About 20 minutes. The last line says what was
// tried and how much went wrong. `npm test` does the same on the micro models.

import { basename, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { megabytes, step } from '../bin/lib/progress.mjs';
import { isMain, runMain } from '../bin/lib/run.mjs';
import { generateMicroModels, REPRODUCIBLE_MODELS } from '../test/fixtures/micro-models/models.mjs';
import { runWithTallies, sumOf } from './lib/tallies.mjs';
import { setup } from './setup.mjs';

async function main() {
  const { values, positionals } = parseArgs({
    options: { sessions: { type: 'string', default: '32' } },
    allowPositionals: true,
  });
  const sessions = Number(values.sessions);
  if (!Number.isInteger(sessions) || sessions < 1) {
    throw new Error(`Expected --sessions to be a number from 1 on, got "${values.sessions}"`);
  }
  const own = positionals.map((file) => resolve(file));
  const { model, microModels } = await setup({ model: own.length === 0, microModels: true, quiet: true });
  const models = own.length > 0 ? own : await defaultModels(model?.path, microModels ?? '');
  const { code, tallies } = await runWithTallies(
    ['test/integration/reproducible.test.ts', '--testTimeout=7200000', '--disableConsoleIntercept'],
    {
      LLAMA_HEADSTART_REPRODUCIBLE_MODELS: models.join(','),
      LLAMA_HEADSTART_REPRODUCIBLE_SESSIONS: String(sessions),
      LLAMA_HEADSTART_MICRO_MODELS: microModels ?? '',
    },
  );
  const tried = sumOf(tallies, 'tried').toLocaleString('en');
  const names = models.map((file) => basename(file)).join(', ');
  process.stdout.write(`reproducible: ${tried} replies compared on ${names}: ${sumOf(tallies, 'wrong')} went wrong\n`);
  process.exitCode = code;
}

/** @param {string | undefined} smollm2 @param {string} directory of the micro models */
async function defaultModels(smollm2, directory) {
  const { fetchTinyLlama } = await import('./fetch-model.mjs');
  const micro = await generateMicroModels(directory, { only: REPRODUCIBLE_MODELS });
  const tinyLlama = await step(
    'TinyLlama-1.1B-Chat',
    { quiet: true },
    (progress) =>
      fetchTinyLlama({
        log: (line) => progress.note(line),
        onProgress: (bytes, total) =>
          progress.update({ fraction: bytes / total, detail: `${megabytes(bytes)} of ${megabytes(total)}` }),
      }),
    (found) => (found === null ? 'no source could be reached: going on without it' : found.source),
  );
  const all = [...REPRODUCIBLE_MODELS.map((name) => micro[name]), smollm2, tinyLlama?.path];
  return all.filter((path) => path !== undefined);
}

if (isMain(import.meta)) {
  await runMain(main);
}
