/** Consecutive cells that one or more sequences use. */
interface Block {
  /** For each sequence: how many of the cells it uses, counted from the first. */
  lengths: Map<number, number>;
  cells: number;
  /** Maximum number of these cells that are also in the sliding-window cache. */
  inWindow: number;
}

/**
 * Counts the KV cells in use, because llama.cpp does not report them. Each token takes one cell. Forked sequences share
 * the cells of their common prefix.
 */
export class CellLedger {
  /** The blocks of each sequence, in order of position. */
  readonly #blocks: Block[][];
  /**
   * Tokens appended to each sequence since its blocks were last read. Adding to this number is cheap enough for each
   * decode.
   */
  readonly #grown: Int32Array;
  #used = 0;

  constructor(maxSequences: number) {
    this.#blocks = Array.from({ length: maxSequences }, () => []);
    this.#grown = new Int32Array(maxSequences);
  }

  get used(): number {
    return this.#used;
  }

  /** The number of tokens in a sequence. */
  length(sequence: number): number {
    return this.#of(sequence).reduce((total, block) => total + (block.lengths.get(sequence) ?? 0), 0);
  }

  isEmpty(sequence: number): boolean {
    return this.#of(sequence).length === 0;
  }

  /** Records that `count` tokens were decoded into a sequence. */
  grow(sequence: number, count: number): void {
    this.#grown[sequence] = (this.#grown[sequence] as number) + count;
    this.#used += count;
  }

  /**
   * Records that a state was restored into an empty sequence.
   *
   * @param inWindow how many of its cells are also in the sliding-window cache
   */
  restore(sequence: number, count: number, inWindow: number): void {
    this.#append(sequence, this.#of(sequence), count, inWindow);
    this.#used += count;
  }

  /** Records that a sequence was trimmed to `length` tokens. */
  cut(sequence: number, length: number): void {
    const blocks = this.#of(sequence);
    let left = length;
    let kept = 0;
    for (const block of blocks) {
      const before = block.lengths.get(sequence) ?? 0;
      const keep = Math.min(before, left);
      left -= keep;
      if (keep > 0) {
        block.lengths.set(sequence, keep);
        kept++;
      } else {
        block.lengths.delete(sequence);
      }
      if (keep < before) {
        this.#measure(block);
      }
    }
    blocks.length = kept;
  }

  /** Records that the empty sequence `target` now shares all cells of `source`. */
  copy(source: number, target: number): void {
    for (const block of this.#of(source)) {
      block.lengths.set(target, block.lengths.get(source) ?? 0);
      this.#of(target).push(block);
    }
  }

  /** Whether this sequence alone uses some cells, which become free when it is removed. */
  hasUnshared(sequence: number): boolean {
    return this.#of(sequence).some(({ lengths }) => lengths.size === 1);
  }

  /** Maximum number of cells in the sliding-window cache that this sequence alone uses. */
  unsharedInWindow(sequence: number): number {
    const unshared = this.#of(sequence).filter(({ lengths }) => lengths.size === 1);
    return unshared.reduce((total, { inWindow }) => total + inWindow, 0);
  }

  /**
   * All blocks that several sequences share: the maximum number of their cells in the sliding-window cache, and the
   * sequences.
   */
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
