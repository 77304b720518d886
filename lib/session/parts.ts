import type { ToolCall } from '../template/messages.js';

/** What a turn cost, all its steps together. */
export interface Usage {
  /** Tokens in the prompts, the cached ones included. */
  promptTokens: number;
  /** Prompt tokens that were already in the KV cache. */
  cachedTokens: number;
  /** Tokens generated, without those that ended a reply. */
  completionTokens: number;
  /** From the call to the first token, ms. 0 where there was none. */
  firstTokenMs: number;
  /** After the first token of each step. */
  tokensPerSecond: number;
  /** Replies that the model generated: one, and one more for each round of tool calls. */
  steps: number;
}

/**
 * Why generation ended: `stop`, the model or a stop string said so; `length`, `maxTokens`, the context's size or the
 * repetition guard; `tool-calls`, the caller has to answer them, or `maxSteps` was reached; `aborted`, a signal or
 * `timeoutMs`; `error`, what the stream throws next.
 */
export type FinishReason = 'stop' | 'length' | 'tool-calls' | 'aborted' | 'error';

/** What exactly ended it, where {@link FinishReason} has several causes. */
export type FinishDetail = 'stop-string' | 'max-tokens' | 'context' | 'repetition' | 'timeout' | 'max-steps';

/** What a tool returned, as the model is told. */
export interface ToolResult {
  toolCallId: string;
  toolName: string;
  /** What `execute` returned; of a failure, its message. */
  output: unknown;
  /** The tool failed, was refused, ran too long, or was called with wrong arguments. */
  isError: boolean;
}

/** A likely token, with the natural logarithm of its probability before any sampling option. */
export interface LikelyToken {
  token: number;
  text: string;
  /** -Infinity where it is not among the 100 likeliest. */
  logProbability: number;
}

/** A token of the reply, and the likeliest ones in its place. */
export interface TokenLogProbabilities extends LikelyToken {
  /** Likeliest first. */
  likely: readonly LikelyToken[];
}

/** The end of a turn; always the last part. */
export interface FinishPart {
  type: 'finish';
  finishReason: FinishReason;
  detail?: FinishDetail;
  usage: Usage;
  /** Of the last step's tokens, where {@link SendOptions.logProbabilities} asked for them. */
  logProbabilities?: readonly TokenLogProbabilities[];
  /** With `responseFormat`: the reply, parsed and checked. */
  object?: unknown;
}

/** What a compaction came to. */
export interface CompactionReport {
  /** What the model wrote of the older turns. */
  summary: string;
  /** Messages that the summary stands for. */
  replacedMessages: number;
  /** Tokens of the conversation before and after, the template included. */
  tokensBefore: number;
  tokensAfter: number;
}

/** A piece of a turn. */
export type StreamPart =
  /** A piece of the reply. */
  | { type: 'text'; text: string }
  /** A piece of what the model thinks before it replies. */
  | { type: 'reasoning'; text: string }
  | ({ type: 'tool-call' } & ToolCall)
  | ({ type: 'tool-result' } & ToolResult)
  /** Before the reply, or before one of its steps, older turns or steps were replaced by a summary. */
  | ({ type: 'compaction' } & CompactionReport)
  | FinishPart;

/** A whole turn. */
export interface Reply<T = unknown> {
  /** The last step's text. */
  text: string;
  /** The last step's reasoning. */
  reasoning: string;
  /** Of all steps, in order. Those without a result wait for the caller's. */
  toolCalls: readonly ToolCall[];
  toolResults: readonly ToolResult[];
  finishReason: FinishReason;
  detail?: FinishDetail;
  usage: Usage;
  logProbabilities?: readonly TokenLogProbabilities[];
  /** With `responseFormat`: the reply, parsed and checked. Absent where the reply was cut off (`finishReason` says so). */
  object?: T;
}
