import type { CacheReport } from '../cache/cache-report.js';
import type { ToolCall } from '../prompt/messages.js';
import type { Usage } from '../usage.js';

/**
 * Why generation ended:
 * - `stop`: the model or a stop string ended the reply.
 * - `length`: `maxTokens`, the context size or the repetition guard ended the reply.
 * - `tool-calls`: the caller has to answer the calls, or `maxSteps` was reached.
 * - `aborted`: `timeoutMs` passed. The reply is the text that was generated in this time.
 */
export type FinishReason = 'stop' | 'length' | 'tool-calls' | 'aborted';

/** The exact cause, if the {@link FinishReason} has several possible causes. */
export type FinishDetail = 'stop-string' | 'max-tokens' | 'context' | 'repetition' | 'timeout' | 'max-steps';

/** The result of a tool call, as the model receives it. */
export interface ToolResult {
  /** The id of the call. */
  toolCallId: string;
  /** The name of the tool. */
  toolName: string;
  /** The value that `execute` returned, or the error message if `isError` is true. */
  output: unknown;
  /** Whether the call failed, was refused, took too long, or had wrong arguments. */
  isError: boolean;
}

/** A likely token, with the natural logarithm of its probability before any sampling option. */
export interface LikelyToken {
  /** The token's id. */
  token: number;
  /** The token's text. U+FFFD replaces bytes that are only a part of a character. */
  text: string;
  /** The logarithm. -Infinity if the token is not among the 100 most likely tokens. */
  logProbability: number;
}

/** A token of the reply, and the most likely tokens at its position. */
export interface TokenLogProbabilities extends LikelyToken {
  /** The most likely tokens, the most likely one first. */
  likely: readonly LikelyToken[];
}

/** The end of a turn. Always the last part of its stream. */
export interface FinishPart {
  /** Distinguishes this part from other parts. */
  type: 'finish';
  /** Why the turn ended. */
  finishReason: FinishReason;
  /** The exact cause, if `finishReason` has several possible causes. */
  detail?: FinishDetail;
  /** With the detail `stop-string`: the stop string that ended the reply. */
  stopString?: string;
  /** The cost of the turn, added up over its steps. */
  usage: Usage;
  /** What the first prompt of the turn reused, and why not more. */
  cache: CacheReport;
  /** The log-probabilities of the last step's tokens, if the option `logProbabilities` is set. */
  logProbabilities?: readonly TokenLogProbabilities[];
  /** With `responseFormat`: the parsed and checked reply. */
  object?: unknown;
}

/** The result of a compaction. */
export interface CompactionReport {
  /** The model's summary of the older turns. */
  summary: string;
  /** The number of messages that the summary replaces. */
  replacedMessages: number;
  /** Tokens of the conversation before the compaction, including the template. */
  tokensBefore: number;
  /** Tokens of the conversation after the compaction, including the template. */
  tokensAfter: number;
}

/**
 * A part of a turn, streamed while the turn runs.
 *
 * Each `tool-call` comes after its `tool-input-start` and at least one `tool-input-delta`. A `tool-input-start` may
 * have no `tool-call`. The reason: the reply was cut off or aborted inside the call, or more text showed that it was no
 * call.
 */
export type StreamPart =
  /** A piece of the reply. */
  | {
      type: 'text-delta';
      /** One or more whole characters. */
      text: string;
    }
  /** A piece of the model's reasoning in front of the reply. */
  | {
      type: 'reasoning-delta';
      /** One or more whole characters. */
      text: string;
    }
  /** The model begins to write a tool call. */
  | {
      type: 'tool-input-start';
      /** The id that the call's `tool-call` part will have. */
      toolCallId: string;
      /** The name of the tool. */
      toolName: string;
    }
  /** The model wrote more of the arguments of a tool call. */
  | {
      type: 'tool-input-delta';
      /** The id in the call's `tool-input-start`. */
      toolCallId: string;
      /**
       * A non-empty piece of the arguments' JSON text. All pieces of a call together are the JSON text of the call's
       * `input`.
       */
      delta: string;
    }
  | ({ type: 'tool-call' } & ToolCall)
  | ({ type: 'tool-result' } & ToolResult)
  /** A summary replaced older turns or steps. This happens before the turn's first step or between two steps. */
  | ({ type: 'compaction' } & CompactionReport)
  | FinishPart;

/** A whole turn. */
export interface Reply<T = unknown> {
  /** The text of the last step. */
  text: string;
  /** The reasoning of the last step. */
  reasoning: string;
  /** The calls of all steps, in order. The caller has to answer the calls that have no result. */
  toolCalls: readonly ToolCall[];
  /** The results of all steps, in the order in which the tools returned them. */
  toolResults: readonly ToolResult[];
  /** Why the turn ended. */
  finishReason: FinishReason;
  /** The exact cause, if `finishReason` has several possible causes. */
  detail?: FinishDetail;
  /** With the detail `stop-string`: the stop string that ended the reply. */
  stopString?: string;
  /** The cost of the turn, added up over its steps. */
  usage: Usage;
  /** What the first prompt of the turn reused, and why not more. */
  cache: CacheReport;
  /** The log-probabilities of the last step's tokens, if the option `logProbabilities` is set. */
  logProbabilities?: readonly TokenLogProbabilities[];
  /** With `responseFormat`: the parsed and checked reply. Absent if the reply was cut off (see `finishReason`). */
  object?: T;
}
