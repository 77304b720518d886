/**
 * The cost of a turn or completion, added up over its steps. Summaries of compactions are not counted. A turn that
 * fails or is aborted reports its cost up to that point.
 */
export interface Usage {
  /** Tokens in the prompts, including the cached tokens. */
  inputTokens: number;
  /** Prompt tokens that were not prefilled, because their KV state was in the KV cache or was restored. */
  cachedInputTokens: number;
  /** Generated tokens, including reasoning, but without the tokens that ended a reply. */
  outputTokens: number;
  /**
   * Generated tokens that belong to reasoning. The markup that opens the reasoning is counted. The markup that closes
   * the reasoning is not counted.
   */
  reasoningTokens: number;
  /** Time from the call to the first token, in ms. 0 if there was no token. */
  firstTokenMs: number;
  /**
   * Generated tokens per second, after the first token of each step. Pauses for a slow reader are not counted. 0 if no
   * step had a second token.
   */
  tokensPerSecond: number;
  /**
   * Number of replies that the model generated: one, plus one for each round of tool calls, plus one for each reply
   * that was requested again because it did not match `responseFormat`.
   */
  steps: number;
}
