// The micro models' tokeniser: byte-level BPE as GPT-2 and Qwen have it, with a small vocabulary trained here.
// Pre-tokenisation and byte alphabet must match llama.cpp's `gpt2` model with the `qwen2` pre-tokeniser.

import { TRAINING_TEXT } from './training-text.mjs';

/** GGUF's `tokenizer.ggml.token_type` (`llama_token_type` in llama.h). */
const TOKEN_TYPE = { normal: 1, control: 3, userDefined: 4 };

/** Qwen's own tokens and their types. The order is Qwen's. */
const SPECIAL_TOKENS = /** @type {const} */ ([
  ['<|endoftext|>', TOKEN_TYPE.control],
  ['<|im_start|>', TOKEN_TYPE.control],
  ['<|im_end|>', TOKEN_TYPE.control],
  ['<tool_call>', TOKEN_TYPE.userDefined],
  ['</tool_call>', TOKEN_TYPE.userDefined],
  ['<think>', TOKEN_TYPE.userDefined],
  ['</think>', TOKEN_TYPE.userDefined],
]);

const BYTES = 256;

/** Tokens of the vocabulary in all; what bytes and special tokens leave is for merges. */
export const VOCABULARY_SIZE = 576;
const MERGES = VOCABULARY_SIZE - BYTES - SPECIAL_TOKENS.length;

/** The `qwen2` expression in llama-vocab.cpp. */
const PRE_TOKEN =
  /(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+/gu;

/**
 * @typedef {object} Vocabulary
 * @property {string[]} tokens in GPT-2's alphabet of visible characters, one for each byte
 * @property {number[]} types GGUF token types
 * @property {string[]} merges in order of rank, as "left right"
 * @property {boolean[]} printable whether the token is printable ASCII text: no special token, no part of a longer character
 */

/**
 * Trains the vocabulary; the same one every time.
 *
 * @returns {Vocabulary}
 */
export function createVocabulary() {
  const alphabet = byteAlphabet();
  const merges = trainMerges(TRAINING_TEXT, alphabet, MERGES);
  const texts = [...alphabet, ...merges.map(([left, right]) => left + right)];
  const specials = SPECIAL_TOKENS.map(([text]) => text);
  return {
    tokens: [...texts, ...specials],
    types: [...texts.map(() => TOKEN_TYPE.normal), ...SPECIAL_TOKENS.map(([, type]) => type)],
    merges: merges.map((pair) => pair.join(' ')),
    printable: [...texts.map((text) => isPrintable(text, alphabet)), ...specials.map(() => false)],
  };
}

/**
 * @param {Vocabulary} vocabulary
 * @param {string} chatTemplate Jinja source
 * @returns {import('./gguf-writer.mjs').Metadata[]}
 */
export function tokenizerMetadata({ tokens, types, merges }, chatTemplate) {
  return [
    ['tokenizer.ggml.model', 'string', 'gpt2'],
    ['tokenizer.ggml.pre', 'string', 'qwen2'],
    ['tokenizer.ggml.tokens', 'string[]', tokens],
    ['tokenizer.ggml.token_type', 'int32[]', types],
    ['tokenizer.ggml.merges', 'string[]', merges],
    ['tokenizer.ggml.bos_token_id', 'uint32', tokens.indexOf('<|endoftext|>')],
    ['tokenizer.ggml.eos_token_id', 'uint32', tokens.indexOf('<|im_end|>')],
    ['tokenizer.ggml.padding_token_id', 'uint32', tokens.indexOf('<|endoftext|>')],
    ['tokenizer.ggml.add_bos_token', 'bool', false],
    ['tokenizer.chat_template', 'string', chatTemplate],
  ];
}

/**
 * GPT-2's visible character for each byte: itself where it is visible in Latin-1, else the next one from U+0100 on
 * (`bytes_to_unicode` in openai/gpt-2's encoder.py).
 */
function byteAlphabet() {
  let substitutes = 0;
  return Array.from({ length: BYTES }, (_, byte) => {
    const visible = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(visible ? byte : 0x100 + substitutes++);
  });
}

/**
 * Byte-pair encoding: merges the most frequent pair of neighbours, again and again. Of equally frequent pairs the one
 * seen first wins (a Map keeps the order of insertion), so the result is fixed.
 *
 * @param {string} text
 * @param {string[]} alphabet
 * @param {number} count
 * @returns {[left: string, right: string][]}
 */
function trainMerges(text, alphabet, count) {
  const words = (text.match(PRE_TOKEN) ?? []).map((word) => Array.from(Buffer.from(word), (byte) => alphabet[byte]));
  /** @type {[string, string][]} */
  const merges = [];
  while (merges.length < count) {
    const pair = mostFrequentPair(words);
    if (!pair) throw new Error(`Expected a training text for ${count} merges, got one for ${merges.length}`);
    merges.push(pair);
    for (const word of words) mergeInPlace(word, pair);
  }
  return merges;
}

/**
 * @param {string[][]} words
 * @returns {[string, string] | undefined}
 */
function mostFrequentPair(words) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const word of words) {
    for (let at = 0; at + 1 < word.length; at++) {
      const pair = `${word[at]} ${word[at + 1]}`; // the alphabet has no space: byte 0x20 is written U+0120
      counts.set(pair, (counts.get(pair) ?? 0) + 1);
    }
  }
  let best;
  let most = 1; // a pair that occurs once is not worth a token
  for (const [pair, times] of counts) {
    if (times > most) [best, most] = [pair, times];
  }
  return /** @type {[string, string] | undefined} */ (best?.split(' '));
}

/**
 * @param {string[]} word
 * @param {[string, string]} pair
 */
function mergeInPlace(word, [left, right]) {
  for (let at = 0; at + 1 < word.length; at++) {
    if (word[at] === left && word[at + 1] === right) word.splice(at, 2, left + right);
  }
}

/**
 * @param {string} text in the alphabet
 * @param {string[]} alphabet
 */
function isPrintable(text, alphabet) {
  return Array.from(text, (character) => alphabet.indexOf(character)).every(
    (byte) => (byte >= 0x20 && byte <= 0x7e) || byte === 0x0a,
  );
}
