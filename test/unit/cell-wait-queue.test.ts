import { type CellWaiter, CellWaitQueue } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

describe('those who wait for cells', () => {
  const open = (free: number) => {
    const room = new CellWaitQueue(() => free);
    const woken: number[] = [];
    const wait = (age: number, needed: number) => {
      const waiter: CellWaiter = { age, needed, retry: () => woken.push(age), fail: () => {} };
      room.wait(waiter);
      return waiter;
    };
    return { room, woken, wait };
  };

  it('try again in the order of their age, as far as the cells may be enough', () => {
    const { room, woken, wait } = open(10);
    for (const age of [3, 1, 2, 4]) {
      wait(age, age === 2 ? 50 : 4);
    }
    room.onReleased();
    expect(woken).toEqual([1, 3]);
    expect(room.length).toBe(2);
  });

  it('wait on where one that began before them got what another gave, and who was refused meanwhile tries again', () => {
    const { room, woken, wait } = open(10);
    wait(1, 4);
    wait(5, 4);
    const before = room.releases;
    room.onPreempted(3);
    expect(woken).toEqual([1]);
    expect(room.releases).toBeGreaterThan(before);
  });
});
