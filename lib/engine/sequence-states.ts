// Captures the states of sequences into the store: when sequences are evicted, for checkpoints, and for copies.
import type { SequenceState } from '../native/state.js';
import { ForgetCalls, type IsForgotten } from './forget-calls.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { Sequence } from './sequence.js';
import {
  type CheckpointKind,
  checkpointsOf,
  partialCheckpointLength,
  type SequenceCheckpoints,
  type SwappedContents,
  withCheckpoint,
  withoutPartial,
} from './sequence-contents.js';
import { StateCaptures } from './state-captures.js';
import { StateOwners } from './state-owners.js';
import type { StateStore, StoredState } from './state-store.js';
import type { StateTransfer } from './state-transfers.js';

/** A copy of a sequence's contents, for a file or a fork. */
export interface ContentsCopy {
  tokens: Int32Array;
  /** The batches in which the tokens were decoded; empty if they were not recorded. */
  chunks: readonly PrefillChunk[];
  /** The KV state, if there is one. */
  state: SequenceState | undefined;
  /** The transfer that owns the state, if it was captured for this copy. */
  transfer?: StateTransfer | undefined;
  /** Frees the state, unless {@link SequenceStates.adopt} took it. Idempotent. */
  end(): void;
}

/** The checkpoints that were captured. */
export interface CheckpointTotals {
  /** Number of checkpoints. */
  count: number;
  /** Their size in bytes. */
  bytes: number;
  /** Duration of their captures, ms. Other sessions wait during a capture. */
  ms: number;
}

/** The states of sequences in the store. */
export class SequenceStates {
  readonly store: StateStore;
  /** The checkpoints captured so far. */
  readonly checkpointTotals: CheckpointTotals = { count: 0, bytes: 0, ms: 0 };
  /** Captures states that need not stay in the store. */
  readonly captures: StateCaptures;
  /** The sequences that may continue from each state. */
  readonly owners: StateOwners;

  constructor(store: StateStore, forgets = new ForgetCalls()) {
    this.store = store;
    this.captures = new StateCaptures(store);
    this.owners = new StateOwners(store, forgets, (owner) => this.#dropUseless(owner));
  }

  /**
   * Captures the state of a sequence into the store. The capture begins at once, so the caller may empty the sequence
   * after the call.
   *
   * @param partial as {@link Sequence.capture}
   * @returns undefined if the state does not fit into the store
   * @throws HeadstartError `CLOSED`, `CAPTURE_FAILED`, `OUT_OF_MEMORY`.
   */
  async capture(sequence: Sequence, partial = false): Promise<StoredState | undefined> {
    const { length } = sequence;
    const transfer = this.captures.mayFit(length, partial)
      ? this.captures.begin(ownerOf(sequence), length, partial)
      : undefined;
    if (transfer === undefined) {
      return undefined;
    }
    try {
      const captured = await this.captures.capture(transfer, sequence, partial);
      return captured && this.owners.put(sequence, captured, transfer);
    } finally {
      transfer.end(); // closes the state unless it was stored
    }
  }

  /**
   * Captures the state of a sequence for a file. Like {@link capture}, the capture begins at once. The state need not
   * fit into the store. The caller must end the copy.
   *
   * @param keeps whether the store keeps the state too, if it fits
   * @param transfer the transfer to use. @default a new one
   * @returns undefined if there is no memory for the state
   * @throws HeadstartError as {@link capture}.
   */
  async captureCopy(
    sequence: Sequence,
    keeps: boolean,
    transfer = this.captures.begin(ownerOf(sequence), sequence.length),
  ): Promise<(ContentsCopy & { stored: StoredState | undefined }) | undefined> {
    if (transfer === undefined) {
      return undefined;
    }
    try {
      const captured = await this.captures.capture(transfer, sequence);
      if (captured === undefined) {
        transfer.end();
        return undefined;
      }
      const { tokens, state } = captured;
      const stored = keeps ? this.owners.put(sequence, captured, transfer) : undefined;
      const end = stored === undefined ? () => transfer.end() : this.store.hold(stored);
      return { tokens, chunks: [], state, end, stored };
    } catch (error) {
      transfer.end();
      throw error;
    }
  }

  /** Waits until the state of a sequence may be captured: see {@link captureCopy}. */
  waitForCopy(sequence: Sequence, signal?: AbortSignal): Promise<StateTransfer> {
    return this.captures.wait(ownerOf(sequence), sequence.length, signal);
  }

  /** Drops the states in memory that must be forgotten, and returns their number. */
  forget(isForgotten: IsForgotten): number {
    const all = [...this.store.values('conversation'), ...this.store.values('request')];
    const states = all.filter((stored) => this.owners.isForgotten(stored, isForgotten));
    for (const stored of states) {
      this.store.drop(stored);
    }
    return states.length;
  }

  /**
   * Keeps the contents of a sequence that is about to be emptied.
   *
   * @param withState whether to capture the state too. If not, the contents are the tokens and their batches.
   * @param capturing a capture of the state that has begun. @default a new one
   */
  swapOut(sequence: Sequence, withState: boolean, capturing?: Promise<StoredState | undefined>): void {
    this.dropSwapped(sequence);
    const { tokens, group, log } = sequence;
    const capture = () => (withState ? this.capture(sequence).catch(() => undefined) : Promise.resolve(undefined));
    const swapped: SwappedContents = {
      tokens: tokens.slice(),
      group,
      chunks: log?.chunks ?? [],
      isCopy: false,
      stored: undefined,
      ready: (capturing ?? capture()).then((stored) => {
        if (sequence.swapped === swapped) {
          swapped.stored = stored;
          this.#dropUseless(sequence);
        } else if (stored !== undefined) {
          this.owners.release(stored, sequence); // the contents were dropped during the capture
        }
      }),
    };
    sequence.swapped = swapped;
  }

  /**
   * Copies the contents of a sequence: its swapped-out contents, or the tokens that it holds now. The caller must end
   * the copy.
   *
   * @returns undefined if there is nothing to copy, or no memory for the copy
   * @throws HeadstartError `ABORTED`, `CLOSED`, `CAPTURE_FAILED`, `OUT_OF_MEMORY`.
   */
  async copyOf(sequence: Sequence, signal?: AbortSignal): Promise<ContentsCopy | undefined> {
    await sequence.swapped?.ready;
    const { swapped } = sequence;
    if (swapped !== undefined) {
      const { tokens, chunks } = swapped;
      const stored = this.storedOf(swapped);
      const end = stored === undefined ? () => undefined : this.store.hold(stored);
      return stored === undefined && chunks.length === 0 ? undefined : { tokens, chunks, state: stored?.state, end };
    }
    return sequence.isEmpty ? undefined : this.copyLive(sequence, signal);
  }

  /**
   * Copies the tokens that a sequence holds now, and their state. The caller must end the copy.
   *
   * @param begin calls its argument when the sequence may be captured. @default at once
   * @returns as {@link copyOf}
   * @throws as {@link copyOf}
   */
  async copyLive(
    sequence: Sequence,
    signal?: AbortSignal,
    begin: <T>(work: () => Promise<T>) => Promise<T> = (work) => work(),
  ): Promise<ContentsCopy | undefined> {
    const transfer = await this.captures.waitWithCells(ownerOf(sequence), sequence.length, signal);
    try {
      const copy = await begin(() => this.#copyInto(sequence, transfer));
      if (copy === undefined) {
        transfer?.end();
      }
      return copy;
    } catch (error) {
      transfer?.end();
      throw error;
    }
  }

  async #copyInto(sequence: Sequence, transfer: StateTransfer | undefined): Promise<ContentsCopy | undefined> {
    if (!sequence.canBeForked) {
      return undefined; // the sequence was emptied during the wait
    }
    const contents = { tokens: sequence.tokens.slice(), chunks: sequence.log?.chunks ?? [] };
    const captured = transfer && (await this.captures.capture(transfer, sequence));
    const state = captured?.state;
    const isUseful = state !== undefined || contents.chunks.length > 0;
    const end = () => transfer?.end();
    return isUseful ? { ...contents, state, ...(state !== undefined && { transfer }), end } : undefined;
  }

  /**
   * Gives the contents of another sequence, or of a file, to a sequence without contents, and ends the copy.
   *
   * @returns whether the state fits into the store. If not, the tokens are decoded again.
   */
  adopt(sequence: Sequence, copy: ContentsCopy): boolean {
    this.dropSwapped(sequence);
    const { tokens, chunks } = copy;
    const { group } = sequence;
    const stored = this.#takeState(sequence, copy);
    copy.end();
    if (stored !== undefined || chunks.length > 0) {
      sequence.swapped = { tokens, group, chunks, stored, isCopy: true, ready: Promise.resolve() };
    }
    return stored !== undefined;
  }

  #takeState(sequence: Sequence, { tokens, state, transfer }: ContentsCopy): StoredState | undefined {
    const { group, epoch } = sequence;
    if (state === undefined || transfer !== undefined) {
      return state && transfer && this.owners.put(sequence, { tokens, group, state, epoch }, transfer);
    }
    const shared = state.share();
    const own = this.captures.begin(ownerOf(sequence), tokens.length);
    if (own === undefined || !own.accept(shared)) {
      shared.close();
      return undefined;
    }
    const stored = this.owners.put(sequence, { tokens, group, state: shared, epoch }, own);
    own.end();
    return stored;
  }

  /** The state of swapped-out contents, if the store still has it. */
  storedOf({ stored }: SwappedContents): StoredState | undefined {
    return stored !== undefined && this.store.has(stored) ? stored : undefined;
  }

  /** Drops the contents that were swapped out. */
  dropSwapped(sequence: Sequence): void {
    const { swapped } = sequence;
    sequence.swapped = undefined;
    if (swapped?.stored !== undefined) {
      this.owners.release(swapped.stored, sequence);
    }
  }

  /**
   * Captures a checkpoint of a sequence. If the model has attention layers, the checkpoint is partial: it holds only
   * the part of the state that cannot be trimmed.
   *
   * @param kind see {@link withCheckpoint}
   * @throws as {@link capture}.
   */
  async keepCheckpoint(sequence: Sequence, kind: CheckpointKind): Promise<void> {
    const begin = performance.now();
    const stored = await this.capture(sequence, sequence.hasAttention);
    if (stored !== undefined && !stored.isDropped) {
      this.checkpointTotals.count++;
      this.checkpointTotals.bytes += stored.state.byteLength;
      this.checkpointTotals.ms += performance.now() - begin;
      this.setCheckpoints(sequence, withCheckpoint(sequence.checkpoints, stored, kind));
    }
  }

  /** Drops the partial checkpoints. A partial checkpoint is of no use for a sequence that has lost its cells. */
  dropPartial(sequence: Sequence): void {
    this.setCheckpoints(sequence, withoutPartial(sequence.checkpoints));
  }

  /** Drops the checkpoints that cache hints asked for, except those at these lengths. */
  keepHints(sequence: Sequence, lengths: readonly number[]): void {
    const { hints = [], ...others } = sequence.checkpoints;
    const kept = hints.filter(({ tokens }) => lengths.includes(tokens.length));
    if (kept.length < hints.length) {
      this.setCheckpoints(sequence, { ...others, hints: kept });
    }
  }

  /** Replaces the checkpoints of a sequence. */
  setCheckpoints(sequence: Sequence, checkpoints: SequenceCheckpoints): void {
    const previous = checkpointsOf(sequence);
    sequence.checkpoints = checkpoints;
    const current = checkpointsOf(sequence);
    for (const each of current) {
      this.owners.add(each, sequence);
    }
    for (const each of previous) {
      if (!current.includes(each)) {
        this.owners.release(each, sequence);
      }
    }
  }

  /**
   * The largest length up to `length` to which a whole state can be trimmed after a restore, with a partial checkpoint.
   * An evicted sequence has partial checkpoints together with its whole state.
   */
  trimmableLength(stored: StoredState, length: number): number {
    const { tokens } = stored;
    const lengths = this.owners
      .of(stored)
      .map(({ checkpoints }) => partialCheckpointLength({ checkpoints, tokens }, length));
    return Math.max(0, ...lengths);
  }

  /**
   * Gives the checkpoints of a state's owner to a sequence that will restore the state, so that the sequence can be
   * trimmed to them.
   */
  inheritCheckpoints(sequence: Sequence, stored: StoredState): void {
    const owners = this.owners.of(stored);
    const owner = owners.find((each) => checkpointsOf(each).length > 0);
    if (owner !== undefined && !owners.includes(sequence)) {
      this.setCheckpoints(sequence, { ...owner.checkpoints });
    }
  }

  /**
   * Call it when another sequence continues an evicted, abandoned sequence. Drops all states of the abandoned sequence.
   */
  dropContinued(sequence: Sequence): void {
    this.dropSwapped(sequence);
    this.setCheckpoints(sequence, {});
  }

  /** Without a whole state, the partial checkpoints of an evicted sequence are useless. */
  #dropUseless(sequence: Sequence): void {
    if (!sequence.isLeased && (sequence.swapped === undefined || this.storedOf(sequence.swapped) === undefined)) {
      this.dropPartial(sequence);
    }
  }
}

function ownerOf(sequence: Sequence) {
  return { kind: sequence.kind, inProgress: () => sequence.inProgress };
}
