import type { Usage } from './stream-parts.js';

/** Adds up what the steps of a turn cost, as it is spent: one that fails or is aborted has cost something too. */
export class UsageCounter {
  readonly #begin = performance.now();
  #promptTokens = 0;
  #cachedTokens = 0;
  #completionTokens = 0;
  #firstTokenMs = 0;
  #followingTokens = 0;
  #followingMs = 0;
  #steps = 1;

  /** A step's prompt is about to be read. */
  prompt(tokens: number, cachedTokens: number): void {
    this.#promptTokens += tokens;
    this.#cachedTokens += cachedTokens;
  }

  /** A token was chosen, though it be one that ends the reply. */
  chosen(): void {
    this.#firstTokenMs ||= performance.now() - this.#begin;
  }

  /**
   * A token was added to the reply.
   *
   * @param ms how long it was waited for; undefined for the first of a step, which the prompt's reading is part of
   */
  token(ms: number | undefined): void {
    this.#completionTokens++;
    if (ms !== undefined) {
      this.#followingTokens++;
      this.#followingMs += ms;
    }
  }

  nextStep(): void {
    this.#steps++;
  }

  total(): Usage {
    return {
      promptTokens: this.#promptTokens,
      cachedTokens: this.#cachedTokens,
      completionTokens: this.#completionTokens,
      firstTokenMs: this.#firstTokenMs,
      tokensPerSecond: this.#followingMs > 0 ? (this.#followingTokens * 1000) / this.#followingMs : 0,
      steps: this.#steps,
    };
  }
}
