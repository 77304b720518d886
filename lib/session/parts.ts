export interface SendOptions {
  /** Most tokens to generate. @default what the context has room for */
  maxTokens?: number;
  /** Takes effect between two decodes; the session can be used again. */
  signal?: AbortSignal;
}

/** What a turn cost. */
export interface Usage {
  /** Tokens in the prompt, the cached ones included. */
  promptTokens: number;
  /** Prompt tokens that were already in the KV cache. */
  cachedTokens: number;
  /** Tokens generated, without the one that ended it. */
  completionTokens: number;
  /** From the call to the first token, ms. */
  firstTokenMs: number;
  /** After the first token. */
  tokensPerSecond: number;
}

/** Why generation ended: `stop`, the model said so; `length`, `maxTokens` or the context's size. */
export type FinishReason = 'stop' | 'length';

/** A piece of a reply. */
export type StreamPart = { type: 'text'; text: string } | { type: 'finish'; reason: FinishReason; usage: Usage };

/** A whole reply. */
export interface Reply {
  text: string;
  finishReason: FinishReason;
  usage: Usage;
}
