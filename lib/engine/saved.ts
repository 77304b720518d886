// What evicted sessions come back from faster than from their tokens.
import type { SequenceState } from '../native/state.js';
import type { Piece } from './journal.js';
import type { SequenceHolder } from './sequences.js';

/** What a sequence held when it was taken from its holder. */
export interface SavedSequence {
  tokens: Int32Array;
  templateTokens: number;
  /** In which batches it came to them, where that is kept. */
  pieces: readonly Piece[];
  /** Its state; undefined where none was taken, or it was dropped for newer ones. */
  state: SequenceState | undefined;
  /** Settles when `state` is there. */
  ready: Promise<void>;
  generation: number;
}

/** By holder; states within a budget of bytes, the oldest out first. A holder that is forgotten elsewhere is forgotten here. */
export class SavedSequences {
  readonly maxBytes: number;
  readonly #byHolder = new WeakMap<SequenceHolder, SavedSequence>();
  /** With their bytes, the oldest first. */
  readonly #withState = new Map<SavedSequence, number>();
  #bytes = 0;
  #generation = 0;
  #closed = false;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** @param capturing the state, where one is taken; a capture that fails is none */
  put(
    holder: SequenceHolder,
    saved: Pick<SavedSequence, 'tokens' | 'templateTokens' | 'pieces'>,
    capturing: Promise<SequenceState> | undefined,
  ): void {
    this.take(holder)?.state?.close();
    const entry: SavedSequence = { ...saved, state: undefined, ready: Promise.resolve(), generation: this.#generation };
    entry.ready = (async () => {
      const state = await capturing?.catch(() => undefined);
      if (state !== undefined) {
        this.#keep(entry, state);
      }
    })();
    this.#byHolder.set(holder, entry);
  }

  /** Hands over what there is of a holder: its state is the caller's to close. */
  take(holder: SequenceHolder): SavedSequence | undefined {
    const entry = this.#byHolder.get(holder);
    if (entry !== undefined) {
      this.#byHolder.delete(holder);
      this.#forget(entry);
    }
    return entry?.generation === this.#generation ? entry : undefined;
  }

  close(): void {
    this.#closed = true;
    this.clear();
  }

  /** Drops all: what the model computes has changed. */
  clear(): void {
    this.#generation++;
    for (const entry of [...this.#withState.keys()]) {
      this.#drop(entry);
    }
  }

  #keep(entry: SavedSequence, state: SequenceState): void {
    if (this.#closed || entry.generation !== this.#generation || state.byteLength > this.maxBytes) {
      state.close();
      return;
    }
    entry.state = state;
    this.#withState.set(entry, state.byteLength);
    this.#bytes += state.byteLength;
    for (const [oldest] of this.#withState) {
      if (this.#bytes <= this.maxBytes) {
        return;
      }
      this.#drop(oldest);
    }
  }

  #drop(entry: SavedSequence): void {
    this.#forget(entry);
    entry.state?.close();
    entry.state = undefined;
  }

  #forget(entry: SavedSequence): void {
    this.#bytes -= this.#withState.get(entry) ?? 0;
    this.#withState.delete(entry);
  }
}
