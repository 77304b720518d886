/** A step that also reads prompts takes about so long, so that streams beside them keep flowing. */
const STEP_MS = 250;
const LEAST_PROMPT_TOKENS = 64;
const SECONDS = 10;

/** How fast decodes are: what prompts may take of a batch beside streams, and tokens a second for the statistics. */
export class Pace {
  /** Of prompts, milliseconds a token: a running mean. */
  #promptMs = 0;
  /** Tokens of replies in each of the last seconds, by second. */
  readonly #bySecond = new Map<number, number>();

  /** Most prompt tokens in a batch with streams. */
  promptBudget(batchSize: number): number {
    const tokens = this.#promptMs === 0 ? LEAST_PROMPT_TOKENS : Math.floor(STEP_MS / this.#promptMs);
    return Math.min(batchSize, Math.max(LEAST_PROMPT_TOKENS, tokens));
  }

  /** Tokens of a decode, of which `promptTokens` were of prompts. */
  record(tokens: number, promptTokens: number, ms: number): void {
    if (promptTokens >= LEAST_PROMPT_TOKENS / 2) {
      const each = ms / tokens;
      this.#promptMs = this.#promptMs === 0 ? each : 0.8 * this.#promptMs + 0.2 * each;
    }
    const generated = tokens - promptTokens;
    if (generated > 0) {
      const second = Math.floor(performance.now() / 1000);
      const before = this.#bySecond.get(second);
      this.#bySecond.set(second, (before ?? 0) + generated);
      if (before === undefined) {
        this.#forget(second);
      }
    }
  }

  /** Of prompts, as measured; 0 before the first. */
  get promptMsPerToken(): number {
    return this.#promptMs;
  }

  /** Tokens of replies, a mean of the last ten seconds. */
  tokensPerSecond(): number {
    this.#forget(Math.floor(performance.now() / 1000));
    return [...this.#bySecond.values()].reduce((total, count) => total + count, 0) / SECONDS;
  }

  #forget(second: number): void {
    for (const old of this.#bySecond.keys()) {
      if (old <= second - SECONDS) {
        this.#bySecond.delete(old);
      }
    }
  }
}
