/** Tokens that went into a sequence in one batch. The first `keep` of them are still there. */
export interface PrefillChunk {
  from: number;
  tokens: Int32Array;
  keep: number;
}

/**
 * Records in which batches each sequence was decoded. If a model's results depend on the batch, decoding the same tokens again
 * in the same batches gives the same bits.
 */
export class PrefillLog {
  readonly #chunks = new Map<number, PrefillChunk[]>();

  record(sequence: number, from: number, tokens: Int32Array): void {
    const chunks = this.#chunks.get(sequence) ?? [];
    chunks.push({ from, tokens, keep: tokens.length });
    this.#chunks.set(sequence, chunks);
  }

  /** The sequence was trimmed to `length` tokens. */
  cut(sequence: number, length: number): void {
    const chunks = this.#chunks.get(sequence)?.filter(({ from }) => from < length) ?? [];
    const last = chunks.at(-1);
    if (last !== undefined && last.from + last.keep > length) {
      chunks[chunks.length - 1] = { ...last, keep: length - last.from };
    }
    this.#chunks.set(sequence, chunks);
  }

  of(sequence: number): readonly PrefillChunk[] {
    return [...(this.#chunks.get(sequence) ?? [])];
  }

  /** The sequence now holds a restored state whose tokens were decoded in these chunks. */
  set(sequence: number, chunks: readonly PrefillChunk[]): void {
    this.#chunks.set(sequence, [...chunks]);
  }
}
