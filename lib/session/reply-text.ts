import type { Model } from '../native/model.js';

/** Tokens in, text out: valid Unicode only. Half a character waits for its other half. */
export class ReplyText {
  readonly #model: Model;
  readonly #preserved: ReadonlySet<number>;
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  /** @param preserved control tokens whose text belongs to the reply */
  constructor(model: Model, preserved: ReadonlySet<number>) {
    this.#model = model;
    this.#preserved = preserved;
  }

  push(token: number): string {
    const bytes = this.#model.tokenToBytes(token, { special: this.#preserved.has(token) });
    return this.#decoder.decode(bytes, { stream: true });
  }

  /** U+FFFD where the model itself ended inside a character. */
  flush(): string {
    return this.#decoder.decode();
  }
}
