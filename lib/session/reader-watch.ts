import type { ConversationSequence } from './conversation-sequence.js';
import type { TurnLock } from './turn-lock.js';

/** If a program does not ask for the next part for so long, the turn makes its sequence preemptible and releases the lock. */
const STALLED_MS = 1000;

/**
 * Watches whether a program reads its stream. A program that stopped reading may be waiting, inside its own loop, for a
 * sequence that only this turn could give up. A stream has one timer. It is set when a part is ready, and set again for the
 * rest of the time if a newer part is ready when it fires.
 */
export class ReaderWatch {
  readonly #sequence: ConversationSequence;
  readonly #lock: TurnLock;
  /** Whether this watch paused the turn. */
  #hasPaused = false;
  #timer: NodeJS.Timeout | undefined;
  /** When the newest part was ready. Undefined if the program asked for the next one. */
  #readyAt: number | undefined;

  constructor(sequence: ConversationSequence, lock: TurnLock) {
    this.#sequence = sequence;
    this.#lock = lock;
  }

  /** To be called when a part is ready for the program. */
  partReady(): void {
    this.#readyAt = performance.now();
    this.#timer ??= setTimeout(this.#check, STALLED_MS);
  }

  /**
   * To be called when the program asks for the next part.
   *
   * @returns whether the turn was paused: it has to {@link TurnLock.enter} before it goes on
   */
  partTaken(): boolean {
    const wasPaused = this.#hasPaused;
    this.#readyAt = undefined;
    this.#hasPaused = false;
    if (!wasPaused) {
      this.#sequence.setBusy(true);
    }
    return wasPaused;
  }

  /** Stops watching, because the stream has ended. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#readyAt = undefined;
    this.#hasPaused = false;
  }

  readonly #check = (): void => {
    this.#timer = undefined;
    if (this.#readyAt === undefined) {
      return; // the next part sets the timer again
    }
    const left = this.#readyAt + STALLED_MS - performance.now();
    if (left > 0) {
      this.#timer = setTimeout(this.#check, left);
      return;
    }
    this.#hasPaused = !this.#lock.isPaused; // a turn whose tools run is paused already
    if (this.#hasPaused) {
      this.#lock.pause();
    } else {
      this.#sequence.makePreemptible();
    }
  };
}
