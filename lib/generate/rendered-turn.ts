// Finds out whether the turn of a rendered prompt is a reply that was sampled.
import { isDeepStrictEqual } from 'node:util';
import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { Renderer, TemplateSource } from '../prompt/renderer.js';
import { findReplyEnd } from '../prompt/reply-end.js';
import { commonPrefixLength, sameTokens } from '../tokens.js';
import { Detokenizer } from './detokenizer.js';
import { ReplyReader, type ReplyValues } from './reply-reader.js';
import { haveSameValues, isBeginningOf, type SampledReply } from './sampled-reply.js';

/** Whose conversation a reply belongs to. */
export interface ReplyOwner {
  tenant?: string | undefined;
  affinity?: string | undefined;
}

/** A sampled reply, and what later prompts showed about it. */
export interface KnownReply {
  readonly reply: SampledReply;
  /** Undefined if unknown. */
  readonly owner: ReplyOwner | undefined;
  /** The conversations that sampled the reply, or whose prompts contain it. */
  readonly keepers: WeakSet<object>;
  /** Whether a later prompt contains the reply. */
  isContinued: boolean;
  /** The newest turn that was read to compare its values with the reply, and the result. */
  compared?: { turn: Int32Array; isSame: boolean };
}

/** The conversation that a prompt shows. */
export interface Conversation {
  source: TemplateSource;
  messages: readonly ChatMessage[];
}

/** A turn of a prompt that a sampled reply replaces. */
export interface TurnMatch {
  known: KnownReply;
  /** The tokens that replace those of the turn. */
  tokens: readonly number[] | Int32Array;
  /** The position of the first token after the turn. */
  end: number;
}

/** A turn that does not end after this number of possible ends is not searched further. */
const MAX_ENDS = 4;

/** Compares the turns of prompts with sampled replies. */
export class TurnMatcher {
  readonly #model: Model;
  readonly #renderer: Renderer;
  #replyEnd: Promise<number | undefined> | undefined;

  constructor(model: Model, renderer: Renderer) {
    this.#model = model;
    this.#renderer = renderer;
  }

  /**
   * Finds the reply that is the turn at position `at`.
   *
   * @param replies replies whose prompts end at this position, apart from their openings; the preferred ones first
   */
  async find(
    prompt: Int32Array,
    at: number,
    replies: readonly KnownReply[],
    conversation: Conversation,
  ): Promise<TurnMatch | undefined> {
    const ends = this.#ends(prompt, at, await this.#closingToken());
    for (const known of replies) {
      const { opening, tokens } = known.reply;
      const sampled = [...opening, ...tokens];
      for (const end of ends) {
        const turn = prompt.subarray(at, end);
        if (sameTokens(sampled, turn)) {
          return { known, tokens: turn, end };
        }
        if (await this.#isSame(known, turn, conversation)) {
          return { known, tokens: known.reply.isWhole ? sampled : this.#withBeginning(known.reply, turn), end };
        }
      }
    }
    return undefined;
  }

  /** The positions at which the turn may end: in front of the first token that ends generation, or of `closing`. */
  #ends(prompt: Int32Array, at: number, closing: number | undefined): number[] {
    const ends: number[] = [];
    for (let end = at; end < prompt.length && ends.length < MAX_ENDS; end++) {
      const token = prompt[end] as number;
      const isLast = this.#model.isEndOfGeneration(token);
      if (isLast || token === closing) {
        ends.push(end);
      }
      if (isLast) {
        break;
      }
    }
    return ends;
  }

  #closingToken(): Promise<number | undefined> {
    this.#replyEnd ??= findReplyEnd(this.#model, this.#renderer).catch(() => undefined);
    return this.#replyEnd;
  }

  async #isSame(known: KnownReply, turn: Int32Array, conversation: Conversation): Promise<boolean> {
    if (known.compared === undefined || !sameTokens(known.compared.turn, turn)) {
      known.compared = { turn: turn.slice(), isSame: await this.#hasValuesOf(known.reply, turn, conversation) };
    }
    return known.compared.isSame;
  }

  /** Reads the turn in the format of the reply, and compares the values. */
  async #hasValuesOf({ format: options, ...reply }: SampledReply, turn: Int32Array, conversation: Conversation) {
    try {
      const format = await this.#renderer.format(conversation.source, conversation.messages, options);
      const preserved = this.#renderer.preservedTokens(format);
      const [opening, whole] = [this.#text(reply.opening, preserved), this.#text(turn, preserved)];
      if (!whole.startsWith(opening)) {
        return false;
      }
      const text = whole.slice(opening.length);
      if (text === this.#text(reply.tokens, preserved)) {
        return isDeepStrictEqual(tokensIn(preserved, turn), tokensIn(preserved, reply.tokens));
      }
      if (this.#looksLikeMarkup(text, turn, preserved)) {
        return false;
      }
      const values = await ReplyReader.read(this.#model, format, options.isStructured, text);
      return reply.isWhole ? haveSameValues(reply.values, values) : isBeginningOf(reply.values, values);
    } catch (error) {
      if (HeadstartError.isInstance(error)) {
        return false; // for example, the tools of the reply are no longer part of the prompt
      }
      throw error;
    }
  }

  /**
   * Whether the turn contains the text of a control token as plain text, because a client sent this text. The parser of
   * the format could not tell the two apart, and plain text would become a call.
   */
  #looksLikeMarkup(text: string, turn: Int32Array, preserved: ReadonlySet<number>): boolean {
    const texts = [...preserved].map((token) => this.#text([token], preserved));
    const count = texts.reduce((sum, each) => sum + text.split(each).length - 1, 0);
    return count > tokensIn(preserved, turn).length;
  }

  #text(tokens: Iterable<number>, preserved: ReadonlySet<number>): string {
    const detokenizer = new Detokenizer(this.#model, preserved);
    let text = '';
    for (const token of tokens) {
      text += detokenizer.push(token);
    }
    return text + detokenizer.flush();
  }

  /**
   * Replaces the first tokens of the turn by the sampled tokens of a cut reply with the same text. The replacement ends
   * at the last position inside the visible text at which a sampled token and a token of the turn both end, but not
   * inside a character. The other tokens of the turn stay.
   */
  #withBeginning({ opening, tokens, values }: SampledReply, turn: Int32Array): number[] {
    const sampled = [...opening, ...tokens];
    const [mine, theirs] = [this.#bytes(sampled), this.#bytes([...turn])];
    const [raw, text] = [Buffer.concat(mine), Buffer.concat(theirs)];
    const start = endsOf(mine)[opening.length - 1] ?? 0;
    const shared = Math.min(commonPrefixLength(raw, text), visibleEnd(raw, start, values));
    const counts = new Map(endsOf(mine).map((end, index) => [end, index + 1]));
    const ends = endsOf(theirs);
    const last = ends.findLastIndex((end) => end <= shared && counts.has(end) && !isInCharacter(text, end));
    return last < 0 ? [...turn] : [...sampled.slice(0, counts.get(ends[last] as number)), ...turn.subarray(last + 1)];
  }

  #bytes(tokens: readonly number[]): Uint8Array[] {
    return tokens.map((token) => this.#model.tokenToBytes(token, { special: true }));
  }
}

function tokensIn(set: ReadonlySet<number>, tokens: ArrayLike<number>): number[] {
  return Array.from(tokens).filter((token) => set.has(token));
}

/** The end of each part in the concatenation of the parts. */
function endsOf(parts: readonly Uint8Array[]): number[] {
  let end = 0;
  return parts.map(({ length }) => (end += length));
}

/**
 * The end of the visible text in the bytes of a reply, or of the reasoning if there is no text. Calls may follow. The
 * result may be too small, but never too large, if the same text occurs earlier.
 *
 * @param start the position at which the reply begins
 */
function visibleEnd(raw: Buffer, start: number, { reasoning, text }: ReplyValues): number {
  return [reasoning, text].reduce((end, part) => {
    const [certain = ''] = part.split('\ufffd'); // the character stands for bytes that are no text
    const at = raw.indexOf(certain, end);
    return at < 0 ? end : at + Buffer.byteLength(certain);
  }, start);
}

/** Whether a position in a text is inside a character of UTF-8. */
function isInCharacter(text: Uint8Array, position: number): boolean {
  return ((text[position] ?? 0) & 0xc0) === 0x80;
}
