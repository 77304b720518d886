import { eitherSignal } from '../abort.js';
import type { ConversationSequence } from '../chat/conversation-sequence.js';
import type { TurnLock } from '../chat/turn-lock.js';
import { HeadstartError } from '../errors.js';

/**
 * Makes sure that a session runs only one activity at a time (a turn, fork, save or compaction). Aborts the activity
 * when the session is closed.
 */
export class SessionActivity {
  readonly #sequence: ConversationSequence;
  readonly #lock: TurnLock;
  readonly #closing = new AbortController();
  #isActive = false;
  /** The promise of the newest activity. */
  #newest: Promise<unknown> | undefined;

  constructor(sequence: ConversationSequence, lock: TurnLock) {
    this.#sequence = sequence;
    this.#lock = lock;
  }

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
   * Begins an activity. Call {@link end} after the activity.
   *
   * @param what completes the error message "Expected an idle session to ..."
   * @throws HeadstartError `CLOSED`, `SESSION_BUSY`.
   */
  begin(what: string): void {
    this.requireOpen();
    if (this.#isActive) {
      throw new HeadstartError(
        'SESSION_BUSY',
        `Expected an idle session to ${what}, but it is busy: wait until its turn, fork, save or compaction has ended`,
      );
    }
    this.#isActive = true;
  }

  /** Ends the activity: releases the lock and makes the sequence idle. */
  end(): void {
    this.#lock.leave();
    this.#isActive = false;
    this.#sequence.setBusy(false);
  }

  /** Registers the promise of an activity, so that {@link settled} waits for it. */
  track<T>(activity: Promise<T>): Promise<T> {
    this.#newest = activity;
    return activity;
  }

  /**
   * Runs an activity other than a turn. Holds the lock until `work` has settled.
   *
   * @param what completes the error message "Expected an idle session to ..."
   * @param work receives a signal that aborts when `signal` aborts or the session is closed
   * @throws HeadstartError `CLOSED`, `SESSION_BUSY`, `ABORTED`, and the errors of `work`.
   */
  async run<T>(what: string, signal: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.begin(what);
    const either = eitherSignal(this.closing, signal);
    const lockAndWork = async () => {
      await this.#lock.enter(either);
      return work(either);
    };
    try {
      return await this.track(lockAndWork());
    } catch (error) {
      const isClosed = this.closing.aborted;
      throw isClosed
        ? new HeadstartError('CLOSED', 'The session was closed during this call', { cause: error })
        : error;
    } finally {
      this.end();
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
