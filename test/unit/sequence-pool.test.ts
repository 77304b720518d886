import { once } from 'node:events';
import fc from 'fast-check';
import { type SequenceHolder, SequencePool } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

class Holder implements SequenceHolder {
  busy: boolean;
  sequence: number | undefined;

  constructor(busy = false) {
    this.busy = busy;
  }

  onEvicted(): void {
    this.sequence = undefined;
  }
}

/** A pool, and the sequences it has emptied so far. */
function makePool(size: number) {
  const emptied: number[] = [];
  const ids = Array.from({ length: size }, (_, id) => id);
  const pool = new SequencePool(ids, async (sequence) => emptied.push(sequence));
  const lease = async (holder: Holder, signal?: AbortSignal) => {
    holder.sequence = await pool.lease(holder, signal);
    return holder.sequence;
  };
  return { pool, emptied, lease };
}

describe('SequencePool', () => {
  it('leases each sequence to one holder', async () => {
    const { pool, lease } = makePool(3);
    const ids = await Promise.all([lease(new Holder()), lease(new Holder()), lease(new Holder())]);
    expect(ids.sort()).toEqual([0, 1, 2]);
    expect([pool.size, pool.heldCount]).toEqual([3, 3]);
  });

  it('evicts the least recently used idle holder, and empties its sequence before the next lease', async () => {
    const { pool, emptied, lease } = makePool(2);
    const [old, recent] = [new Holder(), new Holder()];
    const oldSequence = await lease(old);
    const recentSequence = await lease(recent);
    pool.touch(oldSequence); // now `old` is the more recently used holder
    const next = new Holder();
    expect(await lease(next)).toBe(recentSequence);
    expect(recent.sequence).toBeUndefined();
    expect(old.sequence).toBe(oldSequence);
    expect(emptied).toEqual([recentSequence]);
  });

  it('evicts a holder whose `onEvicted` throws, and emits a warning', async () => {
    const { pool, lease } = makePool(1);
    const broken = Object.assign(new Holder(), {
      onEvicted: () => {
        throw new Error('broken');
      },
    });
    await lease(broken);
    const warned = once(process, 'warning');
    expect(await lease(new Holder())).toBe(0);
    expect((await warned)[0]).toMatchObject({ code: 'HOLDER_THREW', message: expect.stringMatching(/broken/) });
    expect([pool.size, pool.heldCount]).toEqual([1, 1]);
  });

  it('serves waiting callers in the order of their calls when all holders are busy', async () => {
    const { pool, lease } = makePool(1);
    const first = new Holder(true);
    const sequence = await lease(first);
    const order: string[] = [];
    const [second, third] = [new Holder(true), new Holder(true)];
    const waiting = [lease(second).then(() => order.push('second')), lease(third).then(() => order.push('third'))];
    pool.release(sequence);
    await waiting[0];
    pool.release(sequence);
    await waiting[1];
    expect(order).toEqual(['second', 'third']);
  });

  it('evicts a busy holder as soon as it is idle, and leases its sequence to a waiting caller', async () => {
    const { pool, lease } = makePool(1);
    const holder = new Holder(true);
    const sequence = await lease(holder);
    const waiting = lease(new Holder(true));
    pool.idle(); // the only holder is still busy
    holder.busy = false;
    pool.idle();
    expect(await waiting).toBe(sequence);
    expect(holder.sequence).toBeUndefined();
  });

  it('rejects a waiting caller whose signal aborts, with the reason as `cause`, then serves the next', async () => {
    const { pool, lease } = makePool(1);
    const sequence = await lease(new Holder(true));
    const controller = new AbortController();
    const aborted = lease(new Holder(true), controller.signal);
    const waiting = lease(new Holder(true));
    const reason = new Error('changed my mind');
    controller.abort(reason);
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED', cause: reason });
    pool.release(sequence);
    expect(await waiting).toBe(sequence);
  });

  it('rejects a lease at once if its signal is already aborted', async () => {
    const { pool, lease } = makePool(1);
    await expect(lease(new Holder(), AbortSignal.abort())).rejects.toMatchObject({ code: 'ABORTED' });
    expect(pool.heldCount).toBe(0);
  });

  it('ignores a signal that aborts after the lease', async () => {
    const { pool, lease } = makePool(1);
    const sequence = await lease(new Holder(true));
    const controller = new AbortController();
    const waiting = lease(new Holder(true), controller.signal);
    const next = lease(new Holder(true));
    pool.release(sequence);
    await waiting;
    controller.abort();
    pool.release(sequence);
    expect(await next).toBe(sequence);
  });

  it('rejects waiting and later callers with CLOSED once the pool is closed', async () => {
    const { pool, lease } = makePool(1);
    await lease(new Holder(true));
    const waiting = [lease(new Holder()), lease(new Holder())];
    pool.close();
    for (const wait of [...waiting, lease(new Holder())]) {
      await expect(wait).rejects.toMatchObject({ code: 'CLOSED' });
    }
  });

  it('ignores the release of a sequence that is not leased', async () => {
    const { pool, lease } = makePool(2);
    const sequence = await lease(new Holder());
    pool.release(1 - sequence);
    pool.release(sequence);
    pool.release(sequence);
    const ids = await Promise.all([lease(new Holder(true)), lease(new Holder(true))]);
    expect(ids.sort()).toEqual([0, 1]);
  });

  it('never leases one sequence to two holders, in any order of operations', async () => {
    const step = fc.record({
      action: fc.constantFrom('lease', 'release', 'busy', 'idle', 'evict', 'touch', 'abort'),
      index: fc.nat({ max: 5 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const { pool, lease } = makePool(2);
        const holders = Array.from({ length: 6 }, () => new Holder(true));
        const waiting = new Map<Holder, AbortController>();
        for (const { action, index } of steps) {
          const holder = holders[index] as Holder;
          const { sequence } = holder;
          if (action === 'lease' && sequence === undefined && !waiting.has(holder)) {
            const controller = new AbortController();
            waiting.set(holder, controller);
            holder.busy = true;
            lease(holder, controller.signal)
              .catch(() => undefined)
              .finally(() => waiting.delete(holder));
          } else if (action === 'release' && sequence !== undefined) {
            holder.onEvicted();
            pool.release(sequence);
          } else if (action === 'busy' || action === 'idle') {
            holder.busy = action === 'busy' || waiting.has(holder);
            pool.idle();
          } else if (action === 'evict') {
            pool.evictIdle();
          } else if (action === 'touch' && sequence !== undefined) {
            pool.touch(sequence);
          } else if (action === 'abort') {
            waiting.get(holder)?.abort();
          }
          await new Promise(setImmediate); // lets all promises settle that can settle now
          const held = holders.flatMap((holder) => (holder.sequence === undefined ? [] : [holder.sequence]));
          expect(new Set(held).size).toBe(held.length);
          expect(pool.heldCount).toBe(held.length);
          expect(pool.size).toBe(2);
          expect(waiting.size === 0 || held.length === 2).toBe(true); // no caller waits while a sequence is free
        }
      }),
    );
  });
});
