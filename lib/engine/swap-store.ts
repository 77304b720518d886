// Keeps checkpoints of sessions that hold no sequence: their tokens, and a state or the batches that rebuild it.
import { LRUCache } from 'lru-cache';
import type { SequenceState } from '../native/state.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { Sequence } from './sequence.js';

/** The contents of a sequence that its session no longer holds. */
export interface SwappedSequence {
  tokens: Int32Array;
  templateTokens: number;
  /** The batches in which the tokens were decoded; empty if they were not recorded. */
  chunks: readonly PrefillChunk[];
  /** The KV state, if it was captured. */
  state: SequenceState | undefined;
}

interface Entry extends SwappedSequence {
  /** Whether the contents came from another sequence: see {@link SwapStore.adopt}. */
  adopted: boolean;
  /** Settles when the capture of `state` has ended, successfully or not. */
  ready: Promise<void>;
  generation: number;
  dropped: boolean;
}

/**
 * Keeps the contents of swapped-out sequences, with a budget for their states. Sequences are referenced weakly.
 */
export class SwapStore {
  readonly maxBytes: number;
  readonly #bySequence = new WeakMap<Sequence, Entry>();
  /** States in order of insertion. They are never looked up here, so the oldest is dropped first. */
  readonly #states: LRUCache<Entry, SequenceState>;
  #generation = 0;
  #closed = false;

  /** @param maxBytes budget of all states; a shared state counts once for each sequence. The oldest state is dropped first. */
  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
    this.#states = new LRUCache({
      maxSize: Math.max(1, Math.floor(maxBytes)),
      sizeCalculation: ({ byteLength }) => byteLength,
      dispose: (state, entry) => {
        entry.state = undefined;
        state.close();
      },
    });
  }

  /** Bytes of all states. */
  get bytes(): number {
    return this.#states.calculatedSize;
  }

  /** @param capturing the capture in progress, if there is one; if it fails, only the tokens are kept */
  put(
    sequence: Sequence,
    contents: Omit<SwappedSequence, 'state'>,
    capturing: Promise<SequenceState> | undefined,
  ): void {
    const entry = this.#add(sequence, { ...contents, state: undefined }, false);
    entry.ready = (async () => {
      const state = await capturing?.catch(() => undefined);
      if (state !== undefined) {
        this.#keep(entry, state);
      }
    })();
  }

  /**
   * Keeps the contents of another sequence for this one, and takes over their state.
   *
   * @returns whether the state fits into the budget; without it the tokens are decoded again
   */
  adopt(sequence: Sequence, { state, ...contents }: SwappedSequence): boolean {
    const entry = this.#add(sequence, { ...contents, state: undefined }, true);
    if (state !== undefined) {
      this.#keep(entry, state);
    }
    return entry.state !== undefined;
  }

  /** The contents that are kept for a sequence. */
  get(sequence: Sequence): Readonly<Entry> | undefined {
    const entry = this.#bySequence.get(sequence);
    return entry?.generation === this.#generation ? entry : undefined;
  }

  drop(sequence: Sequence): void {
    const entry = this.#bySequence.get(sequence);
    if (entry !== undefined) {
      this.#bySequence.delete(sequence);
      entry.dropped = true;
      this.#states.delete(entry);
    }
  }

  /** Drops only the state. */
  dropStateOf(sequence: Sequence): void {
    const entry = this.#bySequence.get(sequence);
    if (entry !== undefined) {
      this.#states.delete(entry);
    }
  }

  close(): void {
    this.#closed = true;
    this.clear();
  }

  /** Drops the contents of all sequences. */
  clear(): void {
    this.#generation++;
    this.#states.clear();
  }

  #add(sequence: Sequence, contents: SwappedSequence, adopted: boolean): Entry {
    this.drop(sequence);
    const entry = { ...contents, adopted, ready: Promise.resolve(), generation: this.#generation, dropped: false };
    this.#bySequence.set(sequence, entry);
    return entry;
  }

  #keep(entry: Entry, state: SequenceState): void {
    const unwanted = this.#closed || entry.dropped || entry.generation !== this.#generation;
    if (unwanted || state.byteLength > this.maxBytes) {
      state.close();
      return;
    }
    entry.state = state;
    this.#states.set(entry, state);
  }
}
