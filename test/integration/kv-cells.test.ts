// Tests evictions, waits, preemption, and errors if there are too few KV cells for all sequences.
import * as diagnostics from 'node:diagnostics_channel';
import { TEMPLATE_CACHE_CHANNEL, type TemplateCacheEvent } from 'llama-headstart';
import type { Sequence } from 'llama-headstart/internal';
import { describe, expect, it, onTestFinished } from 'vitest';
import { someTokens } from '../helpers/lab.js';
import { generate, leaseBusy, openEngine } from '../helpers/open-engine.js';
import { openLab } from '../helpers/open-lab.js';

describe('if there are too few KV cells', () => {
  it('idle sessions are evicted, then the newest request waits; only a request that can never fit fails', async () => {
    const { engine } = await openEngine({ kvCells: 512 });
    const events: string[] = [];
    const fill = async (name: string, count: number) => {
      const sequence = engine.createSequence({ onEvicted: () => events.push(`${name} evicted`) });
      await engine.sessions.lease(sequence);
      await engine.prefill(sequence, someTokens(count, sequence.id + 1));
      events.push(`${name} filled`);
      return sequence;
    };
    const idle = await fill('idle', 250);
    engine.sessions.setIdle(idle);
    const running = await fill('running', 200);
    await fill('second', 200); // takes the cells of the idle sequence
    const third = fill('third', 300);
    const tooLarge = fill('too large', 600);
    await expect(tooLarge).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
    // The running sequence continues while the request of the third sequence waits.
    for (let step = 0; step < 20; step++) {
      await engine.decode({ sequence: running, tokens: Int32Array.of(20 + step) });
    }
    events.push('running ended');
    engine.sessions.release(running);
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
    const sequence = engine.createSequence({ onEvicted: () => events.push('idle session') });
    await engine.sessions.lease(sequence);
    const { key } = await prefixCache.start(sequence, shared);
    await engine.prefill(sequence, someTokens(150, 3));
    engine.sessions.setIdle(sequence);
    await lab.start(unshared); // now it is the most recently used template
    const listen = (event: unknown) => {
      const { type, key: evicted } = event as TemplateCacheEvent & { key: string };
      if (type === 'evict') {
        events.push(evicted === key ? 'shared template' : 'unshared template');
      }
    };
    diagnostics.subscribe(TEMPLATE_CACHE_CHANNEL, listen);
    onTestFinished(() => void diagnostics.unsubscribe(TEMPLATE_CACHE_CHANNEL, listen));
    await engine.prefill(await leaseBusy(engine), someTokens(1024, 4));
    expect(events).toEqual(['unshared template', 'idle session', 'shared template']);
  });

  it('a pinned resident template is evicted only after the idle sessions', async () => {
    const lab = await openLab({ kvCells: 512, residents: 1, sessions: 2 });
    const pinned = someTokens(150, 1);
    await lab.cache.pin({ tokens: pinned });
    await lab.start(pinned);
    const idle: string[] = [];
    const sequence = lab.engine.createSequence({ onEvicted: () => idle.push('evicted') });
    await lab.engine.sessions.lease(sequence);
    await lab.engine.prefill(sequence, someTokens(200, 2));
    lab.engine.sessions.setIdle(sequence);
    const other = await leaseBusy(lab.engine);
    await lab.engine.prefill(other, someTokens(300, 3)); // needs cells of the session or of the template
    expect(idle).toEqual(['evicted']);
    expect(lab.cache.stats().residentTemplates).toBe(1);
  });

  it('the newest request is preempted, and starts over after the older request has released its cells', async () => {
    const { engine, lease } = await openEngine({ kvCells: 512 });
    const [first, second] = [await lease(), await lease()];
    const done: string[] = [];
    const run = async (name: string, sequence: Sequence) => {
      await engine.prefill(sequence, someTokens(400, sequence.id + 1));
      done.push(name);
      engine.sessions.release(sequence);
    };
    await Promise.all([run('first', first), run('second', second)]);
    expect(done).toEqual(['first', 'second']);
    expect(engine.status()).toMatchObject({ queueLength: 0, kvCells: { used: 0 } });
  });

  it('a preempted request whose sequence held tokens fails with PREEMPTED, and its sequence is emptied', async () => {
    const { engine, lease } = await openEngine({ kvCells: 512 });
    const [first, second] = [await lease(), await lease()];
    await engine.prefill(second, someTokens(10, 3));
    const filling = engine.prefill(first, someTokens(400, 1));
    const other = engine.decode({ sequence: second, tokens: someTokens(300, 2) });
    other.catch(() => undefined);
    await filling;
    engine.sessions.release(first);
    await expect(other).rejects.toMatchObject({ code: 'PREEMPTED', sequences: [second.id] });
    expect(second.length).toBe(0);
    expect((await engine.context.positionRange(second.id)).last).toBe(-1);
  });

  it('a prompt that is larger than the whole KV cache fails with CONTEXT_FULL', async () => {
    const { engine, lease } = await openEngine({ kvCells: 256 });
    await expect(engine.prefill(await lease(), someTokens(300, 1))).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
  });

  it.each([
    ['in the unified layout', 'unified'],
    ['in the split layout', 'split'],
  ] as const)(
    'a prompt that can never fit fails with CONTEXT_FULL, without an effect on other sequences, %s',
    async (_, kvLayout) => {
      const { engine, lease } = await openEngine({ kvCells: 1024, maxSequences: 2, kvLayout });
      const [first, second] = [await lease(), await lease()];
      const expected = await generate(engine, someTokens(20, 2), 12, second);
      await second.clear();
      const tooLarge = engine.prefill(first, someTokens(1100, 1));
      const beside = generate(engine, someTokens(20, 2), 12, second);
      await expect(tooLarge).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
      expect(await beside).toEqual(expected);
    },
  );
});
