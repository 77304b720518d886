// A session that lost its sequence continues in the faster way: from its saved state, or by a prefill of its tokens.
import { Engine, SequenceSwap } from 'llama-headstart/internal';
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
      usedCells: () => engine.usedCells,
      canTrim: true,
      reproducible: false,
      hasWindow: false,
      promptMsPerToken: () => promptMsPerToken,
      decode: (request) => engine.decode(request),
      withCells: (attempt, signal, sequence) => engine.withCells(attempt, signal, sequence),
    },
    maxBytes,
  );
  const sequence = engine.createSequence({ templateLength: templateTokens });
  await engine.sessions.lease(sequence);
  await engine.prefill(sequence, TOKENS);
  (await sequence.capture()).close(); // measures the duration of a copy
  swap.swapOut(sequence);
  await sequence.clear();
  return { sequence, swap, restore: () => swap.swapIn(sequence, someTokens(301, 1)) };
}

it('a sequence is restored from its state if a prefill would take much longer', async () => {
  const { sequence, swap, restore } = await evict(1000);
  expect(await restore()).toBe(true);
  expect(sequence.tokens).toEqual(TOKENS);
  expect(swap.bytes).toBe(0); // a state is dropped after its use
});

it.each([
  ['it held only the template', 1000, { templateTokens: TOKENS.length }],
  ['a prefill takes less time than a copy of the state', 1e-6, {}],
  ['the duration of a prefill was not measured yet', 0, {}],
  ['its state is larger than the budget', 1000, { maxBytes: 1000 }],
  ['there are too few cells for a copy that shares no cells with its template', 1000, { kvCells: 512 }],
])('a sequence is prefilled again if %s', async (_, promptMsPerToken, more) => {
  const { sequence, swap, restore } = await evict(promptMsPerToken, more);
  expect(await restore()).toBe(false);
  expect(sequence.length).toBe(0);
  expect(swap.bytes).toBe(0);
});
