// Any text can be tokenized and detokenized, or is refused with an error code.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runChild } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';
import { codeOf, seededRandom } from '../helpers/native.js';
import { variants } from '../helpers/soak.js';

const VOCABULARIES = fileURLToPath(new URL('../../vendor/llama.cpp/models', import.meta.url));
const names = readdirSync(VOCABULARIES).filter((name) => /^ggml-vocab-.*\.gguf$/.test(name));
/**
 * One vocabulary for each kind of tokenizer: BPE (two of its many patterns), the BPE of Gemma 4, SentencePiece, unigram
 * and WordPiece.
 */
const KINDS = ['gpt-2', 'llama-bpe', 'gemma-4', 'llama-spm', 'nomic-bert-moe', 'bert-bge'];
const vocabularies = variants(names, (name) => KINDS.some((kind) => name === `ggml-vocab-${kind}.gguf`)).map((name) =>
  join(VOCABULARIES, name),
);

let model: Model;
beforeAll(async () => {
  model = await Model.load({ path: microModel('dense') });
});
afterAll(() => model?.close());

const roundTrip = async (text: string, options = {}) =>
  Buffer.from(await model.detokenize(await model.tokenize(text, options), { special: true })).toString();

describe('text', () => {
  it('is unchanged after a round trip: all scripts, emoji, NUL, the empty text', async () => {
    const texts = [
      '',
      'plain words',
      ' leading and trailing ',
      'a\0b\0',
      '🦙👩‍👩‍👧‍👦🇩🇪',
      '日本語 عربي हिन्दी',
      '\r\n\t\v',
      'ﬁ\u0301\uFEFF',
      '\u{10FFFF}',
    ];
    for (const text of texts) {
      expect(await roundTrip(text), JSON.stringify(text)).toBe(text);
    }
  });

  it('has U+FFFD for each unpaired surrogate after a round trip', async () => {
    expect(await roundTrip('a\uD800b')).toBe('a\uFFFDb');
    expect(await roundTrip('\uDC00')).toBe('\uFFFD');
    expect(await roundTrip('🦙'.slice(0, 1))).toBe('\uFFFD');
  });

  it('is unchanged after a round trip with random characters', async () => {
    const random = seededRandom(3);
    for (let round = 0; round < 50; round++) {
      const text = String.fromCodePoint(
        ...Array.from({ length: 200 }, () => Math.floor(random() ** 3 * 0x10ffff)).map((point) =>
          point >= 0xd800 && point < 0xe000 ? 0x20 : point,
        ),
      );
      expect(await roundTrip(text)).toBe(text);
    }
  });

  it('of many concurrent calls is returned to the right caller', async () => {
    const texts = Array.from({ length: 100 }, (_, index) => `text number ${index} of many`);
    expect(await Promise.all(texts.map((text) => roundTrip(text)))).toEqual(texts);
  });

  it('is the concatenation of the bytes of its tokens', async () => {
    const tokens = await model.tokenize('Grüße, 🦙!');
    expect(Buffer.concat([...tokens].map((token) => model.tokenToBytes(token))).toString()).toBe('Grüße, 🦙!');
  });
});

describe('the text of a single token', () => {
  it('is decoded from its bytes, and is undefined if the bytes are not complete characters', async () => {
    for (const token of await model.tokenize('Grüße, 🦙! \ufeff')) {
      for (const _ of ['first', 'cached']) {
        const text = model.tokenToText(token);
        const bytes = Buffer.from(model.tokenToBytes(token));
        const isComplete = Buffer.from(bytes.toString()).equals(bytes);
        expect(text).toBe(isComplete ? bytes.toString() : undefined);
      }
    }
    const llama = await model.tokenize('🦙');
    expect([...llama].map((token) => model.tokenToText(token))).toContain(undefined);
  });
});

describe('control tokens', () => {
  it('are parsed only with parseSpecial', async () => {
    const text = '<|im_start|>user';
    const parsed = await model.tokenize(text, { parseSpecial: true });
    const plain = await model.tokenize(text);
    const control = model.controlTokens();
    expect(control.has(parsed[0] as number)).toBe(true);
    expect([...plain].some((token) => control.has(token))).toBe(false);
    expect(plain.length).toBeGreaterThan(parsed.length);
    expect(await roundTrip(text, { parseSpecial: true })).toBe(text);
    expect(await roundTrip(text)).toBe(text);
  });

  it('have a text only with the option special', async () => {
    const tokens = await model.tokenize('<|im_start|>user<|im_end|>', { parseSpecial: true });
    expect(Buffer.from(await model.detokenize(tokens)).toString()).toBe('user');
    expect(model.tokenToBytes(tokens[0] as number)).toEqual(new Uint8Array(0));
    expect(Buffer.from(model.tokenToBytes(tokens[0] as number, { special: true })).toString()).toBe('<|im_start|>');
  });

  it('end generation if they are the EOS or EOT token', async () => {
    const { eos, eot } = model.info.vocabulary;
    expect(model.isEndOfGeneration((eos ?? eot) as number)).toBe(true);
    expect(model.isEndOfGeneration(0)).toBe(false);
  });
});

describe('very long text', () => {
  it('is tokenized if it has breaks, and refused if it has no breaks, with every kind of vocabulary', async () => {
    expect(vocabularies.length).toBeGreaterThanOrEqual(KINDS.length);
    const halves = [0, 1].map((half) => vocabularies.filter((_, at) => at % 2 === half));
    const children = await Promise.all(halves.map((paths) => runChild('native/children/tokenize-extremes.mjs', paths)));
    for (const [half, { stdout, ...end }] of children.entries()) {
      expect(end, stdout).toEqual({ code: 0, signal: null, stderr: '' });
      const outcomes = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      expect(outcomes).toEqual(
        halves[half]?.map(() => ({
          'a megabyte of one letter': 'TEXT_UNBREAKABLE',
          'a megabyte of spaces': 'TEXT_UNBREAKABLE',
          'letters up to the limit': 'tokens',
          'spaces up to the limit': 'tokens',
          'words beyond the limit': 'tokens',
        })),
      );
    }
  });

  it('is refused if it is longer than 256 MiB', async () => {
    expect(await codeOf(() => model.tokenize('word '.repeat(54 << 20)))).toBe('TEXT_TOO_LONG');
  });
});
