import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { ParsedReply, ReplyFormat, ReplyToolCall } from '../native/reply.js';
import { hasBareCalls, mayBeBareCall } from '../prompt/bare-calls.js';

/** New text of a reply. */
export interface ReplyDelta {
  text: string;
  reasoning: string;
}

/** A long reply is read again only when it grew by this share of its length: reading costs as much as it is long. */
const GROWTH = 1 / 256;

/**
 * Takes a reply apart while it grows: text, reasoning, tool calls. Markup is never passed on; what may yet become markup
 * waits.
 */
export class ReplyReader {
  readonly #model: Model;
  /** Undefined where the reply is nothing but text. */
  readonly #format: ReplyFormat | undefined;
  readonly #hasBareCalls: boolean;
  #raw = '';
  #readLength = 0;
  /** What of it had parts when it was read. */
  #goodLength = 0;
  #text = '';
  #reasoning = '';

  constructor(model: Model, format: ReplyFormat, hasForm: boolean) {
    this.#model = model;
    this.#format = hasForm || format.supportsThinking ? format : undefined;
    this.#hasBareCalls = hasBareCalls(format);
  }

  /** Tool calls that have begun, as far as the reply has been read. The array is replaced whenever the reply is read again. */
  begunCalls: readonly ReplyToolCall[] = [];

  /** How many tool calls have begun. */
  calls = 0;

  /** All text passed on so far. */
  get text(): string {
    return this.#text;
  }

  get reasoning(): string {
    return this.#reasoning;
  }

  /** How much of the reply is known: the characters of its reasoning; the characters of its text and the calls. */
  get lengths(): { reasoning: number; other: number } {
    return { reasoning: this.#reasoning.length, other: this.#text.length + this.calls };
  }

  /**
   * What is certain now: at once, where nothing has to be parsed for it.
   *
   * @param soon parse a long reply now, though it grew by little
   */
  push(piece: string, soon = false): ReplyDelta | Promise<ReplyDelta> {
    this.#raw += piece;
    if (this.#format === undefined) {
      this.#text += piece;
      return { text: piece, reasoning: '' };
    }
    const grew = this.#raw.length - this.#readLength;
    return grew < this.#raw.length * GROWTH && !soon ? NOTHING : this.#readOn();
  }

  async #readOn(): Promise<ReplyDelta> {
    this.#readLength = this.#raw.length;
    const parsed = await this.#parse('partial');
    if (parsed === undefined) {
      return NOTHING;
    }
    const { content, reasoning, toolCalls } = parsed;
    if (content !== '' || reasoning !== '' || toolCalls.length > 0) {
      this.#goodLength = this.#readLength;
    }
    this.calls = Math.max(this.calls, toolCalls.length);
    this.begunCalls = toolCalls;
    return this.#advance(parsed);
  }

  /**
   * The rest. What is no part of the form that the chat template implies is text, so that nothing the model wrote is lost.
   *
   * @param cut the reply was ended before the model did: what may have become a tool call is left out
   */
  async finish(cut: boolean): Promise<ReplyDelta & { toolCalls: readonly ReplyToolCall[] }> {
    if (this.#format === undefined) {
      return { ...NOTHING, toolCalls: [] };
    }
    const whole = await this.#parse('whole');
    const isRead = whole !== undefined && (cut || hasArguments(whole.toolCalls.at(-1)));
    const parsed = isRead ? whole : await this.#parse('beginning');
    if (parsed === undefined) {
      return { text: this.#told(this.#raw.slice(this.#plainLength ?? this.#goodLength)), reasoning: '', toolCalls: [] };
    }
    const toolCalls = isRead && cut ? wholeCalls(parsed.toolCalls) : parsed.toolCalls;
    const delta = this.#advance(parsed);
    const rest = this.#raw.slice(this.#restFrom(parsed));
    // What is left of a cut reply that fits the form may be the beginning of a call. White space behind a call is nothing.
    const isText = toolCalls.length === 0 ? !cut || !isRead || rest.trim() === '' : !isRead && rest.trim() !== '';
    return { ...delta, text: delta.text + this.#told(isText ? rest : ''), toolCalls };
  }

  #told(text: string): string {
    this.#text += text;
    return text;
  }

  /** How long the text is, where the reply is nothing else so far. */
  get #plainLength(): number | undefined {
    return this.#reasoning === '' && this.#raw.startsWith(this.#text) ? this.#text.length : undefined;
  }

  /** Where what was not passed on begins. White space that the parser dropped behind a text belongs to it. */
  #restFrom({ length, toolCalls }: ParsedReply): number {
    const from = toolCalls.length === 0 ? this.#plainLength : undefined;
    return from !== undefined && this.#raw.slice(from, length).trim() === '' ? from : length;
  }

  /** Undefined for what is not in the format. */
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

  /** What was passed on cannot be taken back: only what goes on from it is new. */
  #advance(parsed: ParsedReply): ReplyDelta {
    const { reasoning } = parsed;
    const content = this.#withSpace(parsed);
    const text = content.startsWith(this.#text) ? content.slice(this.#text.length) : '';
    const thought = reasoning.startsWith(this.#reasoning) ? reasoning.slice(this.#reasoning.length) : '';
    this.#text += text;
    this.#reasoning += thought;
    return { text, reasoning: thought };
  }

  /**
   * Parsers drop the white space around a reply. Where the reply is nothing but text it stays: the conversation, rendered
   * again, is then what the sequence holds.
   */
  #withSpace({ content, reasoning, toolCalls }: ParsedReply): string {
    if (reasoning === '' && toolCalls.length === 0 && this.#isAllText()) {
      return this.#raw;
    }
    const isText = content !== '' && reasoning === '' && toolCalls.length === 0;
    const start = this.#raw.length - this.#raw.trimStart().length;
    return isText && this.#raw.startsWith(content, start) ? this.#raw.slice(0, start) + content : content;
  }

  /** Where nothing marks a call, parsers wait from the first brace on for one, and read none behind it. */
  #isAllText(): boolean {
    const brace = this.#hasBareCalls ? this.#raw.indexOf('{') : -1;
    return brace >= 0 && !mayBeBareCall(this.#raw.slice(brace));
  }
}

/** Of a cut reply all calls but the last are whole; the last is where its arguments are. */
function wholeCalls(calls: readonly ReplyToolCall[]): readonly ReplyToolCall[] {
  return isJson(calls.at(-1)?.arguments) ? calls : calls.slice(0, -1);
}

/** Whether a call, if there is one, was written to the end of its arguments. */
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
