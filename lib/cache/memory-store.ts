import { LRUCache } from 'lru-cache';
import type { SequenceState } from '../native/state.js';

/** A template with its verified state. */
export interface StoredTemplate {
  state: SequenceState;
  /** One token for each position. Never changed. */
  tokens: Int32Array;
  /** See `groupOf`. */
  group: string;
  /** Duration of the prefill that this state replaces, ms. */
  prefillMs: number;
}

/** The memory tier: templates by key, within a budget of bytes. The least recently used template is evicted first. */
export class MemoryStore {
  readonly #maxBytes: number;
  readonly #onEvicted: (key: string) => void;
  readonly #templates = new LRUCache<string, StoredTemplate>({
    maxSize: Number.MAX_SAFE_INTEGER, // `put` enforces the budget, because pinned templates must not be evicted
    sizeCalculation: ({ state }) => state.byteLength,
    dispose: ({ state }) => state.close(),
  });
  readonly #pinned = new Set<string>();

  constructor(maxBytes: number, onEvicted: (key: string) => void = () => undefined) {
    this.#maxBytes = maxBytes;
    this.#onEvicted = onEvicted;
  }

  get bytes(): number {
    return this.#templates.calculatedSize;
  }

  get count(): number {
    return this.#templates.size;
  }

  /** All templates, beginning with the least recently used. */
  entries(): [string, StoredTemplate][] {
    const entries: [string, StoredTemplate][] = [];
    this.#templates.rforEach((template, key) => entries.push([key, template]));
    return entries;
  }

  has(key: string): boolean {
    return this.#templates.has(key);
  }

  get(key: string): StoredTemplate | undefined {
    return this.#templates.get(key);
  }

  /**
   * Stores a template and takes ownership of its state.
   *
   * @returns false if the template does not fit or is already stored; the caller then still owns the state
   */
  put(key: string, template: StoredTemplate): boolean {
    if (this.#templates.has(key) || !this.#makeSpace(template.state.byteLength)) {
      return false;
    }
    this.#templates.set(key, template);
    return true;
  }

  /** Pinned templates are not evicted. They count against the budget: if they fill it, no other template is kept. */
  setPinned(key: string, pinned: boolean): void {
    if (pinned) {
      this.#pinned.add(key);
    } else {
      this.#pinned.delete(key);
    }
  }

  delete(key: string): void {
    this.#templates.delete(key);
  }

  clear(): void {
    this.#templates.clear();
  }

  #makeSpace(bytes: number): boolean {
    const evictable = this.entries().filter(([key]) => !this.#pinned.has(key));
    const free = evictable.reduce((sum, [, { state }]) => sum + state.byteLength, this.#maxBytes - this.bytes);
    if (bytes > free) {
      return false;
    }
    for (const [key] of evictable) {
      if (this.bytes + bytes <= this.#maxBytes) {
        break;
      }
      this.delete(key);
      this.#onEvicted(key);
    }
    return true;
  }
}
