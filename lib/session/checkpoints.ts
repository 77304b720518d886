import type { SequenceState } from '../native/state.js';
import { isPrefix } from '../tokens.js';

/** All checkpoints of an agent together, in bytes. */
const DEFAULT_BYTES = 128 * 1024 ** 2;

/** A state, and the conversations that may go on from it: a fork shares those of its source. */
interface Checkpoint {
  readonly state: SequenceState;
  readonly owners: Set<object>;
}

/**
 * Two for each conversation. Chat templates that leave out the reasoning of earlier turns make every later prompt differ behind the
 * message that began a turn; other chat templates repeat all steps of a turn.
 */
interface OwnedCheckpoints {
  /** Taken at the message that began the newest turn. */
  turn?: Checkpoint | undefined;
  /** Taken at the newest result of a tool in that turn; until there is one, what an aborted turn falls back to. */
  step?: Checkpoint | undefined;
}

/**
 * The checkpoints of all conversations that have any, within one budget: the least recently used goes first. A checkpoint only saves
 * work, so a conversation can lose it at any time.
 */
export class Checkpoints {
  readonly #maxBytes: number;
  /** Least recently used first. */
  readonly #all = new Set<Checkpoint>();
  readonly #byOwner = new WeakMap<object, OwnedCheckpoints>();
  /** The number of tokens from which an owner's states are too large for the budget. */
  readonly #minRefusedTokens = new WeakMap<object, number>();
  #bytes = 0;

  constructor(maxBytes = DEFAULT_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** Whether a state of this many tokens may fit into the budget. One that did not fit is not captured again. */
  mayFit(owner: object, tokens = 0): boolean {
    return this.#maxBytes > 0 && tokens < (this.#minRefusedTokens.get(owner) ?? Number.POSITIVE_INFINITY);
  }

  /**
   * Takes over `state`. Older ones of the owner that are no prefix of it go.
   *
   * @param beginsTurn false: it replaces that of the step before, and that of the turn stays
   */
  put(owner: object, state: SequenceState, beginsTurn: boolean): void {
    if (state.byteLength > this.#maxBytes) {
      this.#minRefusedTokens.set(owner, state.tokens.length); // shorter ones are still useful
      state.close();
      return;
    }
    const checkpoint: Checkpoint = { state, owners: new Set([owner]) };
    const older = this.#longestFirst(owner).filter((each) => isProperPrefix(each.state.tokens, state.tokens));
    const { turn } = this.#byOwner.get(owner) ?? {};
    const isStep = !beginsTurn && turn !== undefined && older.includes(turn);
    this.#set(owner, isStep ? { turn, step: checkpoint } : { turn: checkpoint, step: older[0] });
    this.#all.add(checkpoint);
    this.#bytes += state.byteLength;
    this.#shrink();
  }

  /** The longest of the owner's, the whole of which `prompt` begins with; without a prompt the longest. */
  get(owner: object, prompt?: Int32Array): SequenceState | undefined {
    const found = this.#longestFirst(owner).find(
      ({ state }) => prompt === undefined || isProperPrefix(state.tokens, prompt),
    );
    if (found !== undefined) {
      this.#all.delete(found);
      this.#all.add(found);
    }
    return found?.state;
  }

  /** Lets `to` go on from what `from` may go on from. */
  share(from: object, to: object): void {
    const kept = this.#byOwner.get(from);
    if (kept !== undefined) {
      this.#set(to, { ...kept });
    }
  }

  drop(owner: object): void {
    this.#set(owner, {});
  }

  /** Drops all: what the model computes has changed. */
  clear(): void {
    for (const checkpoint of this.#all) {
      this.#evict(checkpoint);
    }
  }

  /** An owner's, the longest first. */
  #longestFirst(owner: object): Checkpoint[] {
    const { turn, step } = this.#byOwner.get(owner) ?? {};
    return [turn, step]
      .filter((each) => each !== undefined)
      .sort((a, b) => b.state.tokens.length - a.state.tokens.length);
  }

  #set(owner: object, kept: OwnedCheckpoints): void {
    const before = this.#longestFirst(owner);
    this.#byOwner.set(owner, kept);
    const now = this.#longestFirst(owner);
    for (const each of now) {
      each.owners.add(owner);
    }
    for (const each of before.filter((one) => !now.includes(one))) {
      each.owners.delete(owner);
      if (each.owners.size === 0) {
        this.#close(each);
      }
    }
  }

  #shrink(): void {
    for (const oldest of this.#all) {
      if (this.#bytes <= this.#maxBytes) {
        return;
      }
      this.#evict(oldest);
    }
  }

  #evict(checkpoint: Checkpoint): void {
    for (const owner of checkpoint.owners) {
      const { turn, step } = this.#byOwner.get(owner) ?? {};
      this.#byOwner.set(owner, {
        turn: turn === checkpoint ? undefined : turn,
        step: step === checkpoint ? undefined : step,
      });
    }
    checkpoint.owners.clear();
    this.#close(checkpoint);
  }

  #close(checkpoint: Checkpoint): void {
    this.#all.delete(checkpoint);
    this.#bytes -= checkpoint.state.byteLength;
    checkpoint.state.close();
  }
}

function isProperPrefix(prefix: Int32Array, tokens: Int32Array): boolean {
  return prefix.length < tokens.length && isPrefix(prefix, tokens);
}
