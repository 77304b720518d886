import { LRUCache } from 'lru-cache';
import type { SequenceState } from '../native/state.js';
import { isPrefix } from '../tokens.js';

/** Budget for all checkpoints of an agent, in bytes. */
const DEFAULT_BYTES = 128 * 1024 ** 2;

/** A state, and the conversations that can continue from it. A fork shares the checkpoints of its source. */
interface Checkpoint {
  readonly state: SequenceState;
  readonly owners: Set<object>;
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
 * The checkpoints of all conversations, within one budget. The least recently used one is evicted first. A checkpoint
 * only saves work, so a conversation can lose it at any time.
 */
export class Checkpoints {
  readonly #maxBytes: number;
  readonly #all: LRUCache<Checkpoint, Checkpoint>;
  readonly #byOwner = new WeakMap<object, OwnedCheckpoints>();
  /** By owner: the token count of a state that was too large for the budget. */
  readonly #minRefusedTokens = new WeakMap<object, number>();

  constructor(maxBytes = DEFAULT_BYTES) {
    this.#maxBytes = maxBytes;
    this.#all = new LRUCache({
      maxSize: Math.max(1, Math.floor(maxBytes)),
      sizeCalculation: ({ state }) => state.byteLength,
      dispose: (checkpoint) => this.#close(checkpoint),
    });
  }

  /**
   * Whether a state of this many tokens may fit into the budget. False if an earlier state with as many or fewer
   * tokens did not fit.
   */
  mayFit(owner: object, tokens = 0): boolean {
    return this.#maxBytes > 0 && tokens < (this.#minRefusedTokens.get(owner) ?? Number.POSITIVE_INFINITY);
  }

  /**
   * Adds a checkpoint and takes over `state`. Older checkpoints of the owner are dropped unless their tokens are a
   * prefix of the new ones.
   *
   * @param beginsTurn whether the state belongs to the first prompt of a turn. If not, the new checkpoint replaces that
   *   of the previous step, and the checkpoint of the turn stays.
   */
  put(owner: object, state: SequenceState, beginsTurn: boolean): void {
    if (state.byteLength > this.#maxBytes) {
      this.#minRefusedTokens.set(owner, state.tokens.length); // shorter states may still fit
      state.close();
      return;
    }
    const checkpoint: Checkpoint = { state, owners: new Set([owner]) };
    const older = this.#longestFirst(owner).filter((each) => isProperPrefix(each.state.tokens, state.tokens));
    const { turn } = this.#byOwner.get(owner) ?? {};
    const isStep = !beginsTurn && turn !== undefined && older.includes(turn);
    this.#set(owner, isStep ? { turn, step: checkpoint } : { turn: checkpoint, step: older[0] });
    this.#all.set(checkpoint, checkpoint);
  }

  /** The owner's longest checkpoint whose tokens are a prefix of `prompt`. Without `prompt`: the longest. */
  get(owner: object, prompt?: Int32Array): SequenceState | undefined {
    const checkpoint = this.#longestFirst(owner).find(
      ({ state }) => prompt === undefined || isProperPrefix(state.tokens, prompt),
    );
    return checkpoint && this.#all.get(checkpoint)?.state;
  }

  /** Gives `to` the checkpoints of `from`. */
  share(from: object, to: object): void {
    const checkpoints = this.#byOwner.get(from);
    if (checkpoints !== undefined) {
      this.#set(to, { ...checkpoints });
    }
  }

  drop(owner: object): void {
    this.#set(owner, {});
  }

  /**
   * Drops all checkpoints. Call it when the agent closes, or when adapters change: other adapters compute other states.
   */
  clear(): void {
    this.#all.clear();
  }

  /** The owner's checkpoints, the longest first. */
  #longestFirst(owner: object): Checkpoint[] {
    const { turn, step } = this.#byOwner.get(owner) ?? {};
    return [turn, step]
      .filter((each) => each !== undefined)
      .sort((a, b) => b.state.tokens.length - a.state.tokens.length);
  }

  #set(owner: object, checkpoints: OwnedCheckpoints): void {
    const previous = this.#longestFirst(owner);
    this.#byOwner.set(owner, checkpoints);
    const current = this.#longestFirst(owner);
    for (const each of current) {
      each.owners.add(owner);
    }
    for (const each of previous.filter((one) => !current.includes(one))) {
      each.owners.delete(owner);
      if (each.owners.size === 0) {
        this.#all.delete(each);
      }
    }
  }

  /** Removes the checkpoint from its owners and frees its state. */
  #close(checkpoint: Checkpoint): void {
    for (const owner of checkpoint.owners) {
      const { turn, step } = this.#byOwner.get(owner) ?? {};
      this.#byOwner.set(owner, {
        turn: turn === checkpoint ? undefined : turn,
        step: step === checkpoint ? undefined : step,
      });
    }
    checkpoint.state.close();
  }
}

function isProperPrefix(prefix: Int32Array, tokens: Int32Array): boolean {
  return prefix.length < tokens.length && isPrefix(prefix, tokens);
}
