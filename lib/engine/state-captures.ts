import type { SequenceState } from '../native/state.js';
import type { Sequence } from './sequence.js';
import { StateSizes } from './state-sizes.js';
import type { StateOwner, StateStore } from './state-store.js';
import type { StateTransfer } from './state-transfers.js';

/** A captured state, with the tokens that the sequence held when the capture began. */
export interface Captured {
  tokens: Int32Array;
  /** See `Sequence.group`. */
  group: string;
  state: SequenceState;
}

/** Whether the program wants contents of this owner to be forgotten. */
export type IsForgotten = (owner: { tenant?: string | undefined; affinity?: string | undefined }) => boolean;

/** Captures the states of sequences, and remembers how large states are. */
export class StateCaptures {
  readonly #store: StateStore;
  readonly #whole = new StateSizes();
  readonly #partial = new StateSizes();
  /** The captures in progress. `forget` marks those whose states must not be kept. */
  readonly #running = new Set<{ sequence: Sequence; isForgotten: boolean }>();

  constructor(store: StateStore) {
    this.#store = store;
  }

  /** Expected size of a state of this many tokens in bytes; undefined if earlier states do not suffice. */
  expectedBytes(tokens: number, partial = false): number | undefined {
    return (partial ? this.#partial : this.#whole).expect(tokens);
  }

  /** Whether a state of this many tokens may fit into the store. */
  mayFit(tokens = 0, partial = false): boolean {
    return (this.expectedBytes(tokens, partial) ?? 1) <= this.#store.maxBytes;
  }

  /** Begins a transfer for a state of this many tokens: see `StateTransfers.begin`. */
  begin(owner: StateOwner, tokens: number, partial = false): StateTransfer | undefined {
    return this.#store.transfers.begin(owner, this.expectedBytes(tokens, partial));
  }

  /** Like {@link begin}, but waits until the transfer is possible: see `StateTransfers.wait`. */
  wait(owner: StateOwner, tokens: number, signal?: AbortSignal): Promise<StateTransfer> {
    return this.#store.transfers.wait(owner, this.expectedBytes(tokens), signal);
  }

  /** Like {@link wait}, for a caller that holds KV cells: see `StateTransfers.waitWithCells`. */
  waitWithCells(owner: StateOwner, tokens: number, signal?: AbortSignal): Promise<StateTransfer | undefined> {
    return this.#store.transfers.waitWithCells(owner, this.expectedBytes(tokens), signal);
  }

  /**
   * Captures the state of a sequence. The capture begins at once, so the caller may empty the sequence after the call.
   *
   * @param transfer gets the state, and must be ended by the caller
   * @param partial as {@link Sequence.capture}
   * @returns undefined if the state does not fit or must be forgotten
   * @throws HeadstartError `CLOSED`, `CAPTURE_FAILED`, `OUT_OF_MEMORY`.
   */
  async capture(transfer: StateTransfer, sequence: Sequence, partial = false): Promise<Captured | undefined> {
    const { group, length } = sequence;
    const tokens = sequence.tokens.slice();
    const running = { sequence, isForgotten: false };
    this.#running.add(running);
    try {
      const state = await sequence.capture(partial);
      (partial ? this.#partial : this.#whole).note(length, state.byteLength);
      return transfer.accept(state) && !running.isForgotten ? { tokens, group, state } : undefined;
    } finally {
      this.#running.delete(running);
    }
  }

  /** Drops the results of captures in progress that must be forgotten. */
  forget(isForgotten: IsForgotten): void {
    for (const running of this.#running) {
      running.isForgotten ||= isForgotten(running.sequence);
    }
  }
}
