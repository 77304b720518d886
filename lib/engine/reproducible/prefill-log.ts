/** A piece of a sequence that went into it in one batch, and how many of its tokens are still there. */
export interface PrefillChunk {
  from: number;
  tokens: Int32Array;
  keep: number;
}

/**
 * In which batches each sequence came to what it holds: decoded again in the same ones, it is the same to the bit, where a
 * model's kernels let a result depend on what else is in the batch.
 */
export class PrefillLog {
  readonly #pieces = new Map<number, PrefillChunk[]>();

  record(sequence: number, from: number, tokens: Int32Array): void {
    const pieces = this.#pieces.get(sequence) ?? [];
    pieces.push({ from, tokens, keep: tokens.length });
    this.#pieces.set(sequence, pieces);
  }

  /** The sequence was cut off at `length`. */
  cut(sequence: number, length: number): void {
    const pieces = this.#pieces.get(sequence)?.filter(({ from }) => from < length) ?? [];
    const last = pieces.at(-1);
    if (last !== undefined && last.from + last.keep > length) {
      pieces[pieces.length - 1] = { ...last, keep: length - last.from };
    }
    this.#pieces.set(sequence, pieces);
  }

  of(sequence: number): readonly PrefillChunk[] {
    return [...(this.#pieces.get(sequence) ?? [])];
  }

  /** The sequence holds now what another held that had come to it so. */
  set(sequence: number, pieces: readonly PrefillChunk[]): void {
    this.#pieces.set(sequence, [...pieces]);
  }
}
