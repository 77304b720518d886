import type { Usage } from '../usage.js';

/** Adds up the cost of a turn's steps while they run, so that even a failed or aborted turn can report its cost. */
export class UsageCounter {
  readonly #begin = performance.now();
  #inputTokens = 0;
  #cachedInputTokens = 0;
  #outputTokens = 0;
  #reasoningTokens = 0;
  #firstTokenMs = 0;
  #followingTokens = 0;
  #followingMs = 0;
  #steps = 1;

  /** Counts a prompt that is about to be prefilled. */
  prompt(tokens: number, cachedTokens: number): void {
    this.#inputTokens += tokens;
    this.#cachedInputTokens += cachedTokens;
  }

  /** Call this when a token was sampled, even if the token ends the reply. */
  sampled(): void {
    this.#firstTokenMs ||= performance.now() - this.#begin;
  }

  /**
   * Counts a token of the reply.
   *
   * @param ms how long the token took. Undefined for the first token of a step, because its time includes the prefill.
   */
  token(ms: number | undefined): void {
    this.#outputTokens++;
    if (ms !== undefined) {
      this.#followingTokens++;
      this.#followingMs += ms;
    }
  }

  /** Tokens generated so far. */
  get outputTokens(): number {
    return this.#outputTokens;
  }

  /** Counts tokens of reasoning. {@link token} has already counted them as output. */
  reasoning(tokens: number): void {
    this.#reasoningTokens += tokens;
  }

  nextStep(): void {
    this.#steps++;
  }

  total(): Usage {
    return {
      inputTokens: this.#inputTokens,
      cachedInputTokens: this.#cachedInputTokens,
      outputTokens: this.#outputTokens,
      reasoningTokens: this.#reasoningTokens,
      firstTokenMs: this.#firstTokenMs,
      tokensPerSecond: this.#followingMs > 0 ? (this.#followingTokens * 1000) / this.#followingMs : 0,
      steps: this.#steps,
    };
  }
}
