import type { RwLock } from '../engine/rw-lock.js';
import type { PartQueue } from '../generate/part-queue.js';
import type { ConversationSequence } from './conversation-sequence.js';

/**
 * Tracks how one turn, completion or other activity holds the agent's reader/writer lock. The activity holds the read
 * lock while it decodes. It releases the lock while it waits for tools, for the program's check of a reply, or for the
 * reader of its stream, so that `setLoras()` (the writer) never waits for user code. {@link enter} acquires the lock
 * again, and drops the KV state if the adapters changed in between.
 */
export class TurnLock {
  readonly #lock: RwLock;
  readonly #sequence: ConversationSequence;
  #unlock: (() => void) | undefined;
  /** How many writes the lock had seen when the turn was paused. */
  #writesAtPause: number | undefined;

  constructor(lock: RwLock, sequence: ConversationSequence) {
    this.#lock = lock;
    this.#sequence = sequence;
  }

  /** Whether the turn was paused and has not entered again. */
  get isPaused(): boolean {
    return this.#writesAtPause !== undefined;
  }

  /**
   * Acquires the lock and makes the sequence busy. During the wait the sequence is not busy, so that the writer can
   * remove KV states of earlier adapters.
   *
   * @throws HeadstartError `ABORTED` while waiting.
   */
  async enter(signal: AbortSignal): Promise<void> {
    this.#unlock = await this.#lock.read(signal);
    this.#dropStale();
    this.#sequence.setBusy(true);
  }

  /** Releases the lock until {@link enter}. Other sessions may preempt the sequence, and adapters may change. */
  pause(): void {
    this.#unlock?.();
    this.#writesAtPause = this.#lock.writes;
    this.#sequence.makePreemptible();
  }

  /**
   * Waits for `work` while paused, then enters again. If `work` fails, the turn stays paused.
   *
   * @throws HeadstartError `ABORTED` while entering, and the errors of `work`.
   */
  async paused<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    this.pause();
    const result = await work();
    await this.enter(signal);
    return result;
  }

  /**
   * Pauses while the queue of a stream is full, until its reader has taken half of the parts.
   *
   * @returns undefined if the queue is not full: a generated token then needs no `await`
   * @throws HeadstartError `ABORTED` while waiting.
   */
  whileFull(
    queue: Pick<PartQueue<unknown>, 'isFull' | 'untilHalfEmpty'>,
    signal: AbortSignal,
  ): Promise<void> | undefined {
    return queue.isFull ? this.paused(() => queue.untilHalfEmpty(signal), signal) : undefined;
  }

  leave(): void {
    this.#unlock?.();
    this.#dropStale();
  }

  /**
   * Releases a KV state that other adapters computed. The writer could not do it, because the sequence was not idle.
   */
  #dropStale(): void {
    if (this.#writesAtPause !== undefined && this.#writesAtPause !== this.#lock.writes) {
      this.#sequence.release();
    }
    this.#writesAtPause = undefined;
  }
}
