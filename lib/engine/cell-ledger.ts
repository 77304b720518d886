/** Cells that one or more sequences hold: how many of them, by sequence. */
interface Block {
  lengths: Map<number, number>;
  cells: number;
  /** How many of them the cache of a sliding window may hold, too: at most. */
  inWindow: number;
}

/**
 * Counts the KV cells in use, as llama.cpp does not tell them: a token is a cell, and sequences that were forked share
 * those of what they have in common.
 */
export class CellLedger {
  /** What each sequence holds, in the order of its positions. */
  readonly #blocks: Block[][];
  /** What each has grown by since anybody looked: between two steps the processor waits, and nobody looks then. */
  readonly #grown: Int32Array;
  #used = 0;

  constructor(maxSequences: number) {
    this.#blocks = Array.from({ length: maxSequences }, () => []);
    this.#grown = new Int32Array(maxSequences);
  }

  get used(): number {
    return this.#used;
  }

  /** Tokens in a sequence. */
  length(sequence: number): number {
    return this.#of(sequence).reduce((total, block) => total + (block.lengths.get(sequence) ?? 0), 0);
  }

  isEmpty(sequence: number): boolean {
    return this.#of(sequence).length === 0;
  }

  /** So many tokens were decoded into a sequence. */
  grow(sequence: number, count: number): void {
    this.#grown[sequence] = (this.#grown[sequence] as number) + count;
    this.#used += count;
  }

  /**
   * A state was put into an empty sequence.
   *
   * @param inWindow how many of its cells the cache of a sliding window holds, too
   */
  restore(sequence: number, count: number, inWindow: number): void {
    this.#append(sequence, this.#of(sequence), count, inWindow);
    this.#used += count;
  }

  /** Cuts a sequence off at `length`. */
  cut(sequence: number, length: number): void {
    const blocks = this.#of(sequence);
    let left = length;
    let kept = 0;
    for (const block of blocks) {
      const own = block.lengths.get(sequence) ?? 0;
      const keep = Math.min(own, left);
      left -= keep;
      if (keep > 0) {
        block.lengths.set(sequence, keep);
        kept++;
      } else {
        block.lengths.delete(sequence);
      }
      if (keep < own) {
        this.#measure(block);
      }
    }
    blocks.length = kept;
  }

  /** `target`, which is empty, shares all of `source`. */
  copy(source: number, target: number): void {
    for (const block of this.#of(source)) {
      block.lengths.set(target, block.lengths.get(source) ?? 0);
      this.#of(target).push(block);
    }
  }

  /** Whether some of its cells are no other's: they come free when it leaves. */
  hasOwn(sequence: number): boolean {
    return this.#of(sequence).some(({ lengths }) => lengths.size === 1);
  }

  /** Of the cells that nobody shares with it: how many the cache of a sliding window may hold. */
  ownInWindow(sequence: number): number {
    const own = this.#of(sequence).filter(({ lengths }) => lengths.size === 1);
    return own.reduce((total, { inWindow }) => total + inWindow, 0);
  }

  /** Of the cells that several sequences hold: how many the cache of a sliding window may hold, and who holds them. */
  *sharedInWindow(): Iterable<{ inWindow: number; holders: number[] }> {
    for (const block of new Set(this.#blocks.flatMap((_, sequence) => this.#of(sequence)))) {
      if (block.lengths.size > 1) {
        yield { inWindow: block.inWindow, holders: [...block.lengths.keys()] };
      }
    }
  }

  #measure(block: Block): void {
    const cells = Math.max(0, ...block.lengths.values());
    this.#used -= block.cells - cells;
    block.cells = cells;
    block.inWindow = Math.min(block.inWindow, cells);
  }

  #of(sequence: number): Block[] {
    const blocks = this.#blocks[sequence] ?? [];
    const grown = this.#grown[sequence] ?? 0;
    if (grown > 0) {
      this.#grown[sequence] = 0;
      this.#append(sequence, blocks, grown, grown);
    }
    return blocks;
  }

  #append(sequence: number, blocks: Block[], count: number, inWindow: number): void {
    const last = blocks.at(-1);
    if (last !== undefined && last.lengths.size === 1) {
      last.lengths.set(sequence, last.cells + count);
      last.cells += count;
      last.inWindow += inWindow;
    } else {
      blocks.push({ lengths: new Map([[sequence, count]]), cells: count, inWindow });
    }
  }
}
