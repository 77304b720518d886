import { eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import type { ConversationSequence } from './conversation-sequence.js';
import type { TurnLock } from './turn-lock.js';

/**
 * Lets a session run one activity at a time (a turn, fork, save or compaction), and aborts it when the session is
 * closed.
 */
export class SessionActivity {
  readonly #sequence: ConversationSequence;
  readonly #lock: TurnLock;
  readonly #closing = new AbortController();
  #isActive = false;
  /** The newest activity. */
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
   * Begins an activity; call {@link end} after it.
   *
   * @param what completes "an idle session to ..."
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

  /** Ends the activity: the lock is released and the sequence is idle. */
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
   * Runs an activity other than a turn. It holds the lock until `work` has settled.
   *
   * @param what completes "an idle session to ..."
   * @param work is called with a signal that aborts with `signal`, or when the session is closed
   * @throws HeadstartError `CLOSED`, `SESSION_BUSY`, `ABORTED`, and whatever `work` throws.
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

  /** Resolves when the current activity has ended. After {@link abort} no further activity begins. */
  async settled(): Promise<void> {
    await this.#newest?.catch(() => undefined);
  }
}
