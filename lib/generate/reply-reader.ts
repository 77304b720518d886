import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { ParsedReply, ReplyFormat, ReplyToolCall } from '../native/reply.js';
import { hasBareCalls, mayBeBareCall } from '../prompt/bare-calls.js';

/** The parts of a complete reply. */
export interface ReplyValues extends ReplyDelta {
  toolCalls: readonly ReplyToolCall[];
}

/** New text and reasoning of a reply. */
export interface ReplyDelta {
  text: string;
  reasoning: string;
}

/**
 * A long reply is parsed again only after it has grown by this share of its length, because the time of a parse is
 * proportional to the length.
 */
const GROWTH = 1 / 256;

/**
 * Separates a growing reply into text, reasoning and tool calls. Markup is never returned. Text that may become markup
 * is held back.
 */
export class ReplyReader {
  readonly #model: Model;
  /** Undefined if the whole reply is text. */
  readonly #format: ReplyFormat | undefined;
  readonly #hasBareCalls: boolean;
  #raw = '';
  /** Length of the raw reply at the last parse. */
  #readLength = 0;
  /** Length of the raw reply at the last parse that found parts in it. */
  #partsLength = 0;
  #text = '';
  #reasoning = '';
  /** Whether the newest part in the last parse is text, and neither reasoning nor a call. */
  #isInText = false;

  constructor(model: Model, format: ReplyFormat, isStructured: boolean) {
    this.#model = model;
    this.#format = isStructured || format.supportsThinking ? format : undefined;
    this.#hasBareCalls = hasBareCalls(format);
  }

  /** Reads a complete reply. */
  static async read(model: Model, format: ReplyFormat, isStructured: boolean, reply: string): Promise<ReplyValues> {
    const reader = new ReplyReader(model, format, isStructured);
    reader.#raw = reply;
    if (reader.#format === undefined) {
      reader.#text = reply;
    }
    const { toolCalls } = await reader.finish(false);
    return { text: reader.text, reasoning: reader.reasoning, toolCalls };
  }

  /** The tool calls that had begun at the last parse. Each parse replaces the array. */
  begunCalls: readonly ReplyToolCall[] = [];

  /** How many tool calls have begun. */
  calls = 0;

  /** All text returned so far. */
  get text(): string {
    return this.#text;
  }

  /** All reasoning returned so far. */
  get reasoning(): string {
    return this.#reasoning;
  }

  /**
   * `reasoning` is the number of characters of the reasoning so far. `other` is the number of characters of the text so
   * far, plus the number of calls.
   */
  get lengths(): { reasoning: number; other: number } {
    return { reasoning: this.#reasoning.length, other: this.#text.length + this.calls };
  }

  /**
   * Adds a piece of the raw reply. Returns the text and reasoning that have become certain. The result is a promise
   * only if the reply must be parsed.
   *
   * @param isUrgent whether to parse a long reply even if it has grown by little. Has no effect if the piece cannot be
   *   text.
   */
  push(piece: string, isUrgent = false): ReplyDelta | Promise<ReplyDelta> {
    this.#raw += piece;
    if (this.#format === undefined) {
      this.#text += piece;
      return { text: piece, reasoning: '' };
    }
    const grew = this.#raw.length - this.#readLength >= this.#raw.length * GROWTH;
    return grew || (isUrgent && this.#mayBeInText()) ? this.#parseAgain() : NOTHING;
  }

  /** Whether the end of the raw reply may be text: the last parse ended in text, or reasoning may have ended since. */
  #mayBeInText(): boolean {
    const hasTag = (tag: string) => this.#raw.includes(tag, Math.max(0, this.#readLength - tag.length));
    return this.#isInText || (this.#format?.thinkingEndTags.some(hasTag) ?? false);
  }

  async #parseAgain(): Promise<ReplyDelta> {
    this.#readLength = this.#raw.length;
    const parsed = await this.#parse('partial');
    if (parsed === undefined) {
      return NOTHING;
    }
    const { content, reasoning, toolCalls } = parsed;
    if (content !== '' || reasoning !== '' || toolCalls.length > 0) {
      this.#partsLength = this.#readLength;
    }
    const hasNewCall = toolCalls.length > this.calls;
    this.calls = Math.max(this.calls, toolCalls.length);
    this.begunCalls = toolCalls;
    const delta = this.#advance(parsed);
    if (hasNewCall || delta.text !== '' || delta.reasoning !== '') {
      this.#isInText = !hasNewCall && delta.text !== '';
    }
    return delta;
  }

  /**
   * Ends the reply and returns the rest of it. Output that does not match the reply format is returned as text, so that
   * no output is lost.
   *
   * @param cut whether the reply was cut off. If so, the beginning of an unfinished tool call is left out.
   */
  async finish(cut: boolean): Promise<ReplyValues> {
    if (this.#format === undefined) {
      return { ...NOTHING, toolCalls: [] };
    }
    const whole = await this.#parse('whole');
    const isWhole = whole !== undefined && (cut || hasArguments(whole.toolCalls.at(-1)));
    const parsed = isWhole ? whole : await this.#parse('beginning');
    if (parsed === undefined) {
      return {
        text: this.#appendText(this.#raw.slice(this.#plainLength ?? this.#partsLength)),
        reasoning: '',
        toolCalls: [],
      };
    }
    const toolCalls = isWhole && cut ? wholeCalls(parsed.toolCalls) : parsed.toolCalls;
    const delta = this.#advance(parsed);
    const rest = this.#raw.slice(this.#restFrom(parsed));
    // If a cut reply matches the format, its rest may be the beginning of a call, and is not text. White space after a
    // call is left out.
    const isText = toolCalls.length === 0 ? !cut || !isWhole || rest.trim() === '' : !isWhole && rest.trim() !== '';
    return { ...delta, text: delta.text + this.#appendText(isText ? rest : ''), toolCalls };
  }

  #appendText(text: string): string {
    this.#text += text;
    return text;
  }

  /** The length of the text if the reply so far consists only of text, else undefined. */
  get #plainLength(): number | undefined {
    return this.#reasoning === '' && this.#raw.startsWith(this.#text) ? this.#text.length : undefined;
  }

  /**
   * The position at which the unreturned part of the raw reply begins. This part includes the white space that the
   * parser dropped.
   */
  #restFrom({ length, toolCalls }: ParsedReply): number {
    const from = toolCalls.length === 0 ? this.#plainLength : undefined;
    return from !== undefined && this.#raw.slice(from, length).trim() === '' ? from : length;
  }

  /** Parses the raw reply. Resolves with undefined if the reply does not match the format. */
  async #parse(mode: 'partial' | 'whole' | 'beginning'): Promise<ParsedReply | undefined> {
    const rendered = this.#format as ReplyFormat;
    const modes = { partial: mode === 'partial', beginning: mode === 'beginning' };
    try {
      return await this.#model.parseReply({ rendered, text: this.#raw, ...modes });
    } catch (error) {
      if (HeadstartError.isInstance(error, 'REPLY_INVALID') || HeadstartError.isInstance(error, 'JSON_TOO_DEEP')) {
        return undefined;
      }
      throw error;
    }
  }

  /**
   * Returns the text and reasoning that the last parse added. A program may already have used the earlier text, so a
   * parse that contradicts the earlier text adds nothing.
   */
  #advance(parsed: ParsedReply): ReplyDelta {
    const { reasoning } = parsed;
    const content = this.#withSpace(parsed);
    const text = content.startsWith(this.#text) ? content.slice(this.#text.length) : '';
    const newReasoning = reasoning.startsWith(this.#reasoning) ? reasoning.slice(this.#reasoning.length) : '';
    this.#text += text;
    this.#reasoning += newReasoning;
    return { text, reasoning: newReasoning };
  }

  /**
   * Returns the text with the white space around it. Parsers drop this white space. A reply that consists only of text
   * keeps it, so that the next prompt matches the tokens in the sequence.
   */
  #withSpace({ content, reasoning, toolCalls }: ParsedReply): string {
    if (reasoning === '' && toolCalls.length === 0 && this.#isAllText()) {
      return this.#raw;
    }
    const isText = content !== '' && reasoning === '' && toolCalls.length === 0;
    const start = this.#raw.length - this.#raw.trimStart().length;
    return isText && this.#raw.startsWith(content, start) ? this.#raw.slice(0, start) + content : content;
  }

  /**
   * Whether the reply is certainly text, although its format does not mark calls. Parsers of such formats hold back all
   * text from the first brace on, because this text may be a call.
   */
  #isAllText(): boolean {
    const brace = this.#hasBareCalls ? this.#raw.indexOf('{') : -1;
    return brace >= 0 && !mayBeBareCall(this.#raw.slice(brace));
  }
}

/** The complete calls of a cut reply. Leaves out the last call if its arguments are incomplete. */
function wholeCalls(calls: readonly ReplyToolCall[]): readonly ReplyToolCall[] {
  return isJson(calls.at(-1)?.arguments) ? calls : calls.slice(0, -1);
}

/** Whether a call has complete arguments. True if there is no call. */
function hasArguments(call: ReplyToolCall | undefined): boolean {
  return call === undefined || call.arguments.trim() === '' || isJson(call.arguments);
}

function isJson(text: string | undefined): boolean {
  try {
    JSON.parse(text ?? '');
    return true;
  } catch {
    return false;
  }
}

const NOTHING: ReplyDelta = { text: '', reasoning: '' };
