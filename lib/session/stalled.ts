import type { ConversationSequence } from './sequence.js';

/** A stream that nobody reads from for so long lets others have its sequence. */
const STALLED_MS = 1000;

/** Hands out the parts of a stream. Who does not read on may be waiting, in this very loop, for a sequence: then this one can be had. */
export class Offers {
  readonly #sequence: ConversationSequence;
  #stalled: NodeJS.Timeout | undefined;

  constructor(sequence: ConversationSequence) {
    this.#sequence = sequence;
  }

  async *offer<T>(part: T): AsyncGenerator<T, void, undefined> {
    this.#stalled = setTimeout(() => this.#sequence.setBusy(false), STALLED_MS);
    try {
      yield part;
    } finally {
      this.end();
    }
    this.#sequence.setBusy(true);
  }

  /** Nobody waits for the newest part to be taken any more. */
  end(): void {
    clearTimeout(this.#stalled);
  }
}
