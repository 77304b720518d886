import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { ParsedReply, ReplyFormat, ReplyToolCall } from '../native/reply.js';
import { hasBareCalls, mayBeBareCall } from '../template/bare-calls.js';

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
  #text = '';
  #reasoning = '';

  constructor(model: Model, format: ReplyFormat, hasForm: boolean) {
    this.#model = model;
    this.#format = hasForm || format.supportsThinking ? format : undefined;
    this.#hasBareCalls = hasBareCalls(format);
  }

  /** Tool calls that have begun. */
  calls = 0;

  /** All text passed on so far. */
  get text(): string {
    return this.#text;
  }

  get reasoning(): string {
    return this.#reasoning;
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
    const parsed = await this.#parse(true);
    this.calls = Math.max(this.calls, parsed?.toolCalls.length ?? 0);
    return parsed === undefined ? NOTHING : this.#advance(parsed);
  }

  /**
   * The rest.
   *
   * @param cut the reply was ended before the model did: a tool call that is not complete is none
   */
  async finish(cut: boolean): Promise<ReplyDelta & { toolCalls: readonly ReplyToolCall[] }> {
    if (this.#format === undefined) {
      return { ...NOTHING, toolCalls: [] };
    }
    const whole = cut ? undefined : await this.#parse(false);
    const parsed = whole ?? (await this.#parse(true));
    if (parsed === undefined) {
      const rest = this.#raw.slice(this.#text.length); // in no known form: then it is text
      const isNew = this.#reasoning === '' && this.#raw.startsWith(this.#text);
      this.#text += isNew ? rest : '';
      return { text: isNew ? rest : '', reasoning: '', toolCalls: [] };
    }
    const toolCalls = whole === undefined ? await this.#completeCalls(parsed) : parsed.toolCalls;
    const rest = this.#advance(parsed);
    const space = toolCalls.length === 0 ? this.#unread(cut) : '';
    this.#text += space;
    return { ...rest, text: rest.text + space, toolCalls };
  }

  /** What the parser dropped at the end of a reply that is nothing but text: white space, and what only looked like markup. */
  #unread(cut: boolean): string {
    const isText = this.#reasoning === '' && this.#raw.startsWith(this.#text);
    const rest = this.#raw.slice(this.#text.length);
    return isText && (!cut || rest.trim() === '' || this.#isOutsideOfForm()) ? rest : '';
  }

  /** Whether a parser that knows text in its own markup only (gpt-oss's) found none, in what does not look like any. */
  #isOutsideOfForm(): boolean {
    const markup = this.#format?.preservedTokens ?? [];
    const begin = this.#raw.trimStart().slice(0, RECIPIENT.length);
    const isText = /^[^<>[{]/.test(begin) && !RECIPIENT.startsWith(begin);
    return this.#text === '' && isText && !markup.some((each) => this.#raw.includes(each));
  }

  /** Of a cut reply all calls but the last are complete; the last is where its arguments are. */
  async #completeCalls({ toolCalls }: ParsedReply): Promise<readonly ReplyToolCall[]> {
    const whole = toolCalls.length === 0 ? undefined : await this.#parse(false);
    const calls = whole?.toolCalls.length === toolCalls.length ? whole.toolCalls : toolCalls.slice(0, -1);
    return isJson(calls.at(-1)?.arguments) ? calls : calls.slice(0, -1);
  }

  /** Undefined for what is not in the format. */
  async #parse(partial: boolean): Promise<ParsedReply | undefined> {
    try {
      return await this.#model.parseReply({ rendered: this.#format as ReplyFormat, text: this.#raw, partial });
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

/** What gpt-oss begins a call with, before any markup. */
const RECIPIENT = 'to=';

function isJson(text: string | undefined): boolean {
  try {
    JSON.parse(text ?? '');
    return true;
  } catch {
    return false;
  }
}

const NOTHING: ReplyDelta = { text: '', reasoning: '' };
