// An abort ends every kind of wait and decode, and leaves no cells or sequences in use.
import { describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { loopTurns, until } from '../helpers/event-loop.js';
import { someTokens } from '../helpers/lab.js';
import { expectAllFree, generate, leaseBusy, noFreeCells, openEngine } from '../helpers/open-engine.js';
import { openLab } from '../helpers/open-lab.js';

describe('an abort', () => {
  /** Opens an engine with 512 KV cells. Another sequence holds all cells except `free` of them. */
  const almostFull = async (free: number) => {
    const { engine, lease } = await openEngine({ kvCells: 512 });
    const other = await lease();
    await engine.prefill(other, someTokens(512 - free, 1));
    return { engine, other, sequence: await lease() };
  };

  it('ends the wait for KV cells, and the sequence keeps the tokens decoded until then', async () => {
    const { engine, other, sequence } = await almostFull(100);
    const controller = new AbortController();
    const waits = noFreeCells(engine, 'decode');
    const waiting = engine.decode({ sequence, tokens: someTokens(300, 2), signal: controller.signal });
    waiting.catch(() => undefined);
    await waits;
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    expect((await engine.context.positionRange(sequence.id)).last + 1).toBe(sequence.length);
    expect(sequence.length).toBeGreaterThan(0);
    engine.sessions.release(sequence);
    engine.sessions.release(other);
    await expectAllFree(engine);
  });

  it('ends a decode for which no KV cells are free', async () => {
    const { engine, other, sequence } = await almostFull(56);
    await engine.prefill(sequence, someTokens(56, 2));
    const controller = new AbortController();
    const { signal } = controller;
    const waiting = engine.decode({ sequence, tokens: Int32Array.of(20), signal });
    setImmediate(() => controller.abort()); // runs after the scheduler's step in this event-loop turn
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    engine.sessions.release(sequence);
    engine.sessions.release(other);
    await expectAllFree(engine);
  });

  it('ends the wait of a preempted request, without an effect on the other sequence', async () => {
    const { engine, lease } = await openEngine({ kvCells: 512 });
    const [first, second] = [await lease(), await lease()];
    const expected = await generate(engine, someTokens(300, 1), 40, first);
    await first.clear();
    await engine.prefill(second, someTokens(10, 3));
    const controller = new AbortController();
    const other = engine.decode({ sequence: second, tokens: someTokens(400, 2), signal: controller.signal });
    other.catch(() => undefined);
    const preempt = second.preempt.bind(second);
    second.preempt = () => {
      preempt();
      queueMicrotask(() => controller.abort()); // now the preempted request waits
    };
    expect(await generate(engine, someTokens(300, 1), 40, first)).toEqual(expected);
    await expect(other).rejects.toMatchObject({ code: 'ABORTED', sequences: [second.id] });
    engine.sessions.release(first);
    engine.sessions.release(second);
    await expectAllFree(engine);
  });

  it.each([false, true])(
    'ends the wait for a sequence, and the session keeps its swapped-out state (reproducible: %s)',
    async (reproducible) => {
      const agent = await startAgent({ nSeqMax: 1, reproducible });
      const session = await agent.createSession();
      await session.send('Hello. '.repeat(60), { maxTokens: 8 });
      const other = await agent.createSession(); // takes the only sequence
      const { savedBytes } = agent.health();
      expect(savedBytes > 0 || !reproducible).toBe(true);
      const running = other.send('Hello', { maxTokens: 100 });
      const controller = new AbortController();
      const waiting = session.send('And now?', { signal: controller.signal, maxTokens: 4 });
      waiting.catch(() => undefined);
      await until(() => agent.health().queueLength > 0);
      controller.abort();
      await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
      expect(agent.health().queueLength).toBe(0); // the other session decodes and does not wait
      expect(agent.health().savedBytes).toBe(savedBytes);
      expect((await running).finishReason).toBe('length');
      expect((await session.send('And now?', { maxTokens: 4 })).usage.outputTokens).toBe(4);
    },
  );

  it.each([0, 1])(
    'ends the wait for the KV cells of a template that is restored from memory (resident templates: %i)',
    async (count) => {
      const lab = await openLab({ kvCells: 512, residents: count, sessions: 2 });
      const template = someTokens(200, 1);
      await lab.start(template);
      if (count > 0) {
        await lab.start(someTokens(100, 3)); // takes the only sequence for resident templates
      }
      const { sessions } = lab.engine;
      const other = await leaseBusy(lab.engine);
      await lab.engine.prefill(other, someTokens(400, 2));
      const sequence = await leaseBusy(lab.engine);
      const controller = new AbortController();
      const waits = noFreeCells(lab.engine, 'restoreSequence');
      const starting = lab.prefixCache.start(sequence, template, { signal: controller.signal });
      starting.catch(() => undefined);
      await waits;
      controller.abort();
      await expect(starting).rejects.toMatchObject({ code: 'ABORTED' });
      sessions.release(sequence);
      sessions.release(other);
      await lab.cache.clear();
      await expectAllFree(lab.engine);
    },
  );

  it('by `close()` of the cache ends the wait of a template for KV cells with CLOSED', async () => {
    const lab = await openLab({ kvCells: 512, residents: 0, sessions: 2 });
    const template = someTokens(200, 1);
    await lab.start(template);
    await lab.engine.prefill(await leaseBusy(lab.engine), someTokens(400, 2));
    const waits = noFreeCells(lab.engine, 'restoreSequence');
    const starting = expect(lab.prefixCache.start(await leaseBusy(lab.engine), template)).rejects.toMatchObject({
      code: 'CLOSED',
    });
    await waits;
    await lab.prefixCache.close();
    await starting;
  });

  it.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)(
    'during a decode leaves a sequence that holds the tokens of whole batches, with the %s model',
    async (name) => {
      const { engine, lease } = await openEngine({ name, batchSize: 64, microBatchSize: 64 });
      const sequence = await lease();
      const tokens = someTokens(800, 1);
      for (const turns of [0, 1, 20]) {
        const controller = new AbortController();
        const decoding = engine.decode({ sequence, tokens, signal: controller.signal });
        decoding.catch(() => undefined);
        await loopTurns(turns); // the decode of all tokens takes many more turns
        controller.abort();
        await expect(decoding).rejects.toMatchObject({ code: 'ABORTED' });
        const { length } = sequence;
        expect(length).toBeLessThan(tokens.length);
        expect(length % 64).toBe(0);
        expect([...sequence.tokens]).toEqual([...tokens.subarray(0, length)]);
        expect((await engine.context.positionRange(sequence.id)).last).toBe(length - 1);
        await engine.prefill(sequence, tokens.subarray(length, length + 3));
        await sequence.clear();
      }
      engine.sessions.release(sequence);
      await expectAllFree(engine);
    },
  );
});
