import { LRUCache } from 'lru-cache';
import { prefixHashes } from './prefix-hash.js';

/** Shorter shared beginnings are not remembered. */
const MIN_BRANCH_LENGTH = 256;

const MAX_GROUPS = 64;
const MAX_POINTS = 256;

/**
 * The places at which prompts have branched off from earlier prompts. If the memory cannot be trimmed, a later prefill
 * is cut at such a place, and a checkpoint is kept there. The least recently used places are forgotten.
 */
export class BranchPoints {
  /** For each key group: the length of each shared beginning, by its length and hash. */
  readonly #groups = new LRUCache<string, LRUCache<string, number>>({ max: MAX_GROUPS });

  /** Remembers that a prompt shared only its first `length` tokens with an earlier prompt. */
  note(group: string, prompt: Int32Array, length: number): void {
    if (length >= MIN_BRANCH_LENGTH) {
      const points = this.#groups.get(group) ?? new LRUCache<string, number>({ max: MAX_POINTS });
      points.set(keyOf(length, prefixHashes(prompt.subarray(0, length))), length);
      this.#groups.set(group, points);
    }
  }

  /** The lengths at which other prompts branched off from this beginning, ascending. */
  in(group: string, prompt: Int32Array): number[] {
    const points = this.#groups.get(group);
    if (points === undefined) {
      return [];
    }
    const hashes = prefixHashes(prompt);
    const found = [...points].filter(([key, length]) => length <= prompt.length && key === keyOf(length, hashes));
    for (const [key] of found) {
      points.get(key); // counts as a use
    }
    return found.map(([, length]) => length).sort((a, b) => a - b);
  }
}

const keyOf = (length: number, hashes: Uint32Array) => `${length} ${hashes[length]}`;
