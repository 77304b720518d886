// Answers a request for a reply: at once as JSON, or as a stream of events.
import type { Context } from 'hono';
import type { ChatRequest } from '../../chat/chat.js';
import type { ChatModel } from '../../chat/chat-model.js';
import type { PrefillProgress } from '../../generate/prefill-progress.js';
import type { Reply, StreamPart } from '../../generate/stream-parts.js';
import { httpErrorOf } from './http-error.js';
import type { FinishedReply, ReplyEvents, ReplyRequest, ServerEvent, StartReply } from './reply-events.js';
import { TextStream } from './text-stream.js';

export interface AnswerOptions {
  model: ChatModel;
  /** Interval of keep-alive events while the stream has no other event, in ms. */
  keepAliveMs: number;
  /** Called at the end of each reply. */
  onReply(reply: FinishedReply): void;
  /** Called with an error that happened after the stream had begun. */
  onStreamError(error: unknown): void;
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
    const writer = new EventWriter(request.events, options, leaving);
    const choices = request.choices.map(
      (choice, index) => new StreamedChoice(model, choice, { signal, index, writer }),
    );
    const [promptTokens = 0] = await Promise.all(choices.map((choice) => choice.prompt));
    void writer.write(choices, promptTokens).finally(onEnd);
    return context.body(writer.body, 200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
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
  #first: Promise<IteratorResult<StreamPart>> | undefined;

  constructor(
    model: ChatModel,
    choice: ChatRequest | StartReply,
    { signal, index, writer }: { signal: AbortSignal; index: number; writer: EventWriter },
  ) {
    let onPrompt: (tokens: number) => void = () => undefined;
    const prompted = new Promise<number>((resolve) => {
      onPrompt = resolve;
    });
    const onPrefill = writer.onPrefill(index);
    const options = { signal, onPrompt, ...(onPrefill && { onPrefill }) };
    this.#parts = start(model, choice, options)[Symbol.asyncIterator]();
    const first = this.#parts.next();
    this.#first = first;
    this.prompt = Promise.race([prompted, first.then(() => 0)]);
    this.prompt.catch(() => undefined); // another choice may fail first
  }

  next(): Promise<IteratorResult<StreamPart>> {
    const first = this.#first;
    this.#first = undefined;
    return first ?? this.#parts.next();
  }
}

/** Writes the events of a response, one after another. */
class EventWriter {
  readonly #stream: TextStream;
  readonly #events: ReplyEvents;
  readonly #options: AnswerOptions;
  readonly #leaving: AbortController;
  /** Resolves when the first events were written. */
  readonly #begun: Promise<void>;
  #onBegun!: () => void;
  #isIdle = true;

  /** @param leaving aborts the replies */
  constructor(events: ReplyEvents, options: AnswerOptions, leaving: AbortController) {
    this.#events = events;
    this.#options = options;
    this.#leaving = leaving;
    this.#stream = new TextStream(() => leaving.abort());
    this.#begun = new Promise((resolve) => {
      this.#onBegun = resolve;
    });
  }

  get body(): ReadableStream<Uint8Array> {
    return this.#stream.body;
  }

  /** The listener for the progress of a prompt; undefined if the client does not want it. */
  onPrefill(index: number): ((progress: PrefillProgress) => void) | undefined {
    const { progress: eventsOf } = this.#events;
    return eventsOf && ((progress) => void this.#begun.then(() => this.#send(eventsOf(progress, index))));
  }

  /** Never rejects. */
  async write(choices: readonly StreamedChoice[], promptTokens: number): Promise<void> {
    const timer = setInterval(() => this.#keepAlive(), this.#options.keepAliveMs);
    try {
      this.#send(this.#events.begin(promptTokens));
      this.#onBegun();
      await Promise.all(choices.map((choice, index) => this.#writeParts(choice, index)));
      this.#send(this.#events.end());
    } catch (error) {
      this.#leaving.abort(); // ends the other choices
      this.#options.onStreamError(error);
      this.#send(this.#events.fail(httpErrorOf(error)));
    } finally {
      clearInterval(timer);
      this.#stream.close();
    }
  }

  async #writeParts(choice: StreamedChoice, index: number): Promise<void> {
    for (let next = await choice.next(); !next.done; next = await choice.next()) {
      const { value: part } = next;
      if (part.type === 'finish') {
        this.#options.onReply(part);
      }
      const drained = this.#send(this.#events.part(part, index));
      if (drained !== undefined) {
        await drained; // an unconditional `await` would delay each token
      }
    }
  }

  /** If the client does not read, further events would only take memory. */
  #keepAlive(): void {
    if (this.#isIdle && this.#stream.isDrained) {
      this.#send(this.#events.keepAlive());
    }
    this.#isIdle = true;
  }

  #send(events: readonly ServerEvent[]): Promise<void> | undefined {
    if (events.length === 0) {
      return undefined;
    }
    this.#isIdle = false;
    return this.#stream.write(events.map(textOf).join(''));
  }
}

function textOf({ event, data }: ServerEvent): string {
  return `${event === undefined ? '' : `event: ${event}\n`}data: ${data}\n\n`;
}
