import type { ConversationSequence } from './conversation-sequence.js';
import type { TurnLock } from './turn-lock.js';

/** A stream that nobody reads from for so long lets others have its sequence, and change what all compute with. */
const STALLED_MS = 1000;

/**
 * Watches whether the parts of a stream are taken. Who does not read on may be waiting, in this very loop, for a sequence: then
 * this one can be had. One timer does for a stream: it looks when the newest part was offered, and waits for the rest.
 */
export class ReaderWatch {
  readonly #sequence: ConversationSequence;
  readonly #passage: TurnLock;
  /** Its turn stepped out for others. */
  #isOut = false;
  #timer: NodeJS.Timeout | undefined;
  /** When the newest part was offered; undefined where it has been taken. */
  #offeredAt: number | undefined;

  constructor(sequence: ConversationSequence, passage: TurnLock) {
    this.#sequence = sequence;
    this.#passage = passage;
  }

  /** A part is there to be taken, from now on. */
  offer(): void {
    this.#offeredAt = performance.now();
    this.#timer ??= setTimeout(this.#look, STALLED_MS);
  }

  /**
   * It was taken, and somebody waits for the next.
   *
   * @returns whether the turn has to {@link TurnLock.enter} again before it goes on
   */
  taken(): boolean {
    const wasOut = this.#isOut;
    this.#offeredAt = undefined;
    this.#isOut = false;
    if (!wasOut) {
      this.#sequence.setBusy(true);
    }
    return wasOut;
  }

  /** Nobody waits for the newest part to be taken any more. */
  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#offeredAt = undefined;
    this.#isOut = false;
  }

  readonly #look = (): void => {
    this.#timer = undefined;
    if (this.#offeredAt === undefined) {
      return; // the next offer sets a timer again
    }
    const left = this.#offeredAt + STALLED_MS - performance.now();
    if (left > 0) {
      this.#timer = setTimeout(this.#look, left);
    } else {
      this.#isOut = !this.#passage.isOutside; // while its tools run it is
      if (this.#isOut) {
        this.#passage.stepOut();
      } else {
        this.#sequence.makePreemptible();
      }
    }
  };
}
