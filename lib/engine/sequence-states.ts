// Captures the states of sequences into the store: when sequences are evicted, for checkpoints, and for copies.
import { HeadstartError } from '../errors.js';
import type { SequenceState } from '../native/state.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { Sequence } from './sequence.js';
import {
  type CheckpointKind,
  checkpointsOf,
  partialCheckpoint,
  type SequenceCheckpoints,
  type SwappedContents,
  withCheckpoint,
  withoutPartial,
} from './sequence-contents.js';
import { StateSizes } from './state-sizes.js';
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

/** Whether the program wants contents of this owner to be forgotten. */
export type IsForgotten = (owner: { tenant?: string | undefined; affinity?: string | undefined }) => boolean;

/** The checkpoints that were captured. */
export interface CheckpointTotals {
  /** Number of checkpoints. */
  count: number;
  /** Their size in bytes. */
  bytes: number;
  /** Duration of their captures, ms. Other sessions wait during a capture. */
  ms: number;
}

/**
 * The states of sequences in the store. Several sequences may continue from one state: forks share the checkpoints and
 * the swapped-out state of their source. The store drops a state when its last owner releases it, or when another state
 * needs its bytes.
 */
export class SequenceStates {
  readonly store: StateStore;
  /** The checkpoints captured so far. */
  readonly checkpointTotals: CheckpointTotals = { count: 0, bytes: 0, ms: 0 };
  readonly #sizes = new StateSizes();
  readonly #partialSizes = new StateSizes();
  readonly #owners = new WeakMap<StoredState, Set<Sequence>>();
  /** The captures in progress. `forget` marks those whose states must not be kept. */
  readonly #captures = new Set<{ sequence: Sequence; isForgotten: boolean }>();

  constructor(store: StateStore) {
    this.store = store;
  }

  /** Expected size of a whole state of this many tokens in bytes; undefined if earlier states do not suffice. */
  expectedBytes(tokens: number): number | undefined {
    return this.#sizes.expect(tokens);
  }

  /** Whether a state of this many tokens may fit into the store. */
  mayFit(tokens = 0, partial = false): boolean {
    return (this.#sizesOf(partial).expect(tokens) ?? 1) <= this.store.maxBytes;
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
    const transfer = this.mayFit(length, partial)
      ? this.store.transfers.begin(ownerOf(sequence), this.#sizesOf(partial).expect(length))
      : undefined;
    if (transfer === undefined) {
      return undefined;
    }
    try {
      const captured = await this.#captureInto(transfer, sequence, partial);
      return captured && this.#put(sequence, captured, captured.state, transfer);
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
    transfer = this.#begin(sequence, sequence.length),
  ): Promise<(ContentsCopy & { stored: StoredState | undefined }) | undefined> {
    if (transfer === undefined) {
      return undefined;
    }
    try {
      const captured = await this.#captureInto(transfer, sequence, false);
      if (captured === undefined) {
        transfer.end();
        return undefined;
      }
      const { tokens, state } = captured;
      const stored = keeps ? this.#put(sequence, captured, state, transfer) : undefined;
      const end = stored === undefined ? () => transfer.end() : this.store.hold(stored);
      return { tokens, chunks: [], state, end, stored };
    } catch (error) {
      transfer.end();
      throw error;
    }
  }

  /** Waits until the state of a sequence may be captured: see {@link captureCopy}. */
  waitForCopy(sequence: Sequence, signal?: AbortSignal): Promise<StateTransfer> {
    return this.store.transfers.wait(ownerOf(sequence), this.#sizes.expect(sequence.length), signal);
  }

  /** @returns undefined if the state does not fit or must be forgotten */
  async #captureInto(transfer: StateTransfer, sequence: Sequence, partial: boolean) {
    const { group, length } = sequence;
    const tokens = sequence.tokens.slice();
    const capture = { sequence, isForgotten: false };
    this.#captures.add(capture);
    try {
      const state = await sequence.capture(partial);
      this.#sizesOf(partial).note(length, state.byteLength);
      return transfer.accept(state) && !capture.isForgotten ? { tokens, group, state } : undefined;
    } finally {
      this.#captures.delete(capture);
    }
  }

  /** Drops the states in memory that must be forgotten. @returns their number */
  forget(isForgotten: IsForgotten): number {
    const states = [...this.store.values('conversation'), ...this.store.values('request')].filter(isForgotten);
    for (const stored of states) {
      this.store.drop(stored);
    }
    for (const capture of this.#captures) {
      capture.isForgotten ||= isForgotten(capture.sequence);
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
          this.release(stored, sequence); // the contents were dropped during the capture
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
    const bytes = this.#sizes.expect(sequence.length);
    const transfer = await this.store.transfers.waitWithCells(ownerOf(sequence), bytes, signal);
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
      return undefined; // it was emptied during the wait
    }
    const contents = { tokens: sequence.tokens.slice(), chunks: sequence.log?.chunks ?? [] };
    const state = transfer && (await sequence.capture());
    if (state !== undefined) {
      this.#sizes.note(contents.tokens.length, state.byteLength);
    }
    const isAccepted = state !== undefined && transfer?.accept(state) === true;
    const accepted = isAccepted ? { state, transfer } : { state: undefined };
    const end = () => transfer?.end();
    return isAccepted || contents.chunks.length > 0 ? { ...contents, ...accepted, end } : undefined;
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
    const contents = { tokens, group: sequence.group };
    if (state === undefined || transfer !== undefined) {
      return state && transfer && this.#put(sequence, contents, state, transfer);
    }
    const shared = state.share();
    const own = this.#begin(sequence, tokens.length);
    if (own === undefined || !own.accept(shared)) {
      shared.close();
      return undefined;
    }
    const stored = this.#put(sequence, contents, shared, own);
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
      this.release(swapped.stored, sequence);
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
      this.addCheckpoint(sequence, stored, kind);
    }
  }

  /** Drops the partial checkpoints. A partial checkpoint is of no use for a sequence that has lost its cells. */
  dropPartial(sequence: Sequence): void {
    this.setCheckpoints(sequence, withoutPartial(sequence.checkpoints));
  }

  /** Adds a checkpoint of a sequence: see {@link withCheckpoint}. */
  addCheckpoint(sequence: Sequence, stored: StoredState, kind: CheckpointKind): void {
    this.setCheckpoints(sequence, withCheckpoint(sequence.checkpoints, stored, kind));
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
      this.#owners.get(each)?.add(sequence);
    }
    for (const each of previous) {
      if (!current.includes(each)) {
        this.release(each, sequence);
      }
    }
  }

  /**
   * The largest length up to `length` to which a whole state can be trimmed after a restore, with a partial checkpoint.
   * An evicted sequence has partial checkpoints together with its whole state.
   */
  trimmableLength(stored: StoredState, length: number): number {
    const lengths = this.ownersOf(stored).map(({ checkpoints }) => {
      const checkpoint = partialCheckpoint({ checkpoints, tokens: stored.tokens }, ({ length: end }) => end <= length);
      return checkpoint?.tokens.length ?? 0;
    });
    return Math.max(0, ...lengths);
  }

  /** The sequences that may continue from a state. */
  ownersOf(stored: StoredState): Sequence[] {
    return [...(this.#owners.get(stored) ?? [])];
  }

  /**
   * Gives the checkpoints of a state's owner to a sequence that will restore the state, so that the sequence can be
   * trimmed to them.
   */
  inheritCheckpoints(sequence: Sequence, stored: StoredState): void {
    const owners = this.ownersOf(stored);
    const owner = owners.find((each) => checkpointsOf(each).length > 0);
    if (owner !== undefined && !owners.includes(sequence)) {
      this.setCheckpoints(sequence, { ...owner.checkpoints });
    }
  }

  /** Call it when another sequence continues an evicted, abandoned sequence. Drops all states of the latter. */
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

  /** Removes an owner of a state. Drops the state if it has no other owner. */
  release(stored: StoredState, owner: Sequence): void {
    const owners = this.#owners.get(stored);
    owners?.delete(owner);
    if (owners?.size === 0) {
      this.store.drop(stored);
    }
  }

  #sizesOf(partial: boolean): StateSizes {
    return partial ? this.#partialSizes : this.#sizes;
  }

  #begin(sequence: Sequence, length: number): StateTransfer | undefined {
    return this.store.transfers.begin(ownerOf(sequence), this.#sizes.expect(length));
  }

  #put(
    sequence: Sequence,
    contents: { tokens: Int32Array; group: string },
    state: SequenceState,
    transfer: StateTransfer,
  ): StoredState | undefined {
    const owners = new Set([sequence]);
    const inProgress = () => [...owners].some((owner) => owner.inProgress);
    const { kind, affinity, tenant } = sequence;
    const { isPartial } = state;
    const { tokens, group } = contents;
    const dropUseless = () => {
      for (const owner of owners) {
        this.#dropUseless(owner);
      }
    };
    const onEvicted = () => queueMicrotask(dropUseless); // the store is still making space now
    const stored: StoredState = {
      get kind() {
        return [...owners].some((owner) => owner.kind === 'conversation') ? 'conversation' : kind;
      },
      affinity,
      tenant,
      tokens,
      group,
      state,
      isPartial,
      inProgress,
      onEvicted,
    };
    if (!this.store.put(stored, transfer)) {
      return undefined;
    }
    this.#owners.set(stored, owners);
    return stored;
  }
}

function ownerOf(sequence: Sequence) {
  return { kind: sequence.kind, inProgress: () => sequence.inProgress };
}

/** Whether a failure has nothing to do with a state, so that a later attempt can use the state. */
export function isTransient(error: unknown): boolean {
  return (
    HeadstartError.isInstance(error, 'ABORTED') ||
    HeadstartError.isInstance(error, 'CLOSED') ||
    HeadstartError.isInstance(error, 'PREEMPTED')
  );
}
