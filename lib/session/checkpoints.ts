import { StateSizes } from '../engine/state-sizes.js';
import type { StateStore, StoredState } from '../engine/state-store.js';
import type { StateTransfer } from '../engine/state-transfers.js';
import type { SequenceState } from '../native/state.js';
import { isPrefix } from '../tokens.js';

/** A conversation. */
export interface CheckpointOwner {
  /** Whether one of its turns is in progress. */
  readonly inProgress: boolean;
}

/** What to capture for a checkpoint. */
export interface CheckpointRequest {
  owner: CheckpointOwner;
  /** Key group: see `groupOf`. */
  group: string;
  /** The contents of the sequence. */
  tokens: Int32Array;
  /**
   * Whether the state belongs to the first prompt of a turn. If not, the new checkpoint replaces that of the previous
   * step, and the checkpoint of the turn stays.
   */
  beginsTurn: boolean;
}

/** A state, and the conversations that can continue from it. A fork shares the checkpoints of its source. */
interface Checkpoint {
  readonly stored: StoredState;
  readonly owners: Set<CheckpointOwner>;
}

/**
 * The two checkpoints of a conversation. The chat template decides which one the next turn can continue from. If the
 * template leaves out the reasoning of earlier turns, the next prompt differs from the current one after the message
 * that began the current turn. If the template repeats all steps of a turn, the next prompt also contains the newest
 * tool result.
 */
interface OwnedCheckpoints {
  /** Captured at the message that began the newest turn. */
  turn?: Checkpoint | undefined;
  /**
   * Captured at the newest tool result of that turn. Before the first result: an older checkpoint, which is used if the
   * turn is aborted.
   */
  step?: Checkpoint | undefined;
}

/**
 * Knows which states in the store are checkpoints of which conversation. A checkpoint only saves work, so the store may
 * drop it at any time.
 */
export class Checkpoints {
  readonly #states: StateStore;
  readonly #sizes = new StateSizes();
  readonly #byOwner = new WeakMap<CheckpointOwner, OwnedCheckpoints>();

  constructor(states: StateStore) {
    this.#states = states;
  }

  /** Whether a state of this many tokens may fit into the store. */
  mayFit(tokens = 0): boolean {
    return (this.#sizes.expect(tokens) ?? 1) <= this.#states.maxBytes;
  }

  /**
   * Captures a checkpoint, unless the store has no space for it. Drops older checkpoints of the owner unless their
   * tokens are a prefix of the new ones.
   *
   * @param capture copies the state out of the sequence
   * @throws whatever `capture` throws.
   */
  async keep(request: CheckpointRequest, capture: () => Promise<SequenceState>): Promise<void> {
    const { length } = request.tokens;
    const owner = { kind: 'conversation', inProgress: () => request.owner.inProgress } as const;
    const transfer = this.mayFit(length) ? this.#states.transfers.begin(owner, this.#sizes.expect(length)) : undefined;
    if (transfer === undefined) {
      return;
    }
    try {
      const state = await capture();
      this.#sizes.note(length, state.byteLength);
      if (transfer.accept(state)) {
        this.#put(request, state, transfer);
      }
    } finally {
      transfer.end(); // closes the state unless it was stored
    }
  }

  /** The owner's longest checkpoint whose tokens are a prefix of `prompt`. Without `prompt`: the longest. */
  get(owner: CheckpointOwner, prompt?: Int32Array): StoredState | undefined {
    return this.#longestFirst(owner).find(({ stored }) => prompt === undefined || isProperPrefix(stored.tokens, prompt))
      ?.stored;
  }

  /** Keeps a checkpoint in memory while it is used. @returns a function that ends this */
  hold(stored: StoredState): () => void {
    return this.#states.hold(stored);
  }

  /** Gives `to` the checkpoints of `from`. */
  share(from: CheckpointOwner, to: CheckpointOwner): void {
    const checkpoints = this.#byOwner.get(from);
    if (checkpoints !== undefined) {
      this.#set(to, { ...checkpoints });
    }
  }

  drop(owner: CheckpointOwner): void {
    this.#set(owner, {});
  }

  #put({ owner, group, tokens, beginsTurn }: CheckpointRequest, state: SequenceState, transfer: StateTransfer): void {
    const owners = new Set([owner]);
    const inProgress = () => [...owners].some((each) => each.inProgress);
    const checkpoint: Checkpoint = { stored: { kind: 'conversation', group, state, tokens, inProgress }, owners };
    if (this.#states.put(checkpoint.stored, transfer)) {
      const older = this.#longestFirst(owner).filter(({ stored }) => isProperPrefix(stored.tokens, tokens));
      const { turn } = this.#byOwner.get(owner) ?? {};
      const isStep = !beginsTurn && turn !== undefined && older.includes(turn);
      this.#set(owner, isStep ? { turn, step: checkpoint } : { turn: checkpoint, step: older[0] });
    }
  }

  /** The owner's checkpoints that are still in the store, the longest first. */
  #longestFirst(owner: CheckpointOwner): Checkpoint[] {
    const { turn, step } = this.#byOwner.get(owner) ?? {};
    return [turn, step]
      .filter((each) => each !== undefined)
      .filter(({ stored }) => this.#states.has(stored))
      .sort((a, b) => b.stored.tokens.length - a.stored.tokens.length);
  }

  #set(owner: CheckpointOwner, checkpoints: OwnedCheckpoints): void {
    const previous = this.#longestFirst(owner);
    this.#byOwner.set(owner, checkpoints);
    const current = this.#longestFirst(owner);
    for (const each of current) {
      each.owners.add(owner);
    }
    for (const each of previous.filter((one) => !current.includes(one))) {
      each.owners.delete(owner);
      if (each.owners.size === 0) {
        this.#states.drop(each.stored);
      }
    }
  }
}

function isProperPrefix(prefix: Int32Array, tokens: Int32Array): boolean {
  return prefix.length < tokens.length && isPrefix(prefix, tokens);
}
