/**
 * Target duration of a decode with tokens of replies and prompts, in ms. The target is short, so that the replies
 * stream smoothly.
 */
const STEP_MS = 250;
const MIN_PROMPT_TOKENS = 64;
const SECONDS = 10;

/**
 * Measures the decode speed. The measured speed limits the prompt tokens in batches that also contain tokens of
 * replies. Also counts reply tokens per second.
 */
export class Throughput {
  /** Milliseconds per prompt token, a running mean; 0 until measured. */
  #promptMs = 0;
  /** Reply tokens in each of the last seconds: a ring buffer, indexed by second. */
  readonly #bySecond = new Float64Array(SECONDS);
  /** The newest second in the ring buffer. */
  #second = 0;

  /** The maximum number of prompt tokens in a batch that also contains tokens of replies. */
  promptBudget(batchSize: number): number {
    const tokens = this.#promptMs === 0 ? MIN_PROMPT_TOKENS : Math.floor(STEP_MS / this.#promptMs);
    return Math.min(batchSize, Math.max(MIN_PROMPT_TOKENS, tokens));
  }

  /**
   * Records one decode.
   *
   * @param tokens number of tokens in the batch
   * @param promptTokens number of these tokens that belong to prompts
   * @param ms duration of the decode
   * @param now when the decode ended, from `performance.now()`
   */
  record(tokens: number, promptTokens: number, ms: number, now: number): void {
    if (promptTokens >= MIN_PROMPT_TOKENS / 2) {
      const msPerToken = ms / tokens;
      this.#promptMs = this.#promptMs === 0 ? msPerToken : 0.8 * this.#promptMs + 0.2 * msPerToken;
    }
    this.#advanceTo(now);
    const index = this.#second % SECONDS;
    this.#bySecond[index] = (this.#bySecond[index] as number) + tokens - promptTokens;
  }

  /** Measured milliseconds per prompt token; 0 before the first measurement. */
  get promptMsPerToken(): number {
    return this.#promptMs;
  }

  /** Reply tokens per second, averaged over the last ten seconds. */
  tokensPerSecond(): number {
    this.#advanceTo(performance.now());
    return this.#bySecond.reduce((total, count) => total + count, 0) / SECONDS;
  }

  /** Clears the counts of seconds that are no longer among the last ten. */
  #advanceTo(now: number): void {
    const newest = Math.floor(now / 1000);
    if (newest > this.#second) {
      const oldest = Math.max(this.#second + 1, newest - SECONDS + 1);
      for (let second = oldest; second <= newest; second++) {
        this.#bySecond[second % SECONDS] = 0;
      }
      this.#second = newest;
    }
  }
}
