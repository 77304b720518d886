// Tests that a context adapts its number of threads. Only the durations of the decodes are simulated.
import { availableParallelism, cpus } from 'node:os';
import { Engine, ThreadCounts } from 'llama-headstart/internal';
import { type Context, Model } from 'llama-headstart/native';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { microModel } from '../helpers/models.js';
import { batchOf, someTokens } from '../helpers/native.js';

/** Opens a context whose counters report simulated durations, which depend on the number of threads. */
async function simulated(msPerToken: (threads: number) => number) {
  const model = await Model.load({ path: microModel('dense') });
  onTestFinished(() => model.close());
  const context = await model.createContext({ kvCells: 1024, batchSize: 128, nThreads: 2 });
  let [threads, decodeMs] = [2, 0];
  const set: number[] = [];
  const timed = {
    info: context.info,
    counters: () => ({ ...context.counters(), decodeMs }),
    setThreads: (count: number) => {
      set.push(count);
      threads = count;
      return context.setThreads(count);
    },
    decode: (batch: Parameters<Context['decode']>[0]) => {
      decodeMs += batch.tokens.length * msPerToken(threads);
      return context.decode(batch);
    },
  };
  return { model, set, counts: new ThreadCounts(timed) };
}

describe.skipIf(cpus().length < 2)("a context with `nThreads: 'auto'`", () => {
  it('changes its threads when fewer threads are faster, separately for prompts and replies', async () => {
    const { model, set, counts } = await simulated((threads) => (threads === 1 ? 10 : 40));
    const tokens = someTokens(400, model.info.vocabulary.size);
    await counts.decode(batchOf(0, 0, tokens.subarray(0, 100)));
    for (let position = 100; position < 160; position++) {
      await counts.decode(batchOf(0, position, tokens.subarray(position, position + 1)));
    }
    expect(counts.status()).toMatchObject({ automatic: true, max: 2, decode: { threads: 1 }, prefill: { threads: 2 } });
    for (let position = 160; position < 380; position += 20) {
      await counts.decode(batchOf(0, position, tokens.subarray(position, position + 20)));
    }
    expect(counts.status().prefill).toMatchObject({ threads: 1, lastChange: { from: 2, to: 1, speedup: 4 } });
    expect(set[0]).toBe(2);
    expect(set.at(-1)).toBe(1);
  });
});

describe("an agent with `nThreads: 'auto'`", () => {
  it('gives the same replies without flash attention, and reports the numbers of threads', async () => {
    const settings = { flashAttention: false, contextSize: 512 };
    const agent = await startAgent({ ...settings, nThreads: 'auto' });
    const fixed = await startAgent({ ...settings, nThreads: 1 });
    const [reply, expected] = await Promise.all(
      [agent, fixed].map(async (each) => (await each.createSession()).send('Hello', { maxTokens: 48 })),
    );
    expect(reply?.text).toBe(expected?.text);
    const { threads } = agent.health();
    expect(threads).toMatchObject({ automatic: true, max: availableParallelism() });
    for (const { threads: count } of [threads.decode, threads.prefill]) {
      expect(count).toBeGreaterThanOrEqual(1);
      expect(count).toBeLessThanOrEqual(threads.max);
    }
    const none = { threads: 1, changes: { slower: 0, faster: 0, routine: 0 } };
    expect(fixed.health().threads).toEqual({ automatic: false, max: 1, decode: none, prefill: none });
  });

  it('closes while a reply is decoded', async () => {
    const agent = await startAgent({ nThreads: 'auto', contextSize: 512 });
    const session = await agent.createSession();
    const stream = session.stream('Hello', { maxTokens: 400 })[Symbol.asyncIterator]();
    await stream.next();
    await agent.close();
    await expect(
      (async () => {
        while (!(await stream.next()).done);
      })(),
    ).rejects.toMatchObject({ code: 'CLOSED' });
  });
});

it('an engine adapts its threads only if it is asked to', async () => {
  const model = await Model.load({ path: microModel('dense') });
  onTestFinished(() => model.close());
  const fixed = new Engine(await model.createContext({ kvCells: 256, nThreads: 1 }));
  const adapting = new Engine(await model.createContext({ kvCells: 256, nThreads: 1 }), { adaptsThreads: true });
  expect([fixed.status().threads.automatic, adapting.status().threads.automatic]).toEqual([false, true]);
});
