// Converts positions in the text of a prompt to positions in its tokens.
import type { Model } from '../native/model.js';
import type { MessageBoundary } from './message-boundaries.js';
import type { TokenizedPrompt } from './renderer.js';
import { MERGE_MARGIN } from './template-boundary.js';

/** The positions of one prompt. */
export class TokenPositions {
  readonly #model: Model;
  readonly #prompt: TokenizedPrompt;
  /** The end of each token, in bytes of the text. */
  readonly #ends: Float64Array;

  private constructor(model: Model, prompt: TokenizedPrompt, ends: Float64Array) {
    this.#model = model;
    this.#prompt = prompt;
    this.#ends = ends;
  }

  /**
   * @returns undefined if the text of the tokens is not the text of the prompt, as with a tokenizer that changes case
   */
  static of(model: Model, prompt: TokenizedPrompt): TokenPositions | undefined {
    const { bos, addsBos } = model.info.vocabulary;
    const text = Buffer.from(prompt.text);
    const ends = new Float64Array(prompt.tokens.length);
    const isAt = (bytes: Uint8Array, position: number) =>
      position + bytes.length <= text.length &&
      text.compare(bytes, 0, bytes.length, position, position + bytes.length) === 0;
    let at = 0;
    for (const [index, token] of prompt.tokens.entries()) {
      const isBos = index === 0 && addsBos && token === bos;
      let bytes = isBos ? EMPTY : model.tokenToBytes(token, { special: true });
      if (!isAt(bytes, at) && bytes[0] === SPACE) {
        bytes = bytes.subarray(1); // SentencePiece puts a space in front of a text, and after a control token
      }
      if (!isAt(bytes, at)) {
        return undefined;
      }
      at += bytes.length;
      ends[index] = at;
    }
    return at === text.length ? new TokenPositions(model, prompt, ends) : undefined;
  }

  /** The index of the token that contains a position; the number of tokens for the end of the text. */
  tokenAt(position: number): number {
    return this.#firstEndAfter(this.#bytes(position));
  }

  /**
   * The number of tokens in front of a boundary. Undefined if the boundary is inside a token, or if another
   * content could change the tokens on the other side of the boundary. To exclude such a change, a control token, or a
   * word and another token, must be between each content and the boundary.
   */
  cut({ after, at, before }: MessageBoundary): number | undefined {
    const cut = this.tokenAt(at);
    if (this.#endOf(cut - 1) !== this.#bytes(at)) {
      return undefined;
    }
    const first = this.#firstStartFrom(this.#bytes(after));
    const last = this.tokenAt(before);
    const isStart = after === 0;
    const isEnd = before === this.#prompt.text.length;
    const isSeparate =
      (isStart || this.#isControl(cut) || this.#separates(first, cut)) &&
      (isEnd || this.#isControl(cut - 1) || this.#separates(cut, last));
    return isSeparate ? cut : undefined;
  }

  /** Extends a range of tokens by those that a merge could change. A control token is never part of a merge. */
  widened(from: number, to: number): { from: number; to: number } {
    let start = from;
    while (start > 0 && !this.#isControl(start - 1) && !this.#separates(start, from)) {
      start--;
    }
    let end = to;
    while (end < this.#ends.length && !this.#isControl(end) && !this.#separates(to, end)) {
      end++;
    }
    return { from: start, to: end };
  }

  /**
   * Whether no merge reaches over these tokens. Tokenizers first cut a text into words and runs of punctuation, so
   * tokens of punctuation alone do not separate.
   */
  #separates(from: number, to: number): boolean {
    const indices = Array.from({ length: Math.max(0, to - from) }, (_, index) => from + index);
    return (
      indices.some((index) => this.#isControl(index)) ||
      (indices.length >= MERGE_MARGIN && indices.some((index) => this.#isWord(index)))
    );
  }

  #isWord(index: number): boolean {
    return /[\p{L}\p{N}]/u.test(this.#textOf(index));
  }

  /**
   * Whether a token is a control token or a user-defined token. Runs of white space do not count: in some vocabularies
   * they are user-defined tokens, and their length depends on their neighbors.
   */
  #isControl(index: number): boolean {
    const token = this.#prompt.tokens[index];
    return token !== undefined && this.#model.controlTokens().has(token) && this.#textOf(index).trim() !== '';
  }

  #textOf(index: number): string {
    return new TextDecoder().decode(this.#model.tokenToBytes(this.#prompt.tokens[index] as number, { special: true }));
  }

  /** The position in bytes of UTF-8. */
  #bytes(position: number): number {
    return Buffer.byteLength(this.#prompt.text.slice(0, position));
  }

  #endOf(index: number): number {
    return index < 0 ? 0 : (this.#ends[index] as number);
  }

  /** The index of the first token that starts at this byte or later. */
  #firstStartFrom(byte: number): number {
    const index = this.#firstEndAfter(byte);
    return this.#endOf(index - 1) >= byte ? index : index + 1;
  }

  #firstEndAfter(byte: number): number {
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#ends[middle] as number) > byte) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }
}

const EMPTY = new Uint8Array();
const SPACE = 0x20;
