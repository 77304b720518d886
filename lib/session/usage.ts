import type { Generated } from './generate.js';
import type { Usage } from './parts.js';

/** Adds up what the steps of a turn cost. */
export class UsageCounter {
  readonly #begin = performance.now();
  #promptTokens = 0;
  #cachedTokens = 0;
  #completionTokens = 0;
  #firstTokenMs = 0;
  #followingTokens = 0;
  #generationMs = 0;
  #steps = 1;

  /** A token was chosen. */
  readonly token = (): void => {
    this.#firstTokenMs ||= performance.now() - this.#begin;
  };

  add(promptTokens: number, { cachedTokens, tokens, generationMs }: Generated): void {
    this.#promptTokens += promptTokens;
    this.#cachedTokens += cachedTokens;
    this.#completionTokens += tokens;
    this.#followingTokens += Math.max(0, tokens - 1);
    this.#generationMs += generationMs;
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
      tokensPerSecond: this.#followingTokens > 0 ? (this.#followingTokens * 1000) / this.#generationMs : 0,
      steps: this.#steps,
    };
  }
}
