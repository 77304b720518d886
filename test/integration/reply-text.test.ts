// Tokens become text one by one. Each piece has whole characters only, even if tokens split a character.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { Detokenizer } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const MODELS_DIRECTORY = fileURLToPath(new URL('../../vendor/llama.cpp/models', import.meta.url));

describe.each(['qwen2', 'gpt-2', 'llama-spm'])("a reply's text in the vocabulary %s", (name) => {
  let model: Model;
  let control: number[];
  beforeAll(async () => {
    model = await Model.load({ path: join(MODELS_DIRECTORY, `ggml-vocab-${name}.gguf`), vocabularyOnly: true });
    control = [...model.controlTokens()].filter((token) => model.isControl(token));
  });
  afterAll(() => model.close());

  /** Returns the text that each token adds, and the text that is left at the end. */
  function pieces(tokens: Iterable<number>, preserved: readonly number[] = []): string[] {
    const text = new Detokenizer(model, new Set(preserved));
    return [...Array.from(tokens, (token) => text.push(token)), text.flush()];
  }

  /** Returns the texts that a streaming UTF-8 decoder gives for the same tokens. */
  function expected(tokens: readonly number[], preserved: readonly number[]): string[] {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    const bytes = tokens.map((token) => model.tokenToBytes(token, { special: preserved.includes(token) }));
    return [...bytes.map((each) => decoder.decode(each, { stream: true })), decoder.decode()];
  }

  it('is the text that was tokenized, in pieces of whole characters', async () => {
    for (const text of [
      '\u{1F468}\u200D\u{1F469}\u200D\u{1F467} are\u{1F6B2}',
      '日本語ですか',
      'naïve\r\n',
      '\uFEFFa\uFEFF',
    ]) {
      const tokens = await model.tokenize(text);
      expect(tokens.length).toBeGreaterThan(2);
      const all = pieces(tokens);
      expect(all.join('')).toBe(name === 'llama-spm' ? ` ${text}` : text); // SentencePiece adds a space in front
      expect(all.at(-1)).toBe('');
      expect(all.filter((each) => /[\uFFFD\p{Surrogate}]/u.test(each))).toEqual([]);
    }
  });

  it('equals the output of a UTF-8 decoder for any tokens, including visible and hidden control tokens', () => {
    const { size } = model.info.vocabulary;
    const partial = Array.from({ length: size }, (_, token) => token).filter(
      (token) => !control.includes(token) && model.tokenToText(token) === undefined,
    );
    expect(partial.length).toBeGreaterThan(50);
    const token = fc.oneof(fc.constantFrom(...partial), fc.constantFrom(...control), fc.nat(size - 1));
    const visible = fc.subarray(control.slice(0, 4));
    fc.assert(
      fc.property(fc.array(token, { maxLength: 12 }), visible, (tokens, preserved) => {
        expect(pieces(tokens, preserved)).toEqual(expected(tokens, preserved));
      }),
      { numRuns: 500 },
    );
  });
});
