import type { ReplyStream } from '../generate/reply-stream.js';
import type { Reply, StreamPart } from '../generate/stream-parts.js';
import type { Schema, SchemaValue } from '../tools/schemas/schema.js';
import type { ChatRequest } from './chat.js';

/**
 * A model that answers conversations which its callers keep. An HTTP server or an AI SDK provider needs nothing else.
 * `AgentServer` implements this interface.
 */
export interface ChatModel {
  /** The name of the model, as clients see it. */
  readonly id: string;

  /**
   * Answers a conversation. The request starts when the stream is iterated or its `result` is awaited.
   *
   * @throws HeadstartError as `AgentServer.chat`.
   */
  chat<S extends Schema>(request: ChatRequest<S>): ReplyStream<StreamPart, Reply<SchemaValue<S>>>;

  /**
   * Counts the tokens of a request's prompt: system prompt, tools, messages and the generation prompt. A reply to this
   * request reports the same number as `usage.inputTokens`, if the reply has one step. Counts prompts of any length.
   * Takes no sequence of the KV cache, and does not wait for requests in progress.
   *
   * @param options.signal aborts the count, with `ABORTED`
   * @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`, `CLOSED`, `ABORTED`, and the codes of rendering and
   *   tokenizing.
   */
  countTokens(request: ChatRequest, options?: { signal?: AbortSignal | undefined }): Promise<number>;
}
