import type { ReplyToolCall } from '../native/reply.js';
import type { ReplyDelta, ReplyReader } from './reply-reader.js';
import { StopStrings } from './stop-strings.js';

/** The rest of a reply, and all its calls. */
export interface ReplyRest extends ReplyDelta {
  toolCalls: readonly ReplyToolCall[];
}

/**
 * The text, reasoning and tool calls of a reply that a stop string may end. Only the text is searched for stop strings.
 * For example, a program that stops at a line break does not mean the line breaks in the model's reasoning.
 */
export class VisibleReply {
  readonly #reader: ReplyReader;
  readonly #stops: StopStrings;
  readonly #strings: readonly string[];
  /** The end of the raw reply, which may contain a part of a stop string. */
  #tail = '';
  readonly #tailLength: number;
  #text = '';
  #stopped = false;

  /** @param stop non-empty strings */
  constructor(reader: ReplyReader, stop: readonly string[]) {
    this.#reader = reader;
    this.#stops = new StopStrings(stop);
    this.#strings = stop;
    this.#tailLength = 2 * Math.max(0, ...stop.map(({ length }) => length));
  }

  /** Whether a stop string ended the text. Nothing is returned after that. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** The stop string that ended the text. */
  get stopString(): string | undefined {
    return this.#stopped ? this.#stops.matched : undefined;
  }

  /** All text returned so far. */
  get text(): string {
    return this.#text;
  }

  get reasoning(): string {
    return this.#reader.reasoning;
  }

  /** See {@link ReplyReader.lengths}. */
  get lengths(): { reasoning: number; other: number } {
    return this.#reader.lengths;
  }

  /** See {@link ReplyReader.begunCalls}. */
  get begunCalls(): readonly ReplyToolCall[] {
    return this.#reader.begunCalls;
  }

  /** Tool calls that have begun. */
  get calls(): number {
    return this.#reader.calls;
  }

  /**
   * Adds a piece of the raw reply. Returns the text and reasoning that have become certain. A possible beginning of a
   * stop string is held back.
   */
  push(piece: string): ReplyDelta | Promise<ReplyDelta> {
    const read = this.#reader.push(piece, this.#mayHoldStop(piece));
    return read instanceof Promise ? read.then(this.#visible) : this.#visible(read);
  }

  /**
   * Ends the reply and returns the rest. The rest may contain a stop string, because in some replies it becomes clear
   * only at the end which part is text.
   *
   * @param cut see {@link ReplyReader.finish}
   */
  async finish(cut: boolean): Promise<ReplyRest> {
    const { calls } = this.#reader;
    const isEnded = this.#stopped;
    const { text, reasoning, toolCalls } = await this.#reader.finish(cut);
    const certain = this.#stops.push(text);
    const visible = certain + this.#stops.flush();
    this.#text += visible;
    if (this.#stops.matched === undefined || isEnded) {
      return { text: visible, reasoning, toolCalls };
    }
    // If the model ended its reply, and the stop string cuts off only white space, the reply is complete.
    this.#stopped = cut || this.#text.trim() !== this.#reader.text.trim();
    return { text: visible, reasoning, toolCalls: this.#stopped ? toolCalls.slice(0, calls) : toolCalls };
  }

  readonly #visible = ({ text, reasoning }: ReplyDelta): ReplyDelta => {
    const visible = this.#stops.push(text);
    this.#text += visible;
    this.#stopped = this.#stops.matched !== undefined;
    return { text: visible, reasoning };
  };

  /**
   * Whether the newest piece may complete a stop string. Only a parse shows whether this stop string is in the text.
   */
  #mayHoldStop(piece: string): boolean {
    if (this.#tailLength === 0) {
      return false;
    }
    const newest = this.#tail + piece;
    this.#tail = newest.slice(-this.#tailLength);
    return this.#strings.some((stop) => newest.includes(stop));
  }
}
