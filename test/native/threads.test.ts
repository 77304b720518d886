// Tests `Context.setThreads`. The number of threads shows in logits: with flash attention, ggml cuts the KV cache into
// one part for each thread, which changes the last digits. Without flash attention it does not.
import { cpus } from 'node:os';
import { type Context, type ContextOptions, Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { codeOf, logitsOf, prefill, someTokens } from '../helpers/native.js';

/** ggml cuts the KV cache into parts from 512 cells on. */
const PROMPT_TOKENS = 600;

let model: Model;

beforeAll(async () => {
  model = await Model.load({ path: microModel('dense') });
});
afterAll(() => model?.close());

/** Prefills a prompt with one thread, and returns the logits of one more token with the given numbers of threads. */
async function logitsWith(threads: [number, number?], options: ContextOptions): Promise<Float32Array[]> {
  const context = await model.createContext({ kvCells: 1024, nThreads: 2, ...options });
  const tokens = someTokens(PROMPT_TOKENS + 1, model.info.vocabulary.size);
  await context.setThreads(1);
  await prefill(context, 0, tokens.subarray(0, PROMPT_TOKENS));
  await context.setThreads(...threads);
  const logits = await logitsOf(context, 0, tokens.subarray(PROMPT_TOKENS), PROMPT_TOKENS);
  await context.close();
  return logits;
}

describe.skipIf(cpus().length < 2)('`Context.setThreads`', () => {
  it('changes the number of threads of later decodes', async () => {
    const one = await logitsWith([1], { flashAttention: true });
    const two = await logitsWith([2], { flashAttention: true });
    expect(two).not.toEqual(one);
    expect(await logitsWith([1, 2], { flashAttention: true })).toEqual(one); // batches of one token use the first number
  });

  it('does not change logits without flash attention', async () => {
    const one = await logitsWith([1], { flashAttention: false });
    expect(await logitsWith([2], { flashAttention: false })).toEqual(one);
  });
});

describe('the arguments of `Context.setThreads`', () => {
  let context: Context;

  beforeAll(async () => {
    context = await model.createContext({ kvCells: 256, nThreads: 1 });
  });

  it('are checked, and the context still decodes after refused calls', async () => {
    // biome-ignore lint/suspicious/noExplicitAny: the test passes wrong types
    for (const value of [0, -1, 1.5, 2, 512, Number.NaN, null, '1', {}] as any[]) {
      expect(await codeOf(() => context.setThreads(value)), String(value)).toBe('INVALID_ARGUMENT');
      expect(await codeOf(() => context.setThreads(1, value)), String(value)).toBe('INVALID_ARGUMENT');
    }
    expect(await codeOf(() => context.setThreads(undefined as never))).toBe('INVALID_ARGUMENT');
    await expect(context.setThreads(2)).rejects.toThrow('Expected `nThreads` to be an integer from 1 to 1, got 2');
    await prefill(context, 0, someTokens(4, model.info.vocabulary.size));
  });

  it('cannot be set in a closed context', async () => {
    await context.close();
    expect(await codeOf(() => context.setThreads(1))).toBe('CLOSED');
  });
});
