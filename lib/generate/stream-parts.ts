import type { ToolCall } from '../prompt/messages.js';
import type { Usage } from '../usage.js';

/**
 * Why generation ended:
 * - `stop`: the model ended its reply, or a stop string did.
 * - `length`: `maxTokens`, the context size or the repetition guard ended it.
 * - `tool-calls`: the caller has to answer the calls, or `maxSteps` was reached.
 * - `aborted`: `timeoutMs` passed. The reply is the text up to then.
 */
export type FinishReason = 'stop' | 'length' | 'tool-calls' | 'aborted';

/** The exact cause, if {@link FinishReason} has several. */
export type FinishDetail = 'stop-string' | 'max-tokens' | 'context' | 'repetition' | 'timeout' | 'max-steps';

/** The result of a tool call, as the model receives it. */
export interface ToolResult {
  /** The id of the call. */
  toolCallId: string;
  /** The name of the tool. */
  toolName: string;
  /** The value that `execute` returned, or the error message if `isError` is true. */
  output: unknown;
  /** Whether the tool failed, was refused, ran too long, or was called with wrong arguments. */
  isError: boolean;
}

/** A likely token, with the natural logarithm of its probability before any sampling option. */
export interface LikelyToken {
  /** Its id. */
  token: number;
  /** Its text; U+FFFD for bytes that are part of a character. */
  text: string;
  /** -Infinity if the token is not among the 100 most likely. */
  logProbability: number;
}

/** A token of the reply, and the most likely tokens in its place. */
export interface TokenLogProbabilities extends LikelyToken {
  /** Most likely first. */
  likely: readonly LikelyToken[];
}

/** The end of a turn; always the last part. */
export interface FinishPart {
  /** Distinguishes this part from others. */
  type: 'finish';
  /** Why the turn ended. */
  finishReason: FinishReason;
  /** The exact cause, if `finishReason` has several. */
  detail?: FinishDetail;
  /** The cost of the turn, added up over its steps. */
  usage: Usage;
  /** The log-probabilities of the last step's tokens, if the option `logProbabilities` is set. */
  logProbabilities?: readonly TokenLogProbabilities[];
  /** With `responseFormat`: the reply, parsed and checked. */
  object?: unknown;
}

/** The result of a compaction. */
export interface CompactionReport {
  /** The model's summary of the older turns. */
  summary: string;
  /** How many messages the summary replaces. */
  replacedMessages: number;
  /** Tokens of the conversation before the compaction, the template included. */
  tokensBefore: number;
  /** Tokens of the conversation after the compaction, the template included. */
  tokensAfter: number;
}

/**
 * A part of a turn, as it is generated.
 *
 * Each `tool-call` comes after its `tool-input-start` and at least one `tool-input-delta`. A start without a
 * `tool-call` belongs to a call that was never completed: the reply was cut off or aborted inside it, or it turned out
 * not to be a call.
 */
export type StreamPart =
  /** A piece of the reply. */
  | {
      type: 'text-delta';
      /** Never empty, never part of a character. */
      text: string;
    }
  /** A piece of the model's reasoning in front of the reply. */
  | {
      type: 'reasoning-delta';
      /** Never empty, never part of a character. */
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
      /** The call, as its `tool-input-start` named it. */
      toolCallId: string;
      /**
       * A piece of the arguments' JSON text, never empty. All pieces of a call together are the JSON text of its
       * `input`.
       */
      delta: string;
    }
  | ({ type: 'tool-call' } & ToolCall)
  | ({ type: 'tool-result' } & ToolResult)
  /** Before the reply, or before one of its steps, a summary replaced older turns or steps. */
  | ({ type: 'compaction' } & CompactionReport)
  | FinishPart;

/** A whole turn. */
export interface Reply<T = unknown> {
  /** The last step's text. */
  text: string;
  /** The last step's reasoning. */
  reasoning: string;
  /** The calls of all steps, in order. The caller answers those without a result. */
  toolCalls: readonly ToolCall[];
  /** The results of all steps, in the order in which the tools returned them. */
  toolResults: readonly ToolResult[];
  /** Why the turn ended. */
  finishReason: FinishReason;
  /** The exact cause, if `finishReason` has several. */
  detail?: FinishDetail;
  /** The cost of the turn, added up over its steps. */
  usage: Usage;
  /** The log-probabilities of the last step's tokens, if the option `logProbabilities` is set. */
  logProbabilities?: readonly TokenLogProbabilities[];
  /** With `responseFormat`: the reply, parsed and checked. Absent if the reply was cut off (see `finishReason`). */
  object?: T;
}
