import type { Sequence } from './sequence.js';

/**
 * The KV cells that a sequence shares. A sequence shares its first cells with its parent. Each fork of the sequence
 * shares first cells with the sequence.
 */
export class SharedCells {
  readonly #sequence: Sequence;
  #parent: SharedCells | undefined;
  #length = 0;
  readonly #forks = new Set<SharedCells>();

  constructor(sequence: Sequence) {
    this.#sequence = sequence;
  }

  /** Number of cells that the sequence shares with its parent. */
  get length(): number {
    return this.#length;
  }

  /** From this position on, no other sequence uses the cells. */
  get end(): number {
    let end = this.#length;
    for (const fork of this.#forks) {
      end = Math.max(end, fork.#length);
    }
    return end;
  }

  /** The groups of cells that the sequence shares with its forks, ascending, and the sequences that use each group. */
  *groups(): Iterable<{ from: number; to: number; holders: Sequence[] }> {
    let from = this.#length;
    for (const to of this.#forkPoints().filter((point) => point > from)) {
      yield { from, to, holders: this.#holdersOf(to) };
      from = to;
    }
  }

  /** Shares the first `length` cells of `parent`, instead of cells of another parent. */
  share(parent: SharedCells | undefined, length: number): void {
    if (this.#parent !== undefined) {
      this.#parent.#forks.delete(this);
    }
    this.#parent = length > 0 ? parent : undefined;
    this.#length = this.#parent === undefined ? 0 : length;
    if (this.#parent !== undefined) {
      this.#parent.#forks.add(this);
    }
  }

  /** Gives the parent and the forks to another sequence, which holds the same tokens now. */
  moveTo(other: SharedCells): void {
    other.share(this.#parent, this.#length);
    for (const fork of [...this.#forks]) {
      fork.share(other, fork.#length);
    }
    this.share(undefined, 0);
  }

  /** Gives up the cells from position `length` on. The forks keep these cells. */
  cut(length: number): void {
    this.#releaseForks(length);
    if (length < this.#length) {
      this.share(this.#parent, length);
    }
  }

  /**
   * Among the forks that share cells from position `length` on, the fork with the most shared cells becomes the parent
   * of the other forks.
   */
  #releaseForks(length: number): void {
    const affected = [...this.#forks].filter((fork) => fork.#length > length);
    const [heir, ...others] = affected.sort((a, b) => b.#length - a.#length);
    if (heir === undefined) {
      return;
    }
    for (const fork of others) {
      fork.share(heir, fork.#length);
    }
    if (length >= this.#length) {
      heir.share(this, length);
    } else {
      heir.share(this.#parent, Math.min(heir.#length, this.#length));
    }
  }

  /** The lengths that forks share with the sequence, directly or through other forks, ascending. */
  #forkPoints(): number[] {
    const points = [...this.#forks].flatMap((fork) => [
      fork.#length,
      ...fork.#forkPoints().map((point) => Math.min(point, fork.#length)),
    ]);
    return [...new Set(points)].sort((a, b) => a - b);
  }

  /** The sequences that share the cell in front of position `end`. */
  #holdersOf(end: number): Sequence[] {
    const forks = [...this.#forks].filter((fork) => fork.#length >= end);
    return [this.#sequence, ...forks.flatMap((fork) => fork.#holdersOf(end))];
  }
}
