import { onAbort, orAborted } from '../abort.js';
import { HeadstartError } from '../errors.js';

/**
 * Number of parts in a full queue. If the queue is full, the turn waits until the reader has taken half of the parts.
 */
const CAPACITY = 64;

interface Waiting<Part> {
  resolve: (result: IteratorResult<Part, undefined>) => void;
  reject: (error: unknown) => void;
  /** Protects a waiting reader from garbage collection, because a collected reader leaves its stream. */
  reader: unknown;
}

/** The end of a stream: a last part, or an error. */
type Ending<Part> = { last: Part } | { error: unknown };

const DONE = { value: undefined, done: true } as const;

/**
 * The queue between a turn and the reader of its stream. The turn adds parts, and the reader takes them. Parts that are
 * added before reading begins are dropped, because a program that awaits only the result needs no parts.
 */
export class PartQueue<Part> {
  readonly #parts: Part[] = [];
  readonly #waiting: Waiting<Part>[] = [];
  #isRead = false;
  /** Whether all further parts are dropped. */
  #isClosed = false;
  #ending: Ending<Part> | 'taken' | undefined;
  /** Resumes a turn that waits for its reader. */
  #onTaken: (() => void) | undefined;

  /** Whether a program has begun to read the parts. */
  get isRead(): boolean {
    return this.#isRead;
  }

  get isFull(): boolean {
    return this.#parts.length >= CAPACITY;
  }

  /** Adds parts, even to a full queue. The turn checks {@link isFull} between two steps. */
  push(...parts: readonly Part[]): void {
    if (!this.#isRead || this.#isClosed) {
      return;
    }
    for (const part of parts) {
      const waiting = this.#waiting.shift();
      if (waiting === undefined) {
        this.#parts.push(part);
      } else {
        waiting.resolve({ value: part, done: false });
      }
    }
  }

  /**
   * Resolves when the queue is at most half full.
   *
   * @throws HeadstartError `ABORTED`.
   */
  async untilHalfEmpty(signal: AbortSignal): Promise<void> {
    while (this.#parts.length > CAPACITY / 2) {
      await this.#nextTake(signal);
    }
  }

  /** True if the reader has taken all parts and waits for another one, or if there is no reader. */
  get isDrained(): boolean {
    return !this.#isRead || this.#waiting.length > 0;
  }

  /**
   * Resolves when {@link isDrained} is true.
   *
   * @throws HeadstartError `ABORTED`.
   */
  async untilDrained(signal: AbortSignal): Promise<void> {
    while (!this.isDrained) {
      await this.#nextTake(signal);
    }
  }

  #nextTake(signal: AbortSignal): Promise<void> {
    const taken = new Promise<void>((resolve) => {
      this.#onTaken = resolve;
    });
    return orAborted(taken, signal);
  }

  /** Drops the parts in the queue and all further parts. */
  close(): void {
    this.#isClosed = true;
    this.#parts.length = 0;
  }

  /**
   * Ends the stream because the reader leaves. The reader gets no more parts, and its pending reads end without a part.
   */
  leave(): void {
    this.close();
    this.#ending = 'taken';
    for (const waiting of this.#waiting.splice(0)) {
      waiting.resolve(DONE);
    }
  }

  /**
   * Closes the queue when the signal aborts. The reader then gets no more parts, but only the error.
   *
   * @returns a function that stops listening to the signal
   */
  closeOnAbort(signal: AbortSignal): () => void {
    return onAbort(signal, () => this.close());
  }

  /** Ends the stream after the parts that are in the queue. */
  end(ending: Ending<Part>): void {
    this.#ending ??= ending;
    for (const waiting of this.#waiting.splice(0)) {
      this.#takeEnding().then(waiting.resolve, waiting.reject);
    }
  }

  /** @throws HeadstartError `STREAM_USED` if a program has already begun to read. */
  beginReading(): void {
    if (this.#isRead) {
      throw new HeadstartError(
        'STREAM_USED',
        'Expected a stream that was not read yet, but it was iterated before. Its `result` has the whole reply.',
      );
    }
    this.#isRead = true;
  }

  /** Takes the next part for the reader. Waits if the queue is empty. */
  take(reader: unknown): Promise<IteratorResult<Part, undefined>> {
    const part = this.#parts.shift();
    if (part !== undefined) {
      this.#onTaken?.();
      return Promise.resolve({ value: part, done: false });
    }
    if (this.#ending !== undefined) {
      return this.#takeEnding();
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject, reader });
      this.#onTaken?.();
    });
  }

  /** The first call returns the last part, or throws the error. Later calls return no part. */
  async #takeEnding(): Promise<IteratorResult<Part, undefined>> {
    const ending = this.#ending;
    this.#ending = 'taken';
    if (ending === undefined || ending === 'taken') {
      return DONE;
    }
    if ('error' in ending) {
      throw ending.error;
    }
    return { value: ending.last, done: false };
  }
}
