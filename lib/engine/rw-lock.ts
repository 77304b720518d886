import { orAborted, throwIfAborted } from '../abort.js';

/**
 * Lets any number work at the same time, or one alone: turns and starts pass together; who changes what all of them compute
 * with waits for them to end, and holds up those that come behind.
 */
export class RwLock {
  #inside = 0;
  /** Resolves when the last who asked to be alone is done. */
  #alone: Promise<void> = Promise.resolve();
  #closed = 0;
  #changes = 0;
  #emptied: (() => void) | undefined;

  /** How often somebody was alone. */
  get writes(): number {
    return this.#changes;
  }

  /**
   * @returns call it when done; calling it again does nothing
   * @throws HeadstartError `ABORTED` while waiting.
   */
  async read(signal?: AbortSignal): Promise<() => void> {
    while (this.#closed > 0) {
      await orAborted(this.#alone, signal);
    }
    this.#inside++;
    let left = false;
    return () => {
      if (!left) {
        left = true;
        this.#inside--;
        this.#emptied?.();
      }
    };
  }

  /**
   * Runs `work` while nobody is inside.
   *
   * @throws HeadstartError `ABORTED` while waiting, and what `work` throws.
   */
  async write<Result>(work: () => Promise<Result>, signal?: AbortSignal): Promise<Result> {
    const before = this.#alone;
    let done: () => void = () => undefined;
    this.#alone = new Promise((resolve) => {
      done = resolve;
    });
    this.#closed++;
    try {
      await orAborted(before, signal);
      while (this.#inside > 0) {
        const emptied = new Promise<void>((resolve) => {
          this.#emptied = resolve;
        });
        await orAborted(emptied, signal);
      }
      throwIfAborted(signal);
      this.#changes++;
      return await work();
    } finally {
      this.#closed--;
      before.then(done); // an aborted wait must not let those behind pass those before
    }
  }
}
