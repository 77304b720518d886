// Who waits for KV cells, and when they try again.
import type { HeadstartError } from '../errors.js';

export interface CellWaiter {
  /** Who began earlier has a smaller one, and tries first. */
  age: number;
  /** Cells that it would take; 0 where that is not known, and it tries each time. */
  needed: number;
  /** It waits outside of the scheduler's queue: those in it that began later give way to it. @default false */
  claims?: boolean;
  retry(): void;
  fail(error: HeadstartError): void;
}

/** Those that the KV cache has no room for. They wait, in the order of their age, until a neighbour frees cells. */
export class CellWaitQueue {
  readonly #freeCells: () => number;
  /** Oldest first. */
  readonly #waiting: CellWaiter[] = [];
  /** How often cells came free: who was refused while that happened tries again at once. */
  releases = 0;

  constructor(freeCells: () => number) {
    this.#freeCells = freeCells;
  }

  get length(): number {
    return this.#waiting.length;
  }

  /** The age of the oldest that claims cells; undefined where nobody does. */
  get claim(): number | undefined {
    return this.#waiting.find(({ claims }) => claims)?.age;
  }

  wait(waiter: CellWaiter): void {
    const after = this.#waiting.findIndex((other) => other.age > waiter.age);
    this.#waiting.splice(after < 0 ? this.#waiting.length : after, 0, waiter);
  }

  leave(waiter: CellWaiter): void {
    const index = this.#waiting.indexOf(waiter);
    if (index >= 0) {
      this.#waiting.splice(index, 1);
    }
  }

  /** Cells came free, or can now be had: the oldest tries again, and who else they may be enough for. */
  onReleased(): void {
    this.releases++;
    this.#wake(this.#waiting);
  }

  /** Who began at `age` gave its cells to those before it: who came after them waits on, or they would never get far. */
  onPreempted(age: number): void {
    this.releases++;
    this.#wake(this.#waiting.filter((waiter) => waiter.age < age));
  }

  #wake(waiters: readonly CellWaiter[]): void {
    let free = this.#freeCells();
    const waiting = [...waiters];
    for (const waiter of waiting) {
      // A template that is being filled needs 0: who is asked to begin again may be waiting for it.
      if (waiter === waiting[0] || waiter.needed === 0 || waiter.needed <= free) {
        free -= waiter.needed;
        this.leave(waiter);
        waiter.retry();
      }
    }
  }

  /** Fails all who wait. */
  close(error: () => HeadstartError): void {
    for (const waiter of this.#waiting.splice(0)) {
      waiter.fail(error());
    }
  }
}
