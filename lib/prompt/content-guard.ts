// What a user, a tool or a document says can never become a control token: where such text occurs in content, a random
// sentinel stands in for it while the chat template is rendered, and it is tokenised as plain text in its place afterwards.
import { randomBytes } from 'node:crypto';
import type { Model } from '../native/model.js';

/** Tags of the Hermes form, which stand in prompts whose chat template does not have them. */
const HERMES_TAGS = '<tools></tools><tool_call></tool_call><tool_response></tool_response>';

/** A character that no tokeniser merges with its neighbours. */
const UNMERGED = '\u{E000}';

/** Matches nothing. */
const NOWHERE = /($.)/;

/** A piece of a prompt. */
export interface PromptPiece {
  text: string;
  /** Content that looks like markup and is none. */
  plain: boolean;
}

interface Markup {
  /** Control and user-defined tokens. */
  byText: ReadonlyMap<string, number>;
  /** Control tokens. */
  control: RegExp;
  /** Control tokens, and user-defined ones that chat templates use. */
  markup: RegExp;
  /** User-defined tokens among that: alone in the pieces that `split` makes of a text. */
  userDefined: RegExp;
  /** What the chat template may take out of a text; undefined where that is nothing. */
  removed: RegExp | undefined;
}

type ContentMarkup = Pick<Markup, 'control' | 'markup' | 'removed'>;

/** Knows which texts a model's tokeniser would take for markup. */
export class PlainText {
  readonly #model: Model;
  readonly #chatTemplate: string;
  #known: Markup | undefined;
  #unmergedLength: Promise<number> | undefined;

  constructor(model: Model, chatTemplate: string) {
    this.#model = model;
    this.#chatTemplate = chatTemplate;
  }

  /** The guard of one prompt. */
  guard(): ContentGuard {
    return new ContentGuard(this.#markup());
  }

  /** The control tokens with these texts. */
  tokensOf(texts: readonly string[]): ReadonlySet<number> {
    const { byText } = this.#markup();
    return new Set(texts.flatMap((text) => byText.get(text) ?? []));
  }

  /** Tokens of a text that is no prompt, without BOS: nothing in it is markup. */
  plainTokens(text: string): Promise<Int32Array> {
    return this.tokenize([{ text, plain: true }]);
  }

  /** Tokens of a text of the chat template that follows another. */
  tokensBehind(text: string): Promise<Int32Array> {
    return this.#piece(text, false, true);
  }

  /** Tokens of a prompt in pieces, without BOS. */
  async tokenize(pieces: readonly PromptPiece[]): Promise<Int32Array> {
    const parts: Int32Array[] = [];
    for (const { text, plain } of pieces) {
      for (const each of plain ? this.#withoutMarkup(text) : [text]) {
        parts.push(await this.#piece(each, plain, parts.length > 0));
      }
    }
    const tokens = new Int32Array(parts.reduce((total, part) => total + part.length, 0));
    let at = 0;
    for (const part of parts) {
      tokens.set(part, at);
      at += part.length;
    }
    return tokens;
  }

  /** User-defined tokens are found in plain text too, so these are taken in two. */
  #withoutMarkup(text: string): string[] {
    const parts = text.split(this.#markup().userDefined);
    return parts
      .flatMap((part, index) => (index % 2 === 0 ? [part] : [part.slice(0, 1), part.slice(1)]))
      .filter((part) => part !== '');
  }

  /** SentencePiece puts a space in front of a text: behind a character that is taken away again it does not count. */
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
    this.#known ??= this.#findMarkup();
    return this.#known;
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
        userDefined.add(text); // what is no markup (runs of spaces, HTML tags) is the tokeniser's affair
      }
    }
    const all = new Set([...control, ...userDefined]);
    return {
      byText,
      control: new RegExp(alternatives(control), 'g'),
      markup: new RegExp(alternatives(all), 'g'),
      userDefined: userDefined.size === 0 ? NOWHERE : new RegExp(`(${alternatives(userDefined)})`),
      removed: removedBy(this.#chatTemplate),
    };
  }
}

/** Puts sentinels into the content of one prompt, and finds them in its rendered text. */
export class ContentGuard {
  readonly #known: ContentMarkup;
  readonly #mark = randomBytes(9).toString('hex');
  readonly #texts: string[] = [];

  constructor(known: ContentMarkup) {
    this.#known = known;
  }

  /** Whether any content had to be guarded. */
  get isUsed(): boolean {
    return this.#texts.length > 0;
  }

  /** @param own written by the model itself: its own tags may stay */
  text(content: string, own = false): string {
    const { control, markup, removed } = this.#known;
    const looksLike = own ? control : markup;
    const guarded = content.replace(looksLike, this.#standIn);
    return removed !== undefined && without(guarded, removed).search(looksLike) >= 0
      ? guarded.replace(removed, this.#standIn)
      : guarded;
  }

  /** {@link text} of a name: chat templates put brackets around some, and both together may be markup. */
  name(name: string): string {
    const guarded = this.text(name);
    const isMarkup = BRACKETS.some(([open, close]) => `${open}${guarded}${close}`.search(this.#known.markup) >= 0);
    return isMarkup ? this.#standIn(name) : guarded;
  }

  /** {@link text} for every string in JSON data, names too. */
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
    // A capture group in `split` puts what it matched between the pieces. In any case: chat templates may change that.
    const parts = rendered.split(new RegExp(`x${this.#mark}n(\\d+)x`, 'i'));
    return parts
      .map((part, index) =>
        index % 2 === 0 ? { text: part, plain: false } : { text: this.#texts[Number(part)] as string, plain: true },
      )
      .filter(({ text }) => text !== '');
  }

  /** Equal texts alike: chat templates compare names and ids. */
  readonly #standIn = (found: string): string => {
    const known = this.#texts.indexOf(found);
    const place = known < 0 ? this.#texts.push(found) - 1 : known;
    return `x${this.#mark}n${place}x`;
  };
}

/** A text that is the same however often its content is guarded. */
export function withoutSentinels(text: string): string {
  return text.replace(/x[0-9a-f]{18}(n\d+x)/g, '$1');
}

/** User-defined tokens of this form are markup wherever they stand (gpt-oss's, which llama.cpp makes user-defined). */
const LIKE_CONTROL = /^<[|\uFF5C].+[|\uFF5C]>$/;

/** What chat templates put around names: Qwen3-Coder's, `<` and `>` around the keys of a schema. */
const BRACKETS = [
  ['<', '>'],
  ['</', '>'],
  ['<|', '|>'],
  ['[', ']'],
] as const;

/** What a chat template cuts out of texts: behind `content.replace('/think', '')`, `<|im_/thinkend|>` is a control token. */
function removedBy(chatTemplate: string): RegExp | undefined {
  const calls = chatTemplate.matchAll(/\b(?:replace|split)\(\s*(["'])([^"'\\]+)\1/g);
  const texts = new Set(Array.from(calls, ([, , text]) => text as string));
  return texts.size === 0 ? undefined : new RegExp(alternatives(texts), 'g');
}

/** A text without what is removed from it, and then from what is left: as often as a chat template may do that. */
function without(text: string, removed: RegExp): string {
  let left = text;
  for (let pass = 0; pass < 4; pass++) {
    left = left.replace(removed, '');
  }
  return left;
}

/** The source of a pattern: the longest first. */
function alternatives(texts: Iterable<string>): string {
  return [...texts]
    .sort((a, b) => b.length - a.length)
    .map(escaped)
    .join('|');
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
