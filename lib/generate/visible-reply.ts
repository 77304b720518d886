import type { ReplyToolCall } from '../native/reply.js';
import type { ReplyDelta, ReplyReader } from './reply-reader.js';
import { StopStrings } from './stop-strings.js';

/** What is left of a reply when it ends. */
export interface ReplyRest extends ReplyDelta {
  toolCalls: readonly ReplyToolCall[];
}

/**
 * The text, reasoning and tool calls of a reply that a stop string may end. Only the text is searched for stop strings: a program
 * that asks for a text up to the first line break does not mean the line breaks in the model's reasoning.
 */
export class VisibleReply {
  readonly #reader: ReplyReader;
  readonly #stops: StopStrings;
  readonly #strings: readonly string[];
  /** The end of the raw reply, where a stop string may stand. */
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

  /** Whether a stop string ended the text: nothing more comes. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** All text passed on so far. */
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

  /** Adds a piece of the raw reply. Returns the text and reasoning that are certain now; the beginning of a stop string is held back. */
  push(piece: string): ReplyDelta | Promise<ReplyDelta> {
    const read = this.#reader.push(piece, this.#maybeStopped(piece));
    return read instanceof Promise ? read.then(this.#visible) : this.#visible(read);
  }

  /**
   * Ends the reply and returns the rest. A stop string may turn up here too: some replies show only at their end what is text.
   *
   * @param cut as {@link ReplyReader.finish} has it
   */
  async finish(cut: boolean): Promise<ReplyRest> {
    const { calls } = this.#reader;
    const isEnded = this.#stopped;
    const { text, reasoning, toolCalls } = await this.#reader.finish(cut);
    const certain = this.#stops.push(text);
    const visible = certain + this.#stops.flush();
    this.#text += visible;
    if (this.#stops.found === undefined || isEnded) {
      return { text: visible, reasoning, toolCalls };
    }
    // The model ended its reply, and only white space is cut off: then it is whole.
    this.#stopped = cut || this.#text.trim() !== this.#reader.text.trim();
    return { text: visible, reasoning, toolCalls: this.#stopped ? toolCalls.slice(0, calls) : toolCalls };
  }

  readonly #visible = ({ text, reasoning }: ReplyDelta): ReplyDelta => {
    const visible = this.#stops.push(text);
    this.#text += visible;
    this.#stopped = this.#stops.found !== undefined;
    return { text: visible, reasoning };
  };

  /** Whether the newest piece may complete a stop string. Only parsing shows whether it stands in the text. */
  #maybeStopped(piece: string): boolean {
    if (this.#tailLength === 0) {
      return false;
    }
    const newest = this.#tail + piece;
    this.#tail = newest.slice(-this.#tailLength);
    return this.#strings.some((stop) => newest.includes(stop));
  }
}
