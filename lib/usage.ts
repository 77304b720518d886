/**
 * What a turn cost, added up over its steps. Summaries are not counted. If the turn failed or was aborted, this is the
 * cost up to then.
 */
export interface Usage {
  /** Tokens in the prompts, the cached ones included. */
  inputTokens: number;
  /** Prompt tokens that were already in the KV cache. */
  cachedInputTokens: number;
  /** Generated tokens, the reasoning included, without the tokens that ended a reply. */
  outputTokens: number;
  /** Generated tokens that belong to reasoning. The markup that opens a thought is counted, the markup that closes it is not. */
  reasoningTokens: number;
  /** From the call to the first token, ms. 0 if there was none. */
  firstTokenMs: number;
  /**
   * Generated tokens per second after the first token of each step. Pauses for a slow
   * reader are left out. 0 if no step had a second token.
   */
  tokensPerSecond: number;
  /** Replies that the model generated: one, one more for each round of tool calls, and one more for each reply that was requested again. */
  steps: number;
}
