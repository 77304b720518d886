// What sessions come back to that do not hold a sequence: the tokens, and a state or the batches that lead to them.
import type { SequenceState } from '../native/state.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { SequenceHolder } from './sequence-pool.js';

/** What a sequence held. */
export interface SwappedSequence {
  tokens: Int32Array;
  templateTokens: number;
  /** In which batches it came to them, where that is kept. */
  chunks: readonly PrefillChunk[];
  /** Its state, where one was taken. */
  state: SequenceState | undefined;
}

interface Entry extends SwappedSequence {
  /** Another held it: see {@link SwapStore.adopt}. */
  adopted: boolean;
  /** Settles when `state` is there, if it will be. */
  ready: Promise<void>;
  generation: number;
  dropped: boolean;
}

/** By holder; a holder that is forgotten elsewhere is forgotten here. */
export class SwapStore {
  readonly maxBytes: number;
  readonly #byHolder = new WeakMap<SequenceHolder, Entry>();
  /** Those that have a state, with its bytes, the oldest first. */
  readonly #withState = new Map<Entry, number>();
  #bytes = 0;
  #generation = 0;
  #closed = false;

  /** @param maxBytes budget of all states, each counted for everyone who comes back to it: the oldest goes first */
  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  /** Of all states. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @param capturing the state, where one is taken; a capture that fails is none */
  put(
    holder: SequenceHolder,
    past: Omit<SwappedSequence, 'state'>,
    capturing: Promise<SequenceState> | undefined,
  ): void {
    const entry = this.#add(holder, { ...past, state: undefined }, false);
    entry.ready = (async () => {
      const state = await capturing?.catch(() => undefined);
      if (state !== undefined) {
        this.#keep(entry, state);
      }
    })();
  }

  /** What a holder begins with. Its state is the store's now, and within the budget: without it the tokens are decoded again. @returns whether it is kept */
  adopt(holder: SequenceHolder, { state, ...past }: SwappedSequence): boolean {
    const entry = this.#add(holder, { ...past, state: undefined }, true);
    if (state !== undefined) {
      this.#keep(entry, state);
    }
    return entry.state !== undefined;
  }

  /** What there is of a holder; it stays until it is dropped. */
  get(holder: SequenceHolder): Readonly<Entry> | undefined {
    const entry = this.#byHolder.get(holder);
    return entry?.generation === this.#generation ? entry : undefined;
  }

  drop(holder: SequenceHolder): void {
    const entry = this.#byHolder.get(holder);
    if (entry !== undefined) {
      this.#byHolder.delete(holder);
      entry.dropped = true;
      this.#dropState(entry);
    }
  }

  /** Its state is of no use. */
  dropStateOf(holder: SequenceHolder): void {
    const entry = this.#byHolder.get(holder);
    if (entry !== undefined) {
      this.#dropState(entry);
    }
  }

  close(): void {
    this.#closed = true;
    this.clear();
  }

  /** Drops all: what the model computes has changed. */
  clear(): void {
    this.#generation++;
    for (const entry of [...this.#withState.keys()]) {
      this.#dropState(entry);
    }
  }

  #add(holder: SequenceHolder, past: SwappedSequence, adopted: boolean): Entry {
    this.drop(holder);
    const entry = { ...past, adopted, ready: Promise.resolve(), generation: this.#generation, dropped: false };
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
    this.#withState.set(entry, state.byteLength);
    this.#bytes += state.byteLength;
    for (const [oldest] of this.#withState) {
      if (this.#bytes <= this.maxBytes) {
        return;
      }
      this.#dropState(oldest);
    }
  }

  #dropState(entry: Entry): void {
    this.#bytes -= this.#withState.get(entry) ?? 0;
    this.#withState.delete(entry);
    entry.state?.close();
    entry.state = undefined;
  }
}
