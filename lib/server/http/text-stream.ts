/** Number of bytes that a client may leave unread before its reply pauses. */
const HIGH_WATER_MARK = 64 * 1024;

/**
 * The body of a streamed response. This class uses no `TransformStream`, because a `TransformStream` needs several
 * promises for each piece of text.
 */
export class TextStream {
  readonly body: ReadableStream<Uint8Array>;
  readonly #encoder = new TextEncoder();
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #isOpen = true;
  /** Resolves when the client has read enough. */
  #drained: Promise<void> | undefined;
  #onDrained: (() => void) | undefined;

  /** @param onLeave called when the client leaves before the end */
  constructor(onLeave: () => void) {
    const cancel = () => {
      this.#isOpen = false;
      this.#resume();
      onLeave();
    };
    const start = (controller: ReadableStreamDefaultController<Uint8Array>) => {
      this.#controller = controller;
    };
    this.body = new ReadableStream(
      { start, pull: () => this.#resume(), cancel },
      new ByteLengthQueuingStrategy({ highWaterMark: HIGH_WATER_MARK }),
    );
  }

  /** Whether the client has read almost all text. */
  get isDrained(): boolean {
    return !this.#isOpen || (this.#controller.desiredSize ?? 0) > 0;
  }

  /**
   * Writes a text. Does nothing if the client has left.
   *
   * @returns a promise to wait for if the client must read first; else undefined
   */
  write(text: string): Promise<void> | undefined {
    if (this.#isOpen) {
      this.#controller.enqueue(this.#encoder.encode(text));
    }
    if (this.isDrained) {
      return undefined;
    }
    this.#drained ??= new Promise((resolve) => {
      this.#onDrained = resolve;
    });
    return this.#drained;
  }

  /** Ends the response after the text that was written. */
  close(): void {
    if (this.#isOpen) {
      this.#isOpen = false;
      this.#controller.close();
    }
  }

  #resume(): void {
    this.#onDrained?.();
    this.#onDrained = undefined;
    this.#drained = undefined;
  }
}
