import type { SequenceState } from '../native/state.js';

/** The memory tier: verified states by key, least recently used out first, within a budget of bytes. */
export class MemoryStore {
  readonly #maxBytes: number;
  /** Least recently used first. */
  readonly #states = new Map<string, SequenceState>();
  readonly #tokenCounts = new Map<string, number>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#states.size;
  }

  /** Of each state held, by key. */
  tokenCounts(): ReadonlyMap<string, number> {
    return this.#tokenCounts;
  }

  get(key: string): SequenceState | undefined {
    const state = this.#states.get(key);
    if (state !== undefined) {
      this.#states.delete(key);
      this.#states.set(key, state);
    }
    return state;
  }

  /** Takes the state over; false, and the caller keeps it, where it is larger than the whole budget or already there. */
  put(key: string, state: SequenceState): boolean {
    if (state.byteLength > this.#maxBytes || this.#states.has(key)) {
      return false;
    }
    this.#states.set(key, state);
    this.#tokenCounts.set(key, state.tokens.length);
    this.#bytes += state.byteLength;
    for (const [oldest] of this.#states) {
      if (this.#bytes <= this.#maxBytes) {
        break;
      }
      this.delete(oldest);
    }
    return true;
  }

  delete(key: string): void {
    const state = this.#states.get(key);
    if (state !== undefined) {
      this.#states.delete(key);
      this.#tokenCounts.delete(key);
      this.#bytes -= state.byteLength;
      state.close();
    }
  }

  clear(): void {
    for (const key of [...this.#states.keys()]) {
      this.delete(key);
    }
  }
}
