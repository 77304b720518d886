// `npm run test:reproducible [-- --sessions N] [FILE...]`: runs N sessions at the same time in `reproducible` mode.
// Then runs each session alone, and compares the bytes of all logits. Without files, the script tests SmolLM2 (Q4_1),
// the micro models (F16, Q8_0, Q4_K, IQ2_XXS; sliding-window, recurrent, hybrid) and TinyLlama (IQ2_XXS). This takes
// about 20 minutes. The last line has the number of compared replies and the number of replies that differ. `npm test`
// makes the same comparison with the micro models.

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
    throw new Error(`Expected --sessions to be a whole number of at least 1, got "${values.sessions}".`);
  }
  const files = positionals.map((file) => resolve(file));
  const { model, microModels } = await setup({ model: files.length === 0, microModels: true, quiet: true });
  const models = files.length > 0 ? files : await defaultModels(model?.path, microModels ?? '');
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

/** @param {string | undefined} smollm2 @param {string} directory the directory of the micro models */
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
    (fetched) => fetched?.source ?? 'could not be downloaded, continuing without it',
  );
  const all = [...REPRODUCIBLE_MODELS.map((name) => micro[name]), smollm2, tinyLlama?.path];
  return all.filter((path) => path !== undefined);
}

if (isMain(import.meta)) {
  await runMain(main);
}
