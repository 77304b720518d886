import fc from 'fast-check';
import { type EngineContext, Sequence, type SequenceOptions, SequencePool } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

/** Makes a pool with the ids from 0 to `size` - 1. The tests decode nothing: the context only records emptied ids. */
function makePool(size: number) {
  const emptied: number[] = [];
  const context = {
    removeSequence: async (id: number) => emptied.push(id) > 0,
    onFreed: () => undefined,
    keepsPrefillLog: false,
  } as unknown as EngineContext;
  const clock = { ms: 0 };
  const pool = new SequencePool(
    Array.from({ length: size }, (_, id) => id),
    { now: () => clock.ms },
  );
  const create = (busy = true, options: SequenceOptions = {}) =>
    Object.assign(new Sequence(context, options), { busy });
  const lease = async (sequence = create(), signal?: AbortSignal) => {
    await pool.lease(sequence, signal);
    return sequence;
  };
  return { pool, clock, emptied, create, lease };
}

describe('SequencePool', () => {
  it('leases each id to one sequence', async () => {
    const { pool, lease } = makePool(3);
    const sequences = await Promise.all([lease(), lease(), lease()]);
    expect(sequences.map(({ id }) => id).sort()).toEqual([0, 1, 2]);
    expect([pool.size, pool.leased.size]).toEqual([3, 3]);
  });

  it('evicts the least recently used idle sequence, and empties its id before the next lease', async () => {
    const { pool, emptied, create, lease } = makePool(2);
    const old = await lease(create(false));
    const recent = await lease(create(false));
    const recentId = recent.id;
    pool.touch(old); // now `old` is the more recently used one
    expect((await lease()).id).toBe(recentId);
    expect([recent.isLeased, old.isLeased]).toEqual([false, true]);
    expect(emptied).toEqual([recentId]);
  });

  it('evicts a pinned sequence only after all idle sequences that are not pinned', async () => {
    const { create, lease } = makePool(2);
    const pinned = await lease(Object.assign(create(false), { pinned: true }));
    const other = await lease(create(false));
    await lease();
    expect([pinned.isLeased, other.isLeased]).toEqual([true, false]);
    await lease();
    expect(pinned.isLeased).toBe(false);
  });

  it('evicts one-off requests first, and then idle conversations, and then turns that wait', async () => {
    const { create, lease } = makePool(4);
    const fill = (kind: 'request' | 'conversation', inProgress: boolean) =>
      lease(Object.assign(create(false, { kind }), { inProgress }));
    const turn = await fill('conversation', true);
    const idle = await fill('conversation', false);
    const waiting = await fill('request', true);
    const ended = await fill('request', false);
    for (const next of [ended, waiting, idle, turn]) {
      expect(next.isLeased).toBe(true);
      await lease();
      expect(next.isLeased).toBe(false);
    }
  });

  it('lets requests with tools overtake waiting requests of their group without tools for two seconds', async () => {
    const served = async (ms: number, group = '') => {
      const { pool, clock, create, lease } = makePool(1);
      const running = await lease();
      const order: string[] = [];
      for (const name of ['title', 'other title', 'main']) {
        const hasTools = name === 'main';
        const sequence = Object.assign(create(true, { arrival: { hasTools, at: 0 } }), {
          group: hasTools ? group : '',
        });
        lease(sequence).then(() => {
          order.push(name);
          pool.release(sequence);
        });
      }
      clock.ms = ms;
      pool.release(running);
      await new Promise(setImmediate);
      return order;
    };
    expect(await served(1999)).toEqual(['main', 'title', 'other title']);
    expect(await served(2000)).toEqual(['title', 'other title', 'main']);
    expect(await served(1999, 'another tenant')).toEqual(['title', 'other title', 'main']);
  });

  it('counts the two seconds from the arrival of a request, even if the request loses its sequence', async () => {
    const { pool, clock, create, lease } = makePool(1);
    const title = create(true, { arrival: { hasTools: false, at: clock.ms } });
    await lease(title);
    clock.ms = 1500;
    pool.setIdle(title); // for example, while the request waits for another prefill
    const running = await lease();
    const again = lease(title);
    const main = lease(create(true, { arrival: { hasTools: true, at: clock.ms } }));
    clock.ms = 2000;
    pool.release(running);
    expect(await Promise.race([again, main])).toBe(title);
  });

  it('lets no request overtake a request that has begun', async () => {
    const { pool, create, lease } = makePool(1);
    const title = create(true, { arrival: { hasTools: false, at: 0 } });
    await lease(title);
    title.append(Int32Array.of(1, 2), 0, 2);
    pool.setIdle(title);
    const running = await lease();
    const again = lease(title);
    const main = lease(create(true, { arrival: { hasTools: true, at: 0 } }));
    pool.release(running);
    expect(await Promise.race([again, main])).toBe(title);
  });

  it('serves waiting callers in the order of their calls when all sequences are busy', async () => {
    const { pool, lease } = makePool(1);
    const first = await lease();
    const order: string[] = [];
    const second = lease().then((sequence) => {
      order.push('second');
      pool.release(sequence);
    });
    const third = lease().then(() => order.push('third'));
    pool.release(first);
    await Promise.all([second, third]);
    expect(order).toEqual(['second', 'third']);
  });

  it('evicts a busy sequence as soon as it is idle, and leases its id to a waiting caller', async () => {
    const { pool, lease } = makePool(1);
    const first = await lease();
    const waiting = lease();
    pool.setIdle(first);
    expect((await waiting).id).toBe(0);
    expect(first.isLeased).toBe(false);
  });

  it('rejects a waiting caller whose signal aborts, with the reason as `cause`, then serves the next', async () => {
    const { pool, lease } = makePool(1);
    const sequence = await lease();
    const controller = new AbortController();
    const aborted = lease(undefined, controller.signal);
    const waiting = lease();
    const reason = new Error('changed my mind');
    controller.abort(reason);
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED', cause: reason });
    pool.release(sequence);
    expect((await waiting).id).toBe(0);
  });

  it('rejects a lease at once if its signal is already aborted', async () => {
    const { pool, lease } = makePool(1);
    await expect(lease(undefined, AbortSignal.abort())).rejects.toMatchObject({ code: 'ABORTED' });
    expect(pool.leased.size).toBe(0);
  });

  it('ignores a signal that aborts after the lease', async () => {
    const { pool, lease } = makePool(1);
    const sequence = await lease();
    const controller = new AbortController();
    const waiting = lease(undefined, controller.signal);
    const next = lease();
    pool.release(sequence);
    const leased = await waiting;
    controller.abort();
    pool.release(leased);
    expect((await next).id).toBe(0);
  });

  it('rejects waiting and later callers with CLOSED once the pool is closed', async () => {
    const { pool, lease } = makePool(1);
    await lease();
    const waiting = [lease(), lease()];
    pool.close();
    for (const wait of [...waiting, lease()]) {
      await expect(wait).rejects.toMatchObject({ code: 'CLOSED' });
    }
  });

  it('ignores the release of a sequence that is not leased', async () => {
    const { pool, create, lease } = makePool(2);
    const sequence = await lease();
    pool.release(create());
    pool.release(sequence);
    pool.release(sequence);
    const ids = (await Promise.all([lease(), lease()])).map(({ id }) => id);
    expect(ids.sort()).toEqual([0, 1]);
  });

  it('never leases one id to two sequences, in any order of operations', async () => {
    const step = fc.record({
      action: fc.constantFrom('lease', 'release', 'busy', 'idle', 'evict', 'touch', 'abort'),
      index: fc.nat({ max: 5 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const { pool, create } = makePool(2);
        const sequences = Array.from({ length: 6 }, () => create());
        const waiting = new Map<Sequence, AbortController>();
        for (const { action, index } of steps) {
          const sequence = sequences[index] as Sequence;
          if (action === 'lease' && !sequence.isLeased && !waiting.has(sequence)) {
            const controller = new AbortController();
            waiting.set(sequence, controller);
            sequence.busy = true;
            pool
              .lease(sequence, controller.signal)
              .catch(() => undefined)
              .finally(() => waiting.delete(sequence));
          } else if (action === 'release') {
            pool.release(sequence);
          } else if (action === 'busy') {
            sequence.busy = true;
          } else if (action === 'idle' && !waiting.has(sequence)) {
            pool.setIdle(sequence);
          } else if (action === 'evict') {
            pool.evictIdle();
          } else if (action === 'touch') {
            pool.touch(sequence);
          } else if (action === 'abort') {
            waiting.get(sequence)?.abort();
          }
          await new Promise(setImmediate); // lets all promises settle that can settle now
          const leased = sequences.filter(({ isLeased }) => isLeased);
          expect(new Set(leased.map(({ id }) => id)).size).toBe(leased.length);
          expect([...pool.leased].every((each) => leased.includes(each))).toBe(true);
          expect([pool.leased.size, pool.size]).toEqual([leased.length, 2]);
          expect(waiting.size === 0 || leased.length === 2).toBe(true); // no caller waits while an id is free
        }
      }),
    );
  });
});
