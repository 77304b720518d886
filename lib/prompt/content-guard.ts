// Text of users, tools and documents must never become a control token. If content contains the text of a control
// token, a random sentinel replaces this text before the chat template is rendered. After rendering, the original text
// replaces the sentinel and is tokenized as plain text.
import { randomBytes } from 'node:crypto';
import type { Model } from '../native/model.js';
import { concatTokens } from '../tokens.js';
import { hasFalseMark } from './system-notes.js';

/** The tags of the Hermes form. A prompt may contain these tags even if the chat template does not. */
const HERMES_TAGS = '<tools></tools><tool_call></tool_call><tool_response></tool_response>';

/** A character that no tokenizer merges with its neighbors. */
const UNMERGED = '\u{E000}';

/** A pattern that matches nothing. */
const NO_MATCH = /($.)/;

/** A piece of a prompt. */
export interface PromptPiece {
  text: string;
  /** Whether the text is content that looks like a control token. Such a piece is tokenized as plain text. */
  plain: boolean;
}

interface Markup {
  /** The ids of control and user-defined tokens, by their text. */
  byText: ReadonlyMap<string, number>;
  /** Matches the texts of control tokens. */
  control: RegExp;
  /** Matches the texts of control tokens, and of user-defined tokens that chat templates use. */
  markup: RegExp;
  /**
   * Matches the user-defined tokens of `markup`. The expression has a capture group, so `split` returns each of these
   * tokens as a separate piece.
   */
  userDefined: RegExp;
  /** Matches text that the chat template may remove from content. Undefined if the chat template removes nothing. */
  removed: RegExp | undefined;
}

type ContentMarkup = Pick<Markup, 'control' | 'markup' | 'removed'>;

/** Tokenizes the prompts of one model and chat template, so that no content becomes a control token. */
export class PlainText {
  readonly #model: Model;
  readonly #chatTemplate: string;
  #knownMarkup: Markup | undefined;
  #unmergedLength: Promise<number> | undefined;

  constructor(model: Model, chatTemplate: string) {
    this.#model = model;
    this.#chatTemplate = chatTemplate;
  }

  /** Creates a guard for one prompt. */
  guard(): ContentGuard {
    return new ContentGuard(this.#markup());
  }

  /** The control and user-defined tokens with these texts. */
  tokensOf(texts: readonly string[]): ReadonlySet<number> {
    const { byText } = this.#markup();
    return new Set(texts.flatMap((text) => byText.get(text) ?? []));
  }

  /** Tokenizes a text that is not a prompt, without BOS. The text of a control token becomes plain text. */
  plainTokens(text: string): Promise<Int32Array> {
    return this.tokenize([{ text, plain: true }]);
  }

  /** Tokenizes a part of a chat template that follows other text. */
  tokensAfterText(text: string): Promise<Int32Array> {
    return this.#piece(text, false, true);
  }

  /** Tokenizes the pieces of a prompt, without BOS. */
  async tokenize(pieces: readonly PromptPiece[]): Promise<Int32Array> {
    const parts: Int32Array[] = [];
    for (const { text, plain } of pieces) {
      for (const each of plain ? this.#withoutMarkup(text) : [text]) {
        parts.push(await this.#piece(each, plain, parts.length > 0));
      }
    }
    return concatTokens(parts);
  }

  /**
   * Cuts the text of each user-defined token into two pieces, because tokenizers find these tokens even in plain text.
   */
  #withoutMarkup(text: string): string[] {
    const parts = text.split(this.#markup().userDefined);
    return parts
      .flatMap((part, index) => (index % 2 === 0 ? [part] : [part.slice(0, 1), part.slice(1)]))
      .filter((part) => part !== '');
  }

  /**
   * Tokenizes a piece. SentencePiece puts a space in front of a text, but a piece that follows another one must not get
   * this space. Such a piece is tokenized together with a character in front of it. Then the tokens of this character
   * are removed.
   */
  async #piece(text: string, plain: boolean, follows: boolean): Promise<Int32Array> {
    const addsSpace = this.#model.info.vocabulary.type === 'spm' && follows;
    if (!addsSpace) {
      return this.#model.tokenize(text, { parseSpecial: !plain });
    }
    this.#unmergedLength ??= this.#model.tokenize(UNMERGED).then((tokens) => tokens.length);
    const length = await this.#unmergedLength;
    return (await this.#model.tokenize(UNMERGED + text, { parseSpecial: !plain })).slice(length);
  }

  #markup(): Markup {
    this.#knownMarkup ??= this.#findMarkup();
    return this.#knownMarkup;
  }

  #findMarkup(): Markup {
    const byText = new Map<string, number>();
    const control = new Set(['<unk>']);
    const userDefined = new Set<string>();
    const decoder = new TextDecoder();
    for (const token of this.#model.controlTokens()) {
      const text = decoder.decode(this.#model.tokenToBytes(token, { special: true }));
      byText.set(text, token);
      if (text.length < 2) {
        continue;
      }
      if (this.#model.isControl(token)) {
        control.add(text);
      } else if (LIKE_CONTROL.test(text)) {
        control.add(text);
        userDefined.add(text);
      } else if (this.#chatTemplate.includes(text) || HERMES_TAGS.includes(text)) {
        userDefined.add(text); // all others are harmless: runs of spaces, HTML tags
      }
    }
    const all = new Set([...control, ...userDefined]);
    return {
      byText,
      control: new RegExp(alternatives(control), 'g'),
      markup: new RegExp(alternatives(all), 'g'),
      userDefined: userDefined.size === 0 ? NO_MATCH : new RegExp(`(${alternatives(userDefined)})`),
      removed: removedTexts(this.#chatTemplate),
    };
  }
}

/** Puts sentinels into the content of one prompt, and finds them in its rendered text. */
export class ContentGuard {
  readonly #markup: ContentMarkup;
  readonly #mark = randomBytes(9).toString('hex');
  readonly #texts: string[] = [];

  constructor(markup: ContentMarkup) {
    this.#markup = markup;
  }

  /** Whether any content was replaced by a sentinel. */
  get isUsed(): boolean {
    return this.#texts.length > 0;
  }

  /**
   * Replaces the parts of a text that look like control tokens by sentinels.
   *
   * @param isReply whether the model wrote the text. In a reply, user-defined tokens such as tags stay unchanged.
   */
  text(content: string, isReply = false): string {
    const { control, markup, removed } = this.#markup;
    const lookAlikes = isReply ? control : markup;
    const guarded = content.replace(lookAlikes, this.#sentinelFor);
    if (removed === undefined) {
      return guarded;
    }
    const remaining = withoutTexts(guarded, removed);
    const becomesMarkup = remaining.search(lookAlikes) >= 0 || (!isReply && hasFalseMark(remaining));
    return becomesMarkup ? guarded.replace(removed, this.#sentinelFor) : guarded;
  }

  /**
   * Does the same as {@link ContentGuard.text} for a name. Chat templates put brackets around some names, and the name
   * in brackets may be a control token.
   */
  name(name: string): string {
    const guarded = this.text(name);
    const isMarkup = BRACKETS.some(([open, close]) => `${open}${guarded}${close}`.search(this.#markup.markup) >= 0);
    return isMarkup ? this.#sentinelFor(name) : guarded;
  }

  /**
   * Applies {@link ContentGuard.text} to every string in JSON data, and {@link ContentGuard.name} to the names of
   * properties.
   */
  json<T>(value: T): T {
    if (typeof value === 'string') {
      return this.text(value) as T;
    }
    if (Array.isArray(value)) {
      return value.map((each) => this.json(each)) as T;
    }
    if (typeof value === 'object' && value !== null) {
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [this.name(name), this.json(each)])) as T;
    }
    return value;
  }

  split(rendered: string): PromptPiece[] {
    if (!this.isUsed) {
      return [{ text: rendered, plain: false }];
    }
    // `split` puts the text of a capture group between the pieces. The flag `i` is needed because chat templates may
    // change the case.
    const parts = rendered.split(new RegExp(`x${this.#mark}n(\\d+)x`, 'i'));
    return parts
      .map((part, index) =>
        index % 2 === 0 ? { text: part, plain: false } : { text: this.#texts[Number(part)] as string, plain: true },
      )
      .filter(({ text }) => text !== '');
  }

  /** Equal texts get equal sentinels, because chat templates compare names and ids. */
  readonly #sentinelFor = (text: string): string => {
    const index = this.#texts.indexOf(text);
    return `x${this.#mark}n${index < 0 ? this.#texts.push(text) - 1 : index}x`;
  };
}

/** Removes the random part of sentinels, so that the result is the same for every guard. */
export function withoutSentinels(text: string): string {
  return text.replace(/x[0-9a-f]{18}(n\d+x)/g, '$1');
}

/**
 * User-defined tokens of this form are always markup. For example, llama.cpp makes gpt-oss's control tokens
 * user-defined.
 */
const LIKE_CONTROL = /^<[|\uFF5C].+[|\uFF5C]>$/;

/**
 * Brackets that chat templates put around names. For example, Qwen3-Coder's puts `<` and `>` around the keys of a
 * schema.
 */
const BRACKETS = [
  ['<', '>'],
  ['</', '>'],
  ['<|', '|>'],
  ['[', ']'],
] as const;

/**
 * Matches the texts that a chat template removes: `content.replace('/think', '')` would make `<|im_/thinkend|>` a
 * control token.
 */
function removedTexts(chatTemplate: string): RegExp | undefined {
  const calls = chatTemplate.matchAll(/\b(?:replace|split)\(\s*(["'])([^"'\\]+)\1/g);
  const texts = new Set(Array.from(calls, ([, , text]) => text as string));
  return texts.size === 0 ? undefined : new RegExp(alternatives(texts), 'g');
}

/**
 * Removes text four times, because a removal may create more text to remove. No chat template removes text more often.
 */
function withoutTexts(text: string, removed: RegExp): string {
  let remaining = text;
  for (let pass = 0; pass < 4; pass++) {
    remaining = remaining.replace(removed, '');
  }
  return remaining;
}

/** The source of a regular expression that matches any of the texts. Longer texts have priority. */
function alternatives(texts: Iterable<string>): string {
  return [...texts]
    .sort((a, b) => b.length - a.length)
    .map(escaped)
    .join('|');
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
