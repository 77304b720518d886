import type { RwLock } from '../engine/rw-lock.js';
import type { PartQueue } from '../generate/part-queue.js';
import type { ConversationSequence } from './conversation-sequence.js';

/**
 * Tracks how one turn, completion or other activity holds the agent's reader/writer lock. The activity holds the read
 * lock while it decodes. It releases the lock while it waits for tools, for the program's check of a reply, or for the
 * reader of its stream. So `setLoras()` (the writer) never waits for user code. {@link enter} acquires the lock again,
 * and drops the KV state if the adapters have changed in between.
 */
export class TurnLock {
  readonly #lock: RwLock;
  readonly #sequence: ConversationSequence;
  #unlock: (() => void) | undefined;
  /** The number of writes up to the pause of the turn: see `RwLock.writes`. Undefined if the turn is not paused. */
  #writesAtPause: number | undefined;

  constructor(lock: RwLock, sequence: ConversationSequence) {
    this.#lock = lock;
    this.#sequence = sequence;
  }

  /**
   * Runs an activity, and then ends it. After a failure, the sequence holds only tokens that it knows. In `reproducible`
   * mode, a failed activity is rolled back.
   *
   * @param end makes the sequence idle, and may release it
   * @throws HeadstartError `ABORTED` while waiting for the lock, and the errors of `work`.
   */
  async run<T>(
    signal: AbortSignal,
    work: () => Promise<T>,
    end: (sequence: ConversationSequence) => void = (sequence) => sequence.setBusy(false),
  ): Promise<T> {
    const sequence = this.#sequence;
    let rollBack: (() => Promise<void>) | undefined;
    try {
      await this.enter(signal);
      rollBack = sequence.rollbackPoint();
      const result = await work();
      rollBack = undefined;
      return result;
    } catch (error) {
      sequence.afterFailure();
      throw error;
    } finally {
      if (rollBack !== undefined && this.#writesAtPause !== undefined) {
        sequence.release(); // the activity holds no lock now, so adapters may change at any moment
      }
      await rollBack?.();
      this.#leave();
      end(sequence);
    }
  }

  /**
   * Acquires the lock, and then makes the sequence busy. During the wait the sequence is not busy, so that the writer
   * can remove KV states of earlier adapters.
   *
   * @throws HeadstartError `ABORTED` while waiting.
   */
  async enter(signal: AbortSignal): Promise<void> {
    this.#unlock = await this.#lock.read(signal);
    this.#dropStale();
    this.#sequence.setBusy(true);
  }

  /** Releases the lock until {@link enter}. In between, the engine may evict the sequence, and adapters may change. */
  #pause(): void {
    this.#unlock?.();
    this.#writesAtPause = this.#lock.writes;
    this.#sequence.makeEvictable();
  }

  /**
   * Pauses the turn, waits for `work`, and enters again. If `work` fails, the turn stays paused.
   *
   * @throws HeadstartError `ABORTED` while it waits to enter again, and the errors of `work`.
   */
  async paused<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    this.#pause();
    const result = await work();
    await this.enter(signal);
    return result;
  }

  /**
   * If the queue of a stream is full, pauses the turn until the reader has taken half of the parts.
   *
   * @returns undefined if the queue is not full, so that the caller needs no `await` for each generated token
   * @throws HeadstartError `ABORTED` while waiting.
   */
  whileFull(
    queue: Pick<PartQueue<unknown>, 'isFull' | 'untilHalfEmpty'>,
    signal: AbortSignal,
  ): Promise<void> | undefined {
    return queue.isFull ? this.paused(() => queue.untilHalfEmpty(signal), signal) : undefined;
  }

  /**
   * If the program iterates over the stream, pauses the turn until the program requests the last part. Until then the
   * program may leave the stream, even if the whole reply is already generated. Leaving discards the turn.
   *
   * @throws HeadstartError `ABORTED` while waiting.
   */
  async untilRead(queue: Pick<PartQueue<unknown>, 'isDrained' | 'untilDrained'>, signal: AbortSignal): Promise<void> {
    if (!queue.isDrained) {
      this.#pause();
      await queue.untilDrained(signal);
    }
  }

  #leave(): void {
    this.#unlock?.();
    this.#dropStale();
  }

  /**
   * Releases a KV state that was computed with earlier adapters. The writer could not release this state, because the
   * sequence was not idle.
   */
  #dropStale(): void {
    if (this.#writesAtPause !== undefined && this.#writesAtPause !== this.#lock.writes) {
      this.#sequence.release();
    }
    this.#writesAtPause = undefined;
  }
}
