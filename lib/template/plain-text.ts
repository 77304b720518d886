// What a user, a tool or a document says can never become a control token: where such text occurs in content, a random
// sentinel stands in for it while the chat template is rendered, and it is tokenised as plain text in its place afterwards.
import { randomBytes } from 'node:crypto';
import type { Model } from '../native/model.js';

/** Tags of the Hermes form, which stand in prompts whose chat template does not have them. */
const HERMES_TAGS = '<tools></tools><tool_call></tool_call><tool_response></tool_response>';

/** A character that no tokeniser merges with its neighbours. */
const UNMERGED = '\u{E000}';

/** A piece of a prompt. */
export interface PromptPiece {
  text: string;
  /** Content that looks like markup and is none. */
  plain: boolean;
}

interface Markup {
  /** Control and user-defined tokens. */
  byText: ReadonlyMap<string, number>;
  control: RegExp;
  /** Control tokens, and user-defined ones that chat templates use. */
  markup: RegExp;
  userDefined: ReadonlySet<string>;
}

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
    const { control, markup } = this.#markup();
    return new ContentGuard(control, markup);
  }

  /** The control tokens with these texts. */
  tokensOf(texts: readonly string[]): ReadonlySet<number> {
    const { byText } = this.#markup();
    return new Set(texts.flatMap((text) => byText.get(text) ?? []));
  }

  /** Tokens of a prompt in pieces, without BOS. */
  async tokenize(pieces: readonly PromptPiece[]): Promise<Int32Array> {
    const parts: Int32Array[] = [];
    for (const [index, { text, plain }] of pieces.entries()) {
      const isMarkup = plain && this.#markup().userDefined.has(text);
      // User-defined tokens are found in plain text too, so these are taken in two.
      for (const each of isMarkup ? [text.slice(0, 1), text.slice(1)] : [text]) {
        parts.push(await this.#piece(each, plain, index > 0 || each !== text));
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
      } else if (this.#chatTemplate.includes(text) || HERMES_TAGS.includes(text)) {
        userDefined.add(text); // what is no markup (runs of spaces, HTML tags) is the tokeniser's affair
      }
    }
    return { byText, control: anyOf(control), markup: anyOf([...control, ...userDefined]), userDefined };
  }
}

/** Puts sentinels into the content of one prompt, and finds them in its rendered text. */
export class ContentGuard {
  readonly #control: RegExp;
  readonly #markup: RegExp;
  readonly #mark = randomBytes(9).toString('hex');
  readonly #texts: string[] = [];

  constructor(control: RegExp, markup: RegExp) {
    this.#control = control;
    this.#markup = markup;
  }

  /** Whether any content had to be guarded. */
  get isUsed(): boolean {
    return this.#texts.length > 0;
  }

  /** @param own written by the model itself: its own tags may stay */
  text(content: string, own = false): string {
    return content.replace(own ? this.#control : this.#markup, (found) => {
      this.#texts.push(found);
      return `x${this.#mark}n${this.#texts.length - 1}x`;
    });
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
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [this.text(name), this.json(each)])) as T;
    }
    return value;
  }

  split(rendered: string): PromptPiece[] {
    if (!this.isUsed) {
      return [{ text: rendered, plain: false }];
    }
    // A capture group in `split` puts what it matched between the pieces.
    const parts = rendered.split(new RegExp(`x${this.#mark}n(\\d+)x`));
    return parts
      .map((part, index) =>
        index % 2 === 0 ? { text: part, plain: false } : { text: this.#texts[Number(part)] as string, plain: true },
      )
      .filter(({ text }) => text !== '');
  }
}

function anyOf(texts: Iterable<string>): RegExp {
  const longestFirst = [...texts].sort((a, b) => b.length - a.length);
  return new RegExp(longestFirst.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|'), 'g');
}
