import type { Model } from '../native/model.js';

/** Converts tokens to text. Returns only whole characters, and holds back the bytes of an incomplete character. */
export class Detokenizer {
  readonly #model: Model;
  readonly #preserved: ReadonlySet<number>;
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  /** Whether the decoder may be holding back a part of a character. */
  #isCut = false;

  /** @param preserved control tokens whose text belongs to the reply */
  constructor(model: Model, preserved: ReadonlySet<number>) {
    this.#model = model;
    this.#preserved = preserved;
  }

  push(token: number): string {
    const special = this.#preserved.has(token);
    const whole = special ? undefined : this.#model.tokenToText(token);
    if (whole !== undefined && !this.#isCut) {
      return whole;
    }
    this.#isCut = whole === undefined || whole === '';
    return this.#decoder.decode(this.#model.tokenToBytes(token, { special }), { stream: true });
  }

  /** Returns U+FFFD if the text ended inside a character. */
  flush(): string {
    return this.#decoder.decode();
  }
}
