/** Tokens that were decoded into a sequence in one batch. The sequence still holds the first `keep` of them. */
export interface PrefillChunk {
  from: number;
  tokens: Int32Array;
  keep: number;
}

/**
 * Records the batches in which the tokens of a sequence were decoded. If the logits of a model depend on the batch, the
 * same tokens must be decoded again in the same batches to get the same bits.
 */
export class PrefillLog {
  #chunks: PrefillChunk[] = [];

  /** The recorded batches, in order of position. */
  get chunks(): readonly PrefillChunk[] {
    return [...this.#chunks];
  }

  /** @param tokens the log keeps this array */
  record(from: number, tokens: Int32Array): void {
    this.#chunks.push({ from, tokens, keep: tokens.length });
  }

  /** Records that the sequence was trimmed to `length` tokens. */
  cut(length: number): void {
    this.#chunks = this.#chunks.filter(({ from }) => from < length);
    const last = this.#chunks.at(-1);
    if (last !== undefined && last.from + last.keep > length) {
      this.#chunks[this.#chunks.length - 1] = { ...last, keep: length - last.from };
    }
  }

  /** Records that a state was restored into the sequence, and that its tokens had been decoded in these batches. */
  set(chunks: readonly PrefillChunk[]): void {
    this.#chunks = [...chunks];
  }
}
