import { orAborted } from '../abort.js';

/** Work under way by key: who comes meanwhile waits for it, and each who waits can be aborted alone. */
export class InFlight {
  readonly #running = new Map<string, Promise<void>>();

  /** Runs `first` if nobody works on this key now; else waits for who does, however that ends, and runs `then`. */
  async once<Result>(
    key: string,
    signal: AbortSignal,
    first: () => Promise<Result>,
    then: () => Promise<Result>,
  ): Promise<Result> {
    const other = this.#running.get(key);
    if (other !== undefined) {
      await orAborted(other, signal); // it never rejects
      return then();
    }
    const mine = first();
    const done = mine.then(
      () => undefined,
      () => undefined,
    );
    this.#running.set(key, done);
    try {
      return await mine;
    } finally {
      this.#running.delete(key);
    }
  }

  /** Resolves when all that runs now has ended. */
  async settled(): Promise<void> {
    await Promise.all(this.#running.values());
  }
}
