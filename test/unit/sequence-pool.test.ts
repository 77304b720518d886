import { once } from 'node:events';
import fc from 'fast-check';
import type { SequenceHolder } from 'llama-headstart';
import { SequencePool } from 'llama-headstart/internal';
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

describe('a pool of sequences', () => {
  it('hands out each sequence once', async () => {
    const { pool, lease } = makePool(3);
    const ids = await Promise.all([lease(new Holder()), lease(new Holder()), lease(new Holder())]);
    expect(ids.sort()).toEqual([0, 1, 2]);
    expect([pool.size, pool.heldCount]).toEqual([3, 3]);
  });

  it('takes the sequence of the least recently used idle holder, and empties it before it hands it on', async () => {
    const { pool, emptied, lease } = makePool(2);
    const [old, recent] = [new Holder(), new Holder()];
    const oldSequence = await lease(old);
    const recentSequence = await lease(recent);
    pool.touch(oldSequence); // now it is the more recent one
    const newcomer = new Holder();
    expect(await lease(newcomer)).toBe(recentSequence);
    expect(recent.sequence).toBeUndefined();
    expect(old.sequence).toBe(oldSequence);
    expect(emptied).toEqual([recentSequence]);
  });

  it('takes a sequence from a holder that throws, too, and warns', async () => {
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

  it('lets callers wait in order while all holders are busy', async () => {
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

  it('gives a sequence to who waits as soon as its holder is idle', async () => {
    const { pool, lease } = makePool(1);
    const holder = new Holder(true);
    const sequence = await lease(holder);
    const waiting = lease(new Holder(true));
    pool.idle(); // of another holder: this one is still busy
    holder.busy = false;
    pool.idle();
    expect(await waiting).toBe(sequence);
    expect(holder.sequence).toBeUndefined();
  });

  it('lets a wait be aborted, with the reason, and keeps the place of the others', async () => {
    const { pool, lease } = makePool(1);
    const sequence = await lease(new Holder(true));
    const controller = new AbortController();
    const aborted = lease(new Holder(true), controller.signal);
    const patient = lease(new Holder(true));
    const why = new Error('changed my mind');
    controller.abort(why);
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED', cause: why });
    pool.release(sequence);
    expect(await patient).toBe(sequence);
  });

  it('refuses an aborted signal at once', async () => {
    const { pool, lease } = makePool(1);
    await expect(lease(new Holder(), AbortSignal.abort())).rejects.toMatchObject({ code: 'ABORTED' });
    expect(pool.heldCount).toBe(0);
  });

  it('is not disturbed by a signal that fires after the wait', async () => {
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

  it('sends who waits away when it closes, and takes nobody after', async () => {
    const { pool, lease } = makePool(1);
    await lease(new Holder(true));
    const waiting = [lease(new Holder()), lease(new Holder())];
    pool.close();
    for (const wait of [...waiting, lease(new Holder())]) {
      await expect(wait).rejects.toMatchObject({ code: 'CLOSED' });
    }
  });

  it('ignores a release of what it did not hand out', async () => {
    const { pool, lease } = makePool(2);
    const sequence = await lease(new Holder());
    pool.release(1 - sequence);
    pool.release(sequence);
    pool.release(sequence);
    const ids = await Promise.all([lease(new Holder(true)), lease(new Holder(true))]);
    expect(ids.sort()).toEqual([0, 1]);
  });

  it('never has two holders of one sequence, whatever they do', async () => {
    const step = fc.record({
      what: fc.constantFrom('lease', 'release', 'busy', 'idle', 'evict', 'touch', 'abort'),
      who: fc.nat({ max: 5 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const { pool, lease } = makePool(2);
        const holders = Array.from({ length: 6 }, () => new Holder(true));
        const waiting = new Map<Holder, AbortController>();
        for (const { what, who } of steps) {
          const holder = holders[who] as Holder;
          const { sequence } = holder;
          if (what === 'lease' && sequence === undefined && !waiting.has(holder)) {
            const controller = new AbortController();
            waiting.set(holder, controller);
            holder.busy = true;
            lease(holder, controller.signal)
              .catch(() => undefined)
              .finally(() => waiting.delete(holder));
          } else if (what === 'release' && sequence !== undefined) {
            holder.onEvicted();
            pool.release(sequence);
          } else if (what === 'busy' || what === 'idle') {
            holder.busy = what === 'busy' || waiting.has(holder);
            pool.idle();
          } else if (what === 'evict') {
            pool.evictIdle();
          } else if (what === 'touch' && sequence !== undefined) {
            pool.touch(sequence);
          } else if (what === 'abort') {
            waiting.get(holder)?.abort();
          }
          await new Promise(setImmediate); // every promise that can settle has settled
          const held = holders.flatMap((each) => (each.sequence === undefined ? [] : [each.sequence]));
          expect(new Set(held).size).toBe(held.length);
          expect(pool.heldCount).toBe(held.length);
          expect(pool.size).toBe(2);
          expect(waiting.size === 0 || held.length === 2).toBe(true); // nobody waits beside a free sequence
        }
      }),
    );
  });
});
