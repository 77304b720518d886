import { HeadstartError } from '../errors.js';

/**
 * Makes sure that a session runs only one activity at a time (a turn, fork, save or compaction). Aborts the activity
 * when the session is closed.
 */
export class SessionActivity {
  readonly #closing = new AbortController();
  #isActive = false;
  /** The promise of the newest activity. */
  #newest: Promise<unknown> | undefined;

  /** Aborts when the session is closed. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** @throws HeadstartError `CLOSED`. */
  requireOpen(): void {
    if (this.closing.aborted) {
      throw new HeadstartError('CLOSED', 'Expected an open session, but it was closed');
    }
  }

  /**
   * Runs an activity.
   *
   * @param what completes the error message "Expected an idle session for this ..."
   * @throws HeadstartError `CLOSED`, `SESSION_BUSY`, and the errors of `work`.
   */
  async run<T>(what: string, work: () => Promise<T>): Promise<T> {
    this.requireOpen();
    if (this.#isActive) {
      throw new HeadstartError(
        'SESSION_BUSY',
        `Expected an idle session for this ${what}, but it is busy: wait until its turn, fork, save or compaction has ` +
          'ended',
      );
    }
    this.#isActive = true;
    const activity = work();
    this.#newest = activity;
    try {
      return await activity;
    } finally {
      this.#isActive = false;
    }
  }

  /** Refuses later activities and aborts the current one. */
  abort(): void {
    this.#closing.abort(new HeadstartError('CLOSED', 'The session was closed'));
  }

  /** Resolves when the current activity has ended. Call {@link abort} first, so that no further activity begins. */
  async settled(): Promise<void> {
    await this.#newest?.catch(() => undefined);
  }
}
