/** A run of cells that one or more sequences share, with the number of cells that each of them uses. */
interface Block {
  lengths: Map<number, number>;
  cells: number;
  /** At most this many of the cells are in the sliding-window cache as well. */
  inWindow: number;
}

/**
 * Counts the KV cells in use, because llama.cpp does not report them. Each token takes one cell; forked sequences share the
 * cells of their common head.
 */
export class CellLedger {
  /** The blocks of each sequence, in order of position. */
  readonly #blocks: Block[][];
  /** Tokens appended to each sequence since its blocks were last read. The decode loop only adds here, which is cheap. */
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
   * @param inWindow how many of its cells are in the sliding-window cache as well
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

  /** Records that the empty sequence `target` now shares all cells of `source`. */
  copy(source: number, target: number): void {
    for (const block of this.#of(source)) {
      block.lengths.set(target, block.lengths.get(source) ?? 0);
      this.#of(target).push(block);
    }
  }

  /** Whether some cells belong to this sequence alone, and become free when it is removed. */
  hasOwn(sequence: number): boolean {
    return this.#of(sequence).some(({ lengths }) => lengths.size === 1);
  }

  /** At most this many of the cells that belong to this sequence alone are in the sliding-window cache. */
  ownInWindow(sequence: number): number {
    const own = this.#of(sequence).filter(({ lengths }) => lengths.size === 1);
    return own.reduce((total, { inWindow }) => total + inWindow, 0);
  }

  /** Blocks that several sequences share: their maximum number of cells in the sliding-window cache, and the sequences. */
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
