import type { HeadstartError } from '../errors.js';

/** Work that needs KV cells and waits until enough of them are free. */
export interface CellWaiter {
  /** Order of arrival. Older work has a smaller number and tries first. */
  age: number;
  /** Cells that the work needs. 0 means unknown: the waiter then tries after every release. */
  needed: number;
  /**
   * Whether the waiter is outside the scheduler's queue. Younger requests in that queue are then preempted for it.
   * @default false
   */
  claims?: boolean;
  retry(): void;
  fail(error: HeadstartError): void;
}

/** Work that does not fit into the KV cache. The work waits in order of age until other sequences release cells. */
export class CellWaitQueue {
  readonly #freeCells: () => number;
  /** Oldest first. */
  readonly #waiting: CellWaiter[] = [];
  /** How often cells were released. If it changed during a caller's failed attempt, the caller tries again at once. */
  releases = 0;

  constructor(freeCells: () => number) {
    this.#freeCells = freeCells;
  }

  get length(): number {
    return this.#waiting.length;
  }

  /** The age of the oldest waiter that claims cells; undefined if there is none. */
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

  /**
   * Call it when cells were released, or when an idle sequence can now be evicted. Wakes the oldest waiter and all
   * other waiters that may fit.
   */
  onReleased(): void {
    this.releases++;
    this.#wake(this.#waiting);
  }

  /**
   * Call it when the request with this `age` was preempted. Wakes only older waiters, because younger ones must not
   * overtake that request.
   */
  onPreempted(age: number): void {
    this.releases++;
    this.#wake(this.#waiting.filter((waiter) => waiter.age < age));
  }

  #wake(waiters: readonly CellWaiter[]): void {
    let free = this.#freeCells();
    const waiting = [...waiters];
    for (const waiter of waiting) {
      // `needed` is 0 if it is unknown, for example for a template. Such a waiter always tries: another waiter may
      // depend on it.
      if (waiter === waiting[0] || waiter.needed === 0 || waiter.needed <= free) {
        free -= waiter.needed;
        this.leave(waiter);
        waiter.retry();
      }
    }
  }

  /** Rejects all waiters. */
  close(error: () => HeadstartError): void {
    for (const waiter of this.#waiting.splice(0)) {
      waiter.fail(error());
    }
  }
}
