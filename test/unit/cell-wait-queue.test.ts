import { type CellWaiter, CellWaitQueue } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

describe('CellWaitQueue', () => {
  const open = (free: number) => {
    const queue = new CellWaitQueue(() => free);
    const woken: number[] = [];
    const wait = (age: number, needed: number) => {
      const waiter: CellWaiter = { age, needed, retry: () => woken.push(age), fail: () => {} };
      queue.wait(waiter);
      return waiter;
    };
    return { queue, woken, wait };
  };

  it('wakes the oldest waiting requests first, and only as many as fit into the free cells', () => {
    const { queue, woken, wait } = open(10);
    for (const age of [3, 1, 2, 4]) {
      wait(age, age === 2 ? 50 : 4);
    }
    queue.onReleased();
    expect(woken).toEqual([1, 3]);
    expect(queue.length).toBe(2);
  });

  it('wakes only requests that are older than the preempted one, and counts the release', () => {
    const { queue, woken, wait } = open(10);
    wait(1, 4);
    wait(5, 4);
    const releases = queue.releases;
    queue.onPreempted(3);
    expect(woken).toEqual([1]);
    expect(queue.releases).toBeGreaterThan(releases);
  });
});
