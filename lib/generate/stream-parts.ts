import type { ToolCall } from '../prompt/messages.js';

/** What a turn cost, all its steps together, without summaries; of one that failed or was aborted, up to there. */
export interface Usage {
  /** Tokens in the prompts, the cached ones included. */
  promptTokens: number;
  /** Prompt tokens that were already in the KV cache. */
  cachedTokens: number;
  /** Tokens generated, without those that ended a reply. */
  completionTokens: number;
  /** From the call to the first token, ms. 0 where there was none. */
  firstTokenMs: number;
  /** After the first token of each step, without the time that whoever reads the stream took. 0 where no step had a second one. */
  tokensPerSecond: number;
  /** Replies that the model generated: one, and one more for each round of tool calls and each reply that was asked for again. */
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
  /** The call that it answers. */
  toolCallId: string;
  /** The name of the tool. */
  toolName: string;
  /** What `execute` returned; of a failure, its message. */
  output: unknown;
  /** The tool failed, was refused, ran too long, or was called with wrong arguments. */
  isError: boolean;
}

/** A likely token, with the natural logarithm of its probability before any sampling option. */
export interface LikelyToken {
  /** Its id. */
  token: number;
  /** Its text; U+FFFD for bytes that are part of a character. */
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
  /** Tells it from other parts. */
  type: 'finish';
  /** Why the turn ended. */
  finishReason: FinishReason;
  /** What exactly ended it, where `finishReason` has several causes. */
  detail?: FinishDetail;
  /** What the turn cost, all its steps together. */
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
  /** Tokens of the conversation before, the template included. */
  tokensBefore: number;
  /** Tokens of the conversation after, the template included. */
  tokensAfter: number;
}

/** @internal A piece of a turn that nobody sees part by part: what it said may be asked for again, and is void then. */
export type TurnPart = StreamPart | { type: 'again' };

/** A piece of a turn. */
export type StreamPart =
  /** A piece of the reply. */
  | {
      type: 'text';
      /** Never empty, never part of a character. */
      text: string;
    }
  /** A piece of what the model thinks before it replies. */
  | {
      type: 'reasoning';
      /** Never empty, never part of a character. */
      text: string;
    }
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
  /** Of all steps, in the order in which they came. */
  toolResults: readonly ToolResult[];
  /** Why the turn ended. */
  finishReason: FinishReason;
  /** What exactly ended it, where `finishReason` has several causes. */
  detail?: FinishDetail;
  /** What the turn cost, all its steps together. */
  usage: Usage;
  /** Of the last step's tokens, where {@link SendOptions.logProbabilities} asked for them. */
  logProbabilities?: readonly TokenLogProbabilities[];
  /** With `responseFormat`: the reply, parsed and checked. Absent where the reply was cut off (`finishReason` says so). */
  object?: T;
}
