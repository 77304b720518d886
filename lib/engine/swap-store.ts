// Keeps checkpoints of sessions that hold no sequence: their tokens, and a state or the batches that rebuild it.
import { LRUCache } from 'lru-cache';
import type { SequenceState } from '../native/state.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { SequenceHolder } from './sequence-pool.js';

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
  /** Whether the contents came from another holder: see {@link SwapStore.adopt}. */
  adopted: boolean;
  /** Settles when the capture of `state` has ended, successfully or not. */
  ready: Promise<void>;
  generation: number;
  dropped: boolean;
}

/**
 * Keeps the contents of swapped-out sequences by holder, with a budget for their states. Holders are referenced weakly.
 */
export class SwapStore {
  readonly maxBytes: number;
  readonly #byHolder = new WeakMap<SequenceHolder, Entry>();
  /** States in order of insertion. They are never looked up here, so the oldest is dropped first. */
  readonly #states: LRUCache<Entry, SequenceState>;
  #generation = 0;
  #closed = false;

  /** @param maxBytes budget of all states; a shared state counts once for each holder. The oldest state is dropped first. */
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
    holder: SequenceHolder,
    contents: Omit<SwappedSequence, 'state'>,
    capturing: Promise<SequenceState> | undefined,
  ): void {
    const entry = this.#add(holder, { ...contents, state: undefined }, false);
    entry.ready = (async () => {
      const state = await capturing?.catch(() => undefined);
      if (state !== undefined) {
        this.#keep(entry, state);
      }
    })();
  }

  /**
   * Keeps the contents of another holder's sequence for this one, and takes over their state.
   *
   * @returns whether the state fits into the budget; without it the tokens are decoded again
   */
  adopt(holder: SequenceHolder, { state, ...contents }: SwappedSequence): boolean {
    const entry = this.#add(holder, { ...contents, state: undefined }, true);
    if (state !== undefined) {
      this.#keep(entry, state);
    }
    return entry.state !== undefined;
  }

  /** The contents that are kept for a holder. */
  get(holder: SequenceHolder): Readonly<Entry> | undefined {
    const entry = this.#byHolder.get(holder);
    return entry?.generation === this.#generation ? entry : undefined;
  }

  drop(holder: SequenceHolder): void {
    const entry = this.#byHolder.get(holder);
    if (entry !== undefined) {
      this.#byHolder.delete(holder);
      entry.dropped = true;
      this.#states.delete(entry);
    }
  }

  /** Drops only the state. */
  dropStateOf(holder: SequenceHolder): void {
    const entry = this.#byHolder.get(holder);
    if (entry !== undefined) {
      this.#states.delete(entry);
    }
  }

  close(): void {
    this.#closed = true;
    this.clear();
  }

  /** Drops the contents of all holders. */
  clear(): void {
    this.#generation++;
    this.#states.clear();
  }

  #add(holder: SequenceHolder, contents: SwappedSequence, adopted: boolean): Entry {
    this.drop(holder);
    const entry = { ...contents, adopted, ready: Promise.resolve(), generation: this.#generation, dropped: false };
    this.#byHolder.set(holder, entry);
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
