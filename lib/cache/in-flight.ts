import { throwIfAborted } from '../native/addon.js';

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
      await abortable(other, signal);
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

/** Waits for `promise` (which never rejects), or throws `ABORTED` as soon as the signal fires. */
async function abortable(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  throwIfAborted(signal);
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<void>((resolve) => {
    onAbort = resolve;
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    if (onAbort !== undefined) {
      signal.removeEventListener('abort', onAbort);
    }
  }
  throwIfAborted(signal);
}
