// Answers a request for a reply: at once as JSON, or as a stream of events.
import type { Context } from 'hono';
import { type SSEStreamingApi, streamSSE } from 'hono/streaming';
import type { ChatRequest } from '../../chat/chat.js';
import type { ChatModel } from '../../chat/chat-model.js';
import type { Reply, StreamPart } from '../../generate/stream-parts.js';
import { type HttpError, httpErrorOf } from './http-error.js';
import type { FinishedReply, ReplyEvents, ReplyRequest, ServerEvent, StartReply } from './reply-events.js';

export interface AnswerOptions {
  model: ChatModel;
  /** Interval of keep-alive events while the stream has no other event, in ms. */
  keepAliveMs: number;
  /** Called at the end of each reply. */
  onReply(reply: FinishedReply): void;
  /** Called with an error that happened after the stream had begun. */
  onStreamError(error: HttpError): void;
  /** Called when the response is complete or the client has left. */
  onEnd(): void;
}

/**
 * Answers a request. A stream begins when all prompts are known to fit into the context, so a prompt that is too long
 * is refused with an HTTP status.
 *
 * @throws HeadstartError the errors of `ChatModel.chat`.
 */
export async function answer(context: Context, request: ReplyRequest, options: AnswerOptions): Promise<Response> {
  const { model, onEnd } = options;
  const leaving = new AbortController();
  const signal = AbortSignal.any([context.req.raw.signal, leaving.signal]);
  try {
    if (request.events === undefined) {
      const replies = await Promise.all(request.choices.map((choice) => start(model, choice, { signal }).result));
      onEnd();
      for (const reply of replies) {
        options.onReply(reply);
      }
      return context.json(request.body(replies as Reply[]));
    }
    const { events } = request;
    const choices = request.choices.map((choice) => new StreamedChoice(model, choice, signal));
    const promptTokens = await Promise.all(choices.map((choice) => choice.prompt));
    context.header('cache-control', 'no-store');
    return streamSSE(context, async (stream) => {
      stream.onAbort(() => leaving.abort());
      await new EventWriter(stream, events, options).write(choices, promptTokens[0] ?? 0).finally(onEnd);
    });
  } catch (error) {
    leaving.abort(); // ends the other choices
    onEnd();
    throw error;
  }
}

function start(model: ChatModel, choice: ChatRequest | StartReply, options: Parameters<StartReply>[0]) {
  return typeof choice === 'function' ? choice(options) : model.chat({ ...choice, ...options });
}

/** One reply of a streamed response. */
class StreamedChoice {
  /** Resolves with the number of prompt tokens as soon as the prompt is known to fit. Rejects if the request fails. */
  readonly prompt: Promise<number>;
  readonly #parts: AsyncIterator<StreamPart>;
  readonly #first: Promise<IteratorResult<StreamPart>>;

  constructor(model: ChatModel, choice: ChatRequest | StartReply, signal: AbortSignal) {
    let onPrompt: (tokens: number) => void = () => undefined;
    const prompted = new Promise<number>((resolve) => {
      onPrompt = resolve;
    });
    this.#parts = start(model, choice, { signal, onPrompt })[Symbol.asyncIterator]();
    this.#first = this.#parts.next();
    this.prompt = Promise.race([prompted, this.#first.then(() => 0)]);
    this.prompt.catch(() => undefined); // another choice may fail first
  }

  async *parts(): AsyncIterable<StreamPart> {
    for (let next = await this.#first; !next.done; next = await this.#parts.next()) {
      yield next.value;
    }
  }
}

/** Writes the events of a response, one after another. */
class EventWriter {
  readonly #stream: SSEStreamingApi;
  readonly #events: ReplyEvents;
  readonly #options: AnswerOptions;
  /** Resolves when the earlier events were written. */
  #written: Promise<unknown> = Promise.resolve();
  #isIdle = true;

  constructor(stream: SSEStreamingApi, events: ReplyEvents, options: AnswerOptions) {
    this.#stream = stream;
    this.#events = events;
    this.#options = options;
  }

  async write(choices: readonly StreamedChoice[], promptTokens: number): Promise<void> {
    await this.#send(this.#events.begin(promptTokens));
    const timer = setInterval(() => this.#keepAlive(), this.#options.keepAliveMs);
    try {
      await Promise.all(choices.map((choice, index) => this.#writeParts(choice, index)));
      await this.#send(this.#events.end());
    } catch (error) {
      const failure = httpErrorOf(error);
      this.#options.onStreamError(failure);
      await this.#send(this.#events.fail(failure));
    } finally {
      clearInterval(timer);
    }
  }

  async #writeParts(choice: StreamedChoice, index: number): Promise<void> {
    for await (const part of choice.parts()) {
      if (part.type === 'finish') {
        this.#options.onReply(part);
      }
      await this.#send(this.#events.part(part, index));
    }
  }

  #keepAlive(): void {
    if (this.#isIdle) {
      void this.#send(this.#events.keepAlive());
    }
    this.#isIdle = true;
  }

  #send(events: readonly ServerEvent[]): Promise<unknown> {
    if (events.length > 0) {
      this.#isIdle = false;
      const text = events.map(textOf).join('');
      this.#written = this.#written.then(() => this.#stream.write(text));
    }
    return this.#written;
  }
}

function textOf({ event, data }: ServerEvent): string {
  return `${event === undefined ? '' : `event: ${event}\n`}data: ${data}\n\n`;
}
