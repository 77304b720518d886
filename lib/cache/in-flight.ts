import { orAborted } from '../abort.js';

/**
 * Runs work once for several callers with the same key. The other callers wait, and each of them can be aborted alone.
 */
export class InFlight {
  readonly #running = new Map<string, Promise<void>>();

  /**
   * Runs `first`. If work with this key is already in progress, waits until that work succeeds or fails, and then runs
   * `then` instead.
   */
  async once<Result>(
    key: string,
    signal: AbortSignal,
    first: () => Promise<Result>,
    then: () => Promise<Result>,
  ): Promise<Result> {
    const running = this.#running.get(key);
    if (running !== undefined) {
      await orAborted(running, signal); // `running` never rejects
      return then();
    }
    const result = first();
    const done = result.then(
      () => undefined,
      () => undefined,
    );
    this.#running.set(key, done);
    try {
      return await result;
    } finally {
      this.#running.delete(key);
    }
  }

  /** Resolves when all work that is in progress at the time of the call has ended. */
  async settled(): Promise<void> {
    await Promise.all(this.#running.values());
  }
}
