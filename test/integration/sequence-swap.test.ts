// A session that lost its sequence continues from its saved state or by a prefill, whichever is faster.
import { Engine, type SequenceHolder, SequenceSwap } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { expect, it, onTestFinished } from 'vitest';
import { EXACT } from '../helpers/agents.js';
import { someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';

const TEMPLATE_TOKENS = 200;
const TOKENS = someTokens(300, 1);

/** Swaps out a sequence with {@link TOKENS}, in an engine whose prefill takes `promptMsPerToken` ms per token. */
async function evict(
  promptMsPerToken: number,
  more: { maxBytes?: number; templateTokens?: number; kvCells?: number } = {},
) {
  const { maxBytes = 2 ** 28, templateTokens = TEMPLATE_TOKENS, kvCells = 2048 } = more;
  const model = await Model.load({ path: microModel('dense') });
  const engine = new Engine(await model.createContext({ kvCells, batchSize: 512, maxSequences: 2, ...EXACT }));
  onTestFinished(async () => {
    await engine.close();
    await model.close();
  });
  const { context } = engine;
  const swap = new SequenceSwap(
    {
      context,
      canTrim: true,
      reproducible: false,
      hasWindow: false,
      promptMsPerToken: () => promptMsPerToken,
      decode: (request) => engine.decode(request),
      withCells: (attempt, signal, sequence) => engine.withCells(attempt, signal, sequence),
    },
    maxBytes,
  );
  await engine.prefill(0, TOKENS, 0);
  (await context.captureSequence(0, TOKENS)).close(); // measures the duration of a copy
  const holder: SequenceHolder = {
    busy: false,
    held: () => ({ tokens: TOKENS, templateTokens }),
    onEvicted: () => undefined,
  };
  swap.swapOut(0, holder);
  await context.removeSequence(0);
  return { engine, swap, restore: () => swap.swapIn(holder, 0, someTokens(301, 1)) };
}

it('a sequence is restored from its state if a prefill would take much longer', async () => {
  const { engine, swap, restore } = await evict(1000);
  expect(await restore()).toEqual(TOKENS);
  expect(await engine.context.positionRange(0)).toMatchObject({ last: TOKENS.length - 1 });
  expect(swap.bytes).toBe(0); // a state is dropped after its use
});

it.each([
  ['it held only the template', 1000, { templateTokens: TOKENS.length }],
  ['a prefill takes less time than a copy of the state', 1e-6, {}],
  ['the duration of a prefill was not measured yet', 0, {}],
  ['its state is larger than the budget', 1000, { maxBytes: 1000 }],
  ['there are too few cells for a copy that shares no cells with its template', 1000, { kvCells: 512 }],
])('a sequence is prefilled again if %s', async (_, promptMsPerToken, more) => {
  const { engine, swap, restore } = await evict(promptMsPerToken, more);
  expect(await restore()).toBeUndefined();
  expect(await engine.context.positionRange(0)).toMatchObject({ last: -1 });
  expect(swap.bytes).toBe(0);
});
