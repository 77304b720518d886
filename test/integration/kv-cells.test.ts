// Tests evictions, waits, preemption, and errors if there are too few KV cells for all sequences.
import * as diagnostics from 'node:diagnostics_channel';
import { TEMPLATE_CACHE_CHANNEL, type TemplateCacheEvent } from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { someTokens } from '../helpers/lab.js';
import { generate, leaseBusy, openEngine } from '../helpers/open-engine.js';
import { openLab } from '../helpers/open-lab.js';

describe('if there are too few KV cells', () => {
  it('idle sessions are evicted, then the newest request waits; only a request that can never fit fails', async () => {
    const { engine } = await openEngine({ kvCells: 512 });
    const events: string[] = [];
    const lease = async (name: string) => {
      const holder = { busy: true, onEvicted: () => events.push(`${name} evicted`) };
      return { holder, sequence: await engine.sessions.lease(holder) };
    };
    const fill = async (name: string, count: number) => {
      const { holder, sequence } = await lease(name);
      await engine.prefill(sequence, someTokens(count, sequence + 1), 0);
      events.push(`${name} filled`);
      return { holder, sequence };
    };
    const idle = await fill('idle', 250);
    idle.holder.busy = false;
    const running = await fill('running', 200);
    await fill('second', 200); // takes the cells of the idle sequence
    const third = fill('third', 300);
    const tooLarge = fill('too large', 600);
    await expect(tooLarge).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
    // The running sequence continues while the third one waits.
    for (let step = 0; step < 20; step++) {
      await engine.decode({ sequence: running.sequence, tokens: Int32Array.of(20 + step), from: 200 + step });
    }
    events.push('running ended');
    engine.sessions.release(running.sequence);
    await third;
    expect(events).toEqual([
      'idle filled',
      'running filled',
      'idle evicted',
      'second filled',
      'running ended',
      'third filled',
    ]);
  });

  it('unshared resident templates are evicted first, then idle sessions, then shared templates', async () => {
    const lab = await openLab({ kvCells: 1024, residents: 2, sessions: 3 });
    const { engine, prefixCache } = lab;
    const events: string[] = [];
    const [shared, unshared] = [someTokens(200, 1), someTokens(150, 2)];
    const sequence = await engine.sessions.lease({ busy: false, onEvicted: () => events.push('idle session') });
    const { key } = await prefixCache.start(sequence, shared);
    await engine.prefill(sequence, someTokens(150, 3), 200);
    await lab.start(unshared); // now `unshared` is the most recently used template
    const listen = (event: unknown) => {
      const { type, key: evicted } = event as TemplateCacheEvent & { key: string };
      if (type === 'evict') {
        events.push(evicted === key ? 'shared template' : 'unshared template');
      }
    };
    diagnostics.subscribe(TEMPLATE_CACHE_CHANNEL, listen);
    onTestFinished(() => void diagnostics.unsubscribe(TEMPLATE_CACHE_CHANNEL, listen));
    await engine.prefill(await leaseBusy(engine), someTokens(1024, 4), 0);
    expect(events).toEqual(['unshared template', 'idle session', 'shared template']);
  });

  it('a pinned resident template is evicted only after the idle sessions', async () => {
    const lab = await openLab({ kvCells: 512, residents: 1, sessions: 2 });
    const pinned = someTokens(150, 1);
    await lab.cache.pin({ tokens: pinned });
    await lab.start(pinned);
    const idle: string[] = [];
    const sequence = await lab.engine.sessions.lease({ busy: false, onEvicted: () => idle.push('evicted') });
    await lab.engine.prefill(sequence, someTokens(200, 2), 0);
    const other = await lab.engine.sessions.lease({ busy: true, onEvicted: () => undefined });
    await lab.engine.prefill(other, someTokens(300, 3), 0); // needs cells of the session or of the template
    expect(idle).toEqual(['evicted']);
    expect(lab.cache.stats().residentTemplates).toBe(1);
  });

  it('the newest request is preempted, and starts over after the older one has released its cells', async () => {
    const { engine, lease } = await openEngine({ kvCells: 512 });
    const [first, second] = [await lease(), await lease()];
    const done: string[] = [];
    const run = async (name: string, sequence: number) => {
      await engine.prefill(sequence, someTokens(400, sequence + 1), 0);
      done.push(name);
      engine.sessions.release(sequence);
    };
    await Promise.all([run('first', first), run('second', second)]);
    expect(done).toEqual(['first', 'second']);
    expect(engine.status()).toMatchObject({ queueLength: 0, kvCells: { used: 0 } });
  });

  it('a preempted request that has reported decoded tokens fails with PREEMPTED and an empty sequence', async () => {
    const { engine, lease } = await openEngine({ kvCells: 512 });
    const [first, second] = [await lease(), await lease()];
    const filling = engine.prefill(first, someTokens(400, 1), 0);
    const decoded: number[] = [];
    const other = engine.decode({
      sequence: second,
      tokens: someTokens(300, 2),
      from: 0,
      onDecoded: (tokens) => decoded.push(...tokens),
    });
    other.catch(() => undefined);
    await filling;
    engine.sessions.release(first);
    await expect(other).rejects.toMatchObject({ code: 'PREEMPTED', sequences: [second] });
    expect(decoded.length).toBeGreaterThan(0);
    expect((await engine.context.positionRange(second)).last).toBe(-1);
  });

  it('a prompt that is larger than the whole KV cache fails with CONTEXT_FULL', async () => {
    const { engine } = await openEngine({ kvCells: 256 });
    await expect(engine.prefill(0, someTokens(300, 1), 0)).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
  });

  it.each([
    ['in the unified layout', 'unified'],
    ['in the split layout', 'split'],
  ] as const)(
    'a prompt that can never fit fails with CONTEXT_FULL, without an effect on other sequences, %s',
    async (_, kvLayout) => {
      const { engine, lease } = await openEngine({ kvCells: 1024, maxSequences: 2, kvLayout });
      const [first, second] = [await lease(), await lease()];
      const expected = await generate(engine, second, someTokens(20, 2), 12);
      await engine.context.removeSequence(second);
      const tooLarge = engine.prefill(first, someTokens(1100, 1), 0);
      const beside = generate(engine, second, someTokens(20, 2), 12);
      await expect(tooLarge).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
      expect(await beside).toEqual(expected);
    },
  );
});
