import type { SequenceState } from '../native/state.js';
import { isPrefix } from '../tokens.js';

/** All snapshots of an agent together, in bytes. */
const DEFAULT_BYTES = 128 * 1024 ** 2;

/** A state, and the conversations that may go on from it: a fork shares those of its source. */
interface Snapshot {
  readonly state: SequenceState;
  readonly owners: Set<object>;
}

/**
 * Two for each conversation. Chat templates that leave out the reasoning of earlier turns make every later prompt differ behind the
 * message that began a turn; other chat templates repeat all steps of a turn.
 */
interface Kept {
  /** Taken at the message that began the newest turn. */
  turn?: Snapshot | undefined;
  /** Taken at the newest result of a tool in that turn; until there is one, what an aborted turn falls back to. */
  step?: Snapshot | undefined;
}

/**
 * The snapshots of all conversations that have any, within one budget: the least recently used goes first. A snapshot only saves
 * work, so a conversation can lose it at any time.
 */
export class Snapshots {
  readonly #maxBytes: number;
  /** Least recently used first. */
  readonly #all = new Set<Snapshot>();
  readonly #byOwner = new WeakMap<object, Kept>();
  /** The number of tokens from which an owner's states are too large for the budget. */
  readonly #tooLong = new WeakMap<object, number>();
  #bytes = 0;

  constructor(maxBytes = DEFAULT_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** Whether a state of this many tokens may fit into the budget. One that did not fit is not captured again. */
  wanted(owner: object, tokens = 0): boolean {
    return this.#maxBytes > 0 && tokens < (this.#tooLong.get(owner) ?? Number.POSITIVE_INFINITY);
  }

  /**
   * Takes over `state`. Older ones of the owner that are no prefix of it go.
   *
   * @param beginsTurn false: it replaces that of the step before, and that of the turn stays
   */
  put(owner: object, state: SequenceState, beginsTurn: boolean): void {
    if (state.byteLength > this.#maxBytes) {
      this.#tooLong.set(owner, state.tokens.length); // shorter ones are still useful
      state.close();
      return;
    }
    const snapshot: Snapshot = { state, owners: new Set([owner]) };
    const older = this.#of(owner).filter((each) => isProperPrefix(each.state.tokens, state.tokens));
    const { turn } = this.#byOwner.get(owner) ?? {};
    const isStep = !beginsTurn && turn !== undefined && older.includes(turn);
    this.#set(owner, isStep ? { turn, step: snapshot } : { turn: snapshot, step: older[0] });
    this.#all.add(snapshot);
    this.#bytes += state.byteLength;
    this.#shrink();
  }

  /** The longest of the owner's, the whole of which `prompt` begins with; without a prompt the longest. */
  get(owner: object, prompt?: Int32Array): SequenceState | undefined {
    const found = this.#of(owner).find(({ state }) => prompt === undefined || isProperPrefix(state.tokens, prompt));
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
    for (const snapshot of this.#all) {
      this.#evict(snapshot);
    }
  }

  /** An owner's, the longest first. */
  #of(owner: object): Snapshot[] {
    const { turn, step } = this.#byOwner.get(owner) ?? {};
    return [turn, step]
      .filter((each) => each !== undefined)
      .sort((a, b) => b.state.tokens.length - a.state.tokens.length);
  }

  #set(owner: object, kept: Kept): void {
    const before = this.#of(owner);
    this.#byOwner.set(owner, kept);
    const now = this.#of(owner);
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

  #evict(snapshot: Snapshot): void {
    for (const owner of snapshot.owners) {
      const { turn, step } = this.#byOwner.get(owner) ?? {};
      this.#byOwner.set(owner, {
        turn: turn === snapshot ? undefined : turn,
        step: step === snapshot ? undefined : step,
      });
    }
    snapshot.owners.clear();
    this.#close(snapshot);
  }

  #close(snapshot: Snapshot): void {
    this.#all.delete(snapshot);
    this.#bytes -= snapshot.state.byteLength;
    snapshot.state.close();
  }
}

function isProperPrefix(prefix: Int32Array, tokens: Int32Array): boolean {
  return prefix.length < tokens.length && isPrefix(prefix, tokens);
}
