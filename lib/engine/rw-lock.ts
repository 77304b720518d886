import { orAborted, throwIfAborted } from '../abort.js';

/**
 * A reader/writer lock. Turns and starts are readers, and several readers hold the lock at the same time. `setLoras()`
 * is a writer. It waits until no reader holds the lock, and readers that arrive later wait for the writer.
 */
export class RwLock {
  #readers = 0;
  /** Resolves when the newest writer has finished. */
  #lastWrite: Promise<void> = Promise.resolve();
  /** Writers that wait or run. */
  #writers = 0;
  #writes = 0;
  #onNoReaders: (() => void) | undefined;

  /** The number of writers that have acquired the lock so far. */
  get writes(): number {
    return this.#writes;
  }

  /**
   * Acquires the lock as a reader.
   *
   * @returns a function that releases the lock; further calls do nothing
   * @throws HeadstartError `ABORTED` while waiting.
   */
  async read(signal?: AbortSignal): Promise<() => void> {
    while (this.#writers > 0) {
      await orAborted(this.#lastWrite, signal);
    }
    this.#readers++;
    let released = false;
    return () => {
      if (!released) {
        released = true;
        this.#readers--;
        this.#onNoReaders?.();
      }
    };
  }

  /**
   * Runs `work` as the only holder of the lock.
   *
   * @throws HeadstartError `ABORTED` while waiting, and whatever `work` throws.
   */
  async write<Result>(work: () => Promise<Result>, signal?: AbortSignal): Promise<Result> {
    const previous = this.#lastWrite;
    let finish: () => void = () => undefined;
    this.#lastWrite = new Promise((resolve) => {
      finish = resolve;
    });
    this.#writers++;
    try {
      await orAborted(previous, signal);
      while (this.#readers > 0) {
        const noReaders = new Promise<void>((resolve) => {
          this.#onNoReaders = resolve;
        });
        await orAborted(noReaders, signal);
      }
      throwIfAborted(signal);
      this.#writes++;
      return await work();
    } finally {
      this.#writers--;
      previous.then(finish); // An aborted writer still waits for earlier writers before it lets later ones continue.
    }
  }
}
