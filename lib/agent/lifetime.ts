import { eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';

/** The time from the creation of an agent until its close. */
export class Lifetime {
  readonly #begin = performance.now();
  /** Fires when the agent is closed. */
  readonly #closed = new AbortController();
  #closing: Promise<void> | undefined;

  /** Aborts when the agent is closed. */
  get signal(): AbortSignal {
    return this.#closed.signal;
  }

  /** Whether `close` was called. */
  get isClosing(): boolean {
    return this.#closing !== undefined;
  }

  /** Milliseconds since the agent was created. */
  get ms(): number {
    return performance.now() - this.#begin;
  }

  /** @throws HeadstartError `CLOSED` */
  requireOpen(): void {
    if (this.isClosing) {
      throw new HeadstartError('CLOSED', 'Expected an open agent, but it was closed');
    }
  }

  /**
   * Runs a call that ends with `CLOSED` if the agent is closed.
   *
   * @param work receives a signal that aborts when `signal` aborts or the agent is closed
   */
  async run<T>(call: string, signal: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await work(eitherSignal(this.#closed.signal, signal));
    } catch (error) {
      throw this.#closed.signal.aborted
        ? new HeadstartError('CLOSED', `The agent was closed during ${call}()`, { cause: error })
        : error;
    }
  }

  /** Aborts the signal, and then calls `closeParts`. Later calls only wait for the first call. */
  close(closeParts: () => Promise<void>): Promise<void> {
    this.#closing ??= this.#close(closeParts);
    return this.#closing;
  }

  async #close(closeParts: () => Promise<void>): Promise<void> {
    this.#closed.abort();
    await closeParts();
  }
}
