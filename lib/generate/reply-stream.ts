import { HeadstartError } from '../errors.js';
import { PartQueue } from './part-queue.js';

/** The end of a task: the value of `result`, and the stream's last part. */
export interface StreamEnd<Part, Result> {
  result: Result;
  last: Part;
}

/**
 * Generates the parts of a stream. The task adds the parts to `queue`, and waits if the queue is full.
 *
 * @param leaveSignal aborts when the reader leaves the stream
 */
export type StreamTask<Part, Result> = (
  queue: PartQueue<Part>,
  leaveSignal: AbortSignal,
) => Promise<StreamEnd<Part, Result>>;

/** Aborts the task of a stream whose iterator was garbage-collected. */
const abandoned = new FinalizationRegistry<AbortController>((leaving) => leave(leaving));

function leave(leaving: AbortController): void {
  leaving.abort(new HeadstartError('ABORTED', 'The stream was left before its end'));
}

/**
 * A reply that is being generated. Iterate over the stream to get its parts, or await `result`, or do both. The first
 * of these starts the generation. The generation then continues independently of the reader. The generation pauses
 * while 64 parts wait to be read.
 *
 * Leaving the iteration (`break`, `return`, an exception in the loop) aborts the turn. Garbage collection of the
 * iterator does the same. A second iteration throws `STREAM_USED`.
 */
export interface ReplyStream<Part, Result> extends AsyncIterable<Part, undefined, undefined> {
  /**
   * The whole reply. If a program only awaits `result`, the reply is generated to its end and no parts are kept. If a
   * program also iterates over the stream, `result` settles after the last part was read. An iteration that begins late
   * misses the parts that were generated earlier. `result` rejects with the same error that the iteration throws.
   */
  readonly result: Promise<Result>;
}

/** Runs a task as soon as its stream is iterated or its result is awaited. */
export class StreamedTask<Part, Result> implements ReplyStream<Part, Result> {
  readonly #queue = new PartQueue<Part>();
  readonly #leaving = new AbortController();
  readonly #task: StreamTask<Part, Result>;
  #result: Promise<Result> | undefined;

  constructor(task: StreamTask<Part, Result>) {
    this.#task = task;
  }

  get result(): Promise<Result> {
    if (this.#result === undefined) {
      this.#result = this.#run();
      this.#result.catch(() => undefined); // prevents an unhandled rejection: the iteration throws this error too
    }
    return this.#result;
  }

  /** @throws HeadstartError `STREAM_USED` the second time. */
  [Symbol.asyncIterator](): AsyncIterator<Part, undefined, undefined> {
    this.#queue.beginReading();
    const iterator: AsyncIterator<Part, undefined, undefined> = {
      next: () => {
        void this.result;
        return this.#queue.take(iterator);
      },
      return: async () => {
        this.#queue.leave();
        leave(this.#leaving);
        await this.result.catch(() => undefined);
        return { value: undefined, done: true };
      },
    };
    abandoned.register(iterator, this.#leaving);
    return iterator;
  }

  async #run(): Promise<Result> {
    try {
      this.#leaving.signal.throwIfAborted(); // the reader left before the task began
      const { result, last } = await this.#task(this.#queue, this.#leaving.signal);
      this.#queue.end({ last });
      return result;
    } catch (error) {
      this.#queue.end({ error });
      throw error;
    }
  }
}
