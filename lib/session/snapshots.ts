import type { SequenceState } from '../native/state.js';

/** All snapshots of an agent together, in bytes. */
const DEFAULT_BYTES = 128 * 1024 ** 2;

/**
 * The newest snapshot of each conversation that has one, within a budget for all of them: the least recently used goes
 * first. A snapshot only saves work, so none is ever missed.
 */
export class Snapshots {
  readonly #maxBytes: number;
  /** Least recently used first. */
  readonly #held = new Map<object, SequenceState>();
  /** Whose snapshots are too large for the budget: not tried again. */
  readonly #tooLarge = new WeakSet<object>();
  #bytes = 0;

  constructor(maxBytes = DEFAULT_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** Whether a capture for `owner` could be kept at all. */
  wanted(owner: object): boolean {
    return this.#maxBytes > 0 && !this.#tooLarge.has(owner);
  }

  /** Takes over `state`; the owner's older one goes. */
  put(owner: object, state: SequenceState): void {
    this.drop(owner);
    if (state.byteLength > this.#maxBytes) {
      this.#tooLarge.add(owner);
      state.close();
      return;
    }
    this.#held.set(owner, state);
    this.#bytes += state.byteLength;
    for (const oldest of this.#held.keys()) {
      if (this.#bytes <= this.#maxBytes) {
        break;
      }
      this.drop(oldest);
    }
  }

  get(owner: object): SequenceState | undefined {
    const state = this.#held.get(owner);
    if (state !== undefined) {
      this.#held.delete(owner);
      this.#held.set(owner, state);
    }
    return state;
  }

  drop(owner: object): void {
    const state = this.#held.get(owner);
    if (state !== undefined) {
      this.#held.delete(owner);
      this.#bytes -= state.byteLength;
      state.close();
    }
  }

  /** Drops all: what the model computes has changed. */
  clear(): void {
    for (const owner of [...this.#held.keys()]) {
      this.drop(owner);
    }
  }
}
