import type { SequenceState } from '../native/state.js';

/** A verified state and what is known of it. */
export interface HeldState {
  state: SequenceState;
  /** One for each position: nobody changes it. */
  tokens: Int32Array;
  /** See `groupOf`. */
  group: string;
  /** What it saves. */
  prefillMs: number;
}

/** The memory tier: verified states by key, least recently used out first, within a budget of bytes. */
export class MemoryStore {
  readonly #maxBytes: number;
  readonly #onEvicted: (key: string) => void;
  /** Least recently used first. */
  readonly #states = new Map<string, HeldState>();
  readonly #pinned = new Set<string>();
  #bytes = 0;

  constructor(maxBytes: number, onEvicted: (key: string) => void = () => undefined) {
    this.#maxBytes = maxBytes;
    this.#onEvicted = onEvicted;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#states.size;
  }

  entries(): IterableIterator<[string, HeldState]> {
    return this.#states.entries();
  }

  has(key: string): boolean {
    return this.#states.has(key);
  }

  get(key: string): HeldState | undefined {
    const held = this.#states.get(key);
    if (held !== undefined) {
      this.#states.delete(key);
      this.#states.set(key, held);
    }
    return held;
  }

  /** Takes the state over; false, and the caller keeps it, where there is no room for it or it is already there. */
  put(key: string, held: HeldState): boolean {
    const { byteLength } = held.state;
    if (this.#states.has(key) || !this.#makeRoom(byteLength)) {
      return false;
    }
    this.#states.set(key, held);
    this.#bytes += byteLength;
    return true;
  }

  /** Pinned states are not evicted. The budget holds all the same: where they fill it, others are not kept. */
  setPinned(key: string, pinned: boolean): void {
    if (pinned) {
      this.#pinned.add(key);
    } else {
      this.#pinned.delete(key);
    }
  }

  delete(key: string): void {
    const held = this.#states.get(key);
    if (held !== undefined) {
      this.#states.delete(key);
      this.#bytes -= held.state.byteLength;
      held.state.close();
    }
  }

  clear(): void {
    for (const key of [...this.#states.keys()]) {
      this.delete(key);
    }
  }

  #makeRoom(bytes: number): boolean {
    const evictable = [...this.#states].filter(([key]) => !this.#pinned.has(key));
    const free = evictable.reduce((sum, [, { state }]) => sum + state.byteLength, this.#maxBytes - this.#bytes);
    if (bytes > free) {
      return false;
    }
    for (const [key] of evictable) {
      if (this.#bytes + bytes <= this.#maxBytes) {
        break;
      }
      this.delete(key);
      this.#onEvicted(key);
    }
    return true;
  }
}
