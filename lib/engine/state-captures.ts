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
  /** See `Sequence.epoch`. */
  epoch: number;
}

/** Captures the states of sequences, and remembers how large states are. */
export class StateCaptures {
  readonly #store: StateStore;
  readonly #whole = new StateSizes();
  readonly #partial = new StateSizes();

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
   * @returns undefined if the state does not fit
   * @throws HeadstartError `CLOSED`, `CAPTURE_FAILED`, `OUT_OF_MEMORY`.
   */
  async capture(transfer: StateTransfer, sequence: Sequence, partial = false): Promise<Captured | undefined> {
    const { group, length, epoch } = sequence;
    const tokens = sequence.tokens.slice();
    const state = await sequence.capture(partial);
    (partial ? this.#partial : this.#whole).note(length, state.byteLength);
    return transfer.accept(state) ? { tokens, group, state, epoch } : undefined;
  }
}
