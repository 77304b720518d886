import type { ConversationSequence } from './sequence.js';

/** A stream that nobody reads from for so long lets others have its sequence. */
const STALLED_MS = 1000;

/**
 * Watches whether the parts of a stream are taken. Who does not read on may be waiting, in this very loop, for a sequence: then
 * this one can be had. One timer does for a stream: it looks when the newest part was offered, and waits for the rest.
 */
export class Offers {
  readonly #sequence: ConversationSequence;
  #timer: NodeJS.Timeout | undefined;
  /** When the newest part was offered; undefined where it has been taken. */
  #offeredAt: number | undefined;

  constructor(sequence: ConversationSequence) {
    this.#sequence = sequence;
  }

  /** A part is there to be taken, from now on. */
  offer(): void {
    this.#offeredAt = performance.now();
    this.#timer ??= setTimeout(this.#look, STALLED_MS);
  }

  /** It was taken, and somebody waits for the next. */
  taken(): void {
    this.#offeredAt = undefined;
    this.#sequence.setBusy(true);
  }

  /** Nobody waits for the newest part to be taken any more. */
  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#offeredAt = undefined;
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
      this.#sequence.lend();
    }
  };
}
