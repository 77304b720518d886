/** A step that also reads prompts takes about so long, so that streams beside them keep flowing. */
const STEP_MS = 250;
const LEAST_PROMPT_TOKENS = 64;
const SECONDS = 10;

/** How fast decodes are: what prompts may take of a batch beside streams, and tokens a second for the statistics. */
export class Throughput {
  /** Of prompts, milliseconds a token: a running mean. */
  #promptMs = 0;
  /** Tokens of replies in each of the last seconds: a ring, by second. */
  readonly #bySecond = new Float64Array(SECONDS);
  /** The newest second in it. */
  #second = 0;

  /** Most prompt tokens in a batch with streams. */
  promptBudget(batchSize: number): number {
    const tokens = this.#promptMs === 0 ? LEAST_PROMPT_TOKENS : Math.floor(STEP_MS / this.#promptMs);
    return Math.min(batchSize, Math.max(LEAST_PROMPT_TOKENS, tokens));
  }

  /** Tokens of a decode that ended at `now` (of `performance.now()`), of which `promptTokens` were of prompts. */
  record(tokens: number, promptTokens: number, ms: number, now: number): void {
    if (promptTokens >= LEAST_PROMPT_TOKENS / 2) {
      const each = ms / tokens;
      this.#promptMs = this.#promptMs === 0 ? each : 0.8 * this.#promptMs + 0.2 * each;
    }
    this.#moveTo(now);
    const index = this.#second % SECONDS;
    this.#bySecond[index] = (this.#bySecond[index] as number) + tokens - promptTokens;
  }

  /** Of prompts, as measured; 0 before the first. */
  get promptMsPerToken(): number {
    return this.#promptMs;
  }

  /** Tokens of replies, a mean of the last ten seconds. */
  tokensPerSecond(): number {
    this.#moveTo(performance.now());
    return this.#bySecond.reduce((total, count) => total + count, 0) / SECONDS;
  }

  /** What is older than the last ten seconds goes. */
  #moveTo(now: number): void {
    const second = Math.floor(now / 1000);
    if (second > this.#second) {
      const oldest = Math.max(this.#second + 1, second - SECONDS + 1);
      for (let each = oldest; each <= second; each++) {
        this.#bySecond[each % SECONDS] = 0;
      }
      this.#second = second;
    }
  }
}
