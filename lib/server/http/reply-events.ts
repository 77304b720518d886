// The interface of a dialect, which reads requests, and writes replies and streams.
import type { ChatRequest } from '../../chat/chat.js';
import type { Completion, CompletionPart } from '../../chat/completion.js';
import type { PrefillProgress } from '../../generate/prefill-progress.js';
import type { ReplyStream } from '../../generate/reply-stream.js';
import type { FinishPart, Reply, StreamPart } from '../../generate/stream-parts.js';
import type { HttpError } from './http-error.js';

/** A server-sent event. */
export interface ServerEvent {
  /** The name of the event, in dialects whose events have names. */
  event?: string;
  /** The JSON text, or a word such as `[DONE]`. */
  data: string;
}

/** Writes one streamed response as events of a dialect. */
export interface ReplyEvents {
  /** The events before the first part, sent as soon as the prompt is known to fit into the context. */
  begin(promptTokens: number): readonly ServerEvent[];
  /** @param choice the index of the reply, if the client asked for several replies */
  part(part: StreamPart, choice: number): readonly ServerEvent[];
  /** The events while a prompt is read. Undefined if the client does not want such events. */
  readonly progress?: ((progress: PrefillProgress, choice: number) => readonly ServerEvent[]) | undefined;
  /** Events without content. Clients cut connections on which nothing arrives. */
  keepAlive(): readonly ServerEvent[];
  /** The events after the last part of all choices. */
  end(): readonly ServerEvent[];
  /** The events after a failure, in place of {@link end}. */
  fail(error: HttpError): readonly ServerEvent[];
}

/** What every reply has at its end. */
export type FinishedReply = Pick<FinishPart, 'finishReason' | 'usage' | 'cache'>;

/** Starts a reply to something other than a conversation. */
export type StartReply = (options: {
  signal: AbortSignal;
  /** Called with the number of tokens of the prompt, as soon as the prompt is known to fit into the context. */
  onPrompt?: (tokens: number) => void;
  /** Called while the model reads the prompt. */
  onPrefill?: (progress: PrefillProgress) => void;
}) => ReplyStream<CompletionPart, Completion>;

/** A request for a reply, read from the body of a dialect. */
export interface ReplyRequest {
  /** One request for each reply that the client wants. */
  choices: readonly (ChatRequest | StartReply)[];
  /** How to stream the replies; undefined if the client wants no stream. */
  events: ReplyEvents | undefined;
  /** The body of the response if the client does not want a stream. */
  body(replies: readonly Reply[]): object;
}

/** Writes errors in the form of a dialect. */
export type ErrorBody = (error: HttpError) => object;

/** Makes an event from a JSON object. */
export function jsonEvent(data: object, event?: string): ServerEvent {
  return { data: JSON.stringify(data), ...(event !== undefined && { event }) };
}

/** The object `headstart` of a response: the cache report, and the rules that changed the request. */
export function headstartOf({ cache }: Pick<FinishedReply, 'cache'>, rules: readonly string[]): object {
  return { cache, ...(rules.length > 0 && { rules }) };
}
