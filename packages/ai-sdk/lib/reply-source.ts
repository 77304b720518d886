// The source of a streamed reply.
import { type StreamPart as CorePart, HeadstartError, type Reply, type ReplyStream } from 'llama-headstart';
import { errorOf } from './abort.js';
import { PartConverter, usageOf } from './reply.js';
import type { StreamPart } from './specification.js';

/** How the parts of a reply are written. */
export interface StreamOptions {
  /** The first parts of the stream. */
  head: readonly StreamPart[];
  signal: AbortSignal | undefined;
  /** See `endingOf`. */
  isHinted: boolean;
  /** Whether the stream also has the parts of llama-headstart, unchanged. */
  withRawParts: boolean;
}

type Controller = ReadableStreamDefaultController<StreamPart>;

/**
 * Provides the parts of a reply, as the source of a `ReadableStream`. The model pauses while nobody reads the stream.
 * Canceling the stream stops the model.
 */
export class ReplySource {
  readonly #parts: AsyncIterator<CorePart, undefined>;
  readonly #options: StreamOptions;
  readonly #converter: PartConverter;
  /** The first part until it is read. */
  #first: Promise<IteratorResult<CorePart, undefined>> | undefined;

  /** Starts the reply. */
  constructor(reply: ReplyStream<CorePart, Reply>, options: StreamOptions) {
    this.#parts = reply[Symbol.asyncIterator]();
    this.#options = options;
    this.#converter = new PartConverter(options.isHinted);
    this.#first = this.#parts.next();
    this.#first.catch(() => undefined); // the stream or `begun` reports the error
  }

  /** Resolves when the first part is there. Rejects if the reply fails before its first part. */
  async begun(): Promise<void> {
    await this.#first;
  }

  start(controller: Controller): void {
    enqueue(controller, this.#options.head);
  }

  async pull(controller: Controller): Promise<void> {
    try {
      let parts = await this.#next();
      while (parts?.length === 0) {
        parts = await this.#next(); // a pull that enqueues nothing would be the last one
      }
      if (parts === undefined) {
        controller.close();
      } else {
        enqueue(controller, parts);
      }
    } catch (error) {
      this.#fail(controller, error);
    }
  }

  async cancel(): Promise<void> {
    await this.#parts.return?.();
  }

  /** Undefined at the end of the reply. */
  async #next(): Promise<StreamPart[] | undefined> {
    const { value, done } = await (this.#first ?? this.#parts.next());
    this.#first = undefined;
    if (done) {
      return undefined;
    }
    const parts = this.#converter.convert(value);
    return this.#options.withRawParts ? [{ type: 'raw', rawValue: value }, ...parts] : parts;
  }

  /** Ends the stream with an error. An abort has no part of its own, as in the streams of other providers. */
  #fail(controller: Controller, cause: unknown): void {
    const { signal, isHinted } = this.#options;
    const error = errorOf(cause, signal);
    if (error !== cause) {
      controller.error(error);
      return;
    }
    const { code, usage } = HeadstartError.isInstance(error) ? error : NOT_OURS;
    enqueue(controller, [
      ...this.#converter.end(),
      { type: 'error', error },
      { type: 'finish', finishReason: { unified: 'error', raw: code }, usage: usageOf(usage, isHinted) },
    ]);
    controller.close();
  }
}

const NOT_OURS = { code: undefined, usage: undefined };

function enqueue(controller: Controller, parts: readonly StreamPart[]): void {
  for (const part of parts) {
    controller.enqueue(part);
  }
}
