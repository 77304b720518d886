interface Sample {
  tokens: number;
  bytes: number;
}

/**
 * Estimates the size of a state that was not captured yet. The estimate uses earlier states of the same context. The
 * size grows linearly with the tokens, beginning at a fixed size: 0 for attention, the size of the whole state for
 * recurrent memory.
 */
export class StateSizes {
  #shortest: Sample | undefined;
  #longest: Sample | undefined;

  note(tokens: number, bytes: number): void {
    const sample = { tokens, bytes };
    if (this.#shortest === undefined || tokens <= this.#shortest.tokens) {
      this.#shortest = sample;
    }
    if (this.#longest === undefined || tokens >= this.#longest.tokens) {
      this.#longest = sample;
    }
  }

  /** @returns bytes; undefined if the earlier states do not suffice for an estimate */
  expect(tokens: number): number | undefined {
    const [short, long] = [this.#shortest, this.#longest];
    if (short === undefined || long === undefined) {
      return undefined;
    }
    if (short.tokens === long.tokens) {
      return tokens === long.tokens ? long.bytes : undefined;
    }
    const perToken = (long.bytes - short.bytes) / (long.tokens - short.tokens);
    return Math.max(0, Math.ceil(short.bytes + perToken * (tokens - short.tokens)));
  }
}
