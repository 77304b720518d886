// Makes 10,000 random calls in random order from several threads at once. The arguments are random. Most are right,
// and some are wrong.
import { Model } from 'llama-headstart/native';
import { expect, it } from 'vitest';
import { runChild } from '../helpers/children.js';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { temporaryDirectory } from '../helpers/native.js';

// To search longer: LLAMA_HEADSTART_RANDOM_SEED=7 LLAMA_HEADSTART_RANDOM_CALLS=50000 npm test -- random-calls
const seed = Number(process.env.LLAMA_HEADSTART_RANDOM_SEED ?? 1);
const calls = Number(process.env.LLAMA_HEADSTART_RANDOM_CALLS ?? 10_000);

/**
 * Calls of these kinds rarely fail: most of them need no arguments and fail only on closed objects. With some seeds, no
 * call of such a kind fails.
 */
const MAY_NEVER_FAIL = [
  'close',
  'controlTokens',
  'counters',
  'getters',
  'metadata',
  'release',
  'setNativeLogger',
  'share',
];

const models = (['dense', 'recurrent', 'hybrid', 'sliding-window', 'no-tokenizer'] as const).map(microModel);

it('random calls give results or error codes, and later results stay correct', async () => {
  const directory = await temporaryDirectory();
  const [dense = ''] = models;
  const model = await Model.load({ path: dense, vocabularyOnly: true });
  const lora = await writeLora(directory, 'adapter', {}, model.info.embeddingSize);
  await model.close();
  const args = [String(seed), String(calls), JSON.stringify(models), directory, lora];
  // A wrong argument for the logger may be a class. If llama.cpp then logs a line, the call of the class throws, and
  // the package emits this process warning.
  const nodeArgs = ['--disable-warning=LOGGER_THREW'];
  const { stdout, ...end } = await runChild('native/children/random-calls.mjs', args, { nodeArgs });
  expect(end, `seed ${seed}`).toEqual({ code: 0, signal: null, stderr: '' });

  // Each kind of call must have had results and errors. Otherwise the calls are not random enough to show anything.
  const outcomes: [kind: string, counts: [values: number, errors: number]][] = Object.entries(JSON.parse(stdout));
  expect(outcomes.length).toBeGreaterThan(30);
  if (calls >= 10_000) {
    for (const [kind, [values, errors]] of outcomes) {
      expect(values, `results of ${kind}`).toBeGreaterThan(0);
      if (!MAY_NEVER_FAIL.includes(kind)) expect(errors, `errors of ${kind}`).toBeGreaterThan(0);
    }
  }
});
