/** Tokens that were decoded into a sequence in one batch. The sequence still holds the first `keep` of them. */
export interface PrefillChunk {
  from: number;
  tokens: Int32Array;
  keep: number;
}

/**
 * Records the batches in which the tokens of each sequence were decoded. If the logits of a model depend on the batch,
 * the same tokens must be decoded again in the same batches to get the same bits.
 */
export class PrefillLog {
  readonly #chunks = new Map<number, PrefillChunk[]>();

  record(sequence: number, from: number, tokens: Int32Array): void {
    const chunks = this.#chunks.get(sequence) ?? [];
    chunks.push({ from, tokens, keep: tokens.length });
    this.#chunks.set(sequence, chunks);
  }

  /** Records that the sequence was trimmed to `length` tokens. */
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

  /** Records that a state was restored into the sequence, and that its tokens had been decoded in these chunks. */
  set(sequence: number, chunks: readonly PrefillChunk[]): void {
    this.#chunks.set(sequence, [...chunks]);
  }
}
