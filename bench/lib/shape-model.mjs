// Generates a model with the layers of Qwen2-0.5B, but six instead of 24, with random weights in Q8_0. Its attention
// differs from SmolLM2's: 14 heads share 2 KV heads, and the feed-forward layers take a larger part of the time.

import { join } from 'node:path';
import { makeDirectory } from '../../bin/lib/make-directory.mjs';
import { modelsDirectory } from '../../scripts/fetch-model.mjs';
import { hasLayout, layoutGguf, writeGguf } from '../../test/fixtures/micro-models/gguf-writer.mjs';
import { createVocabulary, tokenizerMetadata } from '../../test/fixtures/micro-models/tokenizer.mjs';
import { constant, normal } from '../../test/fixtures/micro-models/weights.mjs';

const LAYERS = 6;
const EMBEDDING = 896;
const FEED_FORWARD = 4864;
const HEADS = 14;
const KV_HEADS = 2;
const HEAD_SIZE = 64;
const CONTEXT_LENGTH = 32_768;

/** Matrices repeat this many random values, because the values do not matter for the speed. */
const RANDOM_VALUES = 1 << 16;
const Q8_0 = 7; // llama.cpp's LLAMA_FTYPE_MOSTLY_Q8_0

/** Writes the model if it does not exist yet. @returns {Promise<string>} its path */
export async function shapeModel() {
  const directory = join(modelsDirectory(), 'shapes');
  await makeDirectory(directory);
  const path = join(directory, 'qwen2-0.5b-6-layers-v1.gguf');
  const layout = layoutGguf(metadata(), tensors());
  if (!(await hasLayout(path, layout))) await writeGguf(path, layout);
  return path;
}

/** @returns {import('../../test/fixtures/micro-models/gguf-writer.mjs').Metadata[]} */
function metadata() {
  return [
    ['general.architecture', 'string', 'qwen2'],
    ['general.type', 'string', 'model'],
    ['general.name', 'string', 'llama-headstart shape of Qwen2-0.5B'],
    ['general.file_type', 'uint32', Q8_0],
    ['general.quantization_version', 'uint32', 2],
    ['qwen2.context_length', 'uint32', CONTEXT_LENGTH],
    ['qwen2.embedding_length', 'uint32', EMBEDDING],
    ['qwen2.block_count', 'uint32', LAYERS],
    ['qwen2.feed_forward_length', 'uint32', FEED_FORWARD],
    ['qwen2.attention.layer_norm_rms_epsilon', 'float32', 1e-6],
    ['qwen2.attention.head_count', 'uint32', HEADS],
    ['qwen2.attention.head_count_kv', 'uint32', KV_HEADS],
    ...tokenizerMetadata(createVocabulary(), CHAT_TEMPLATE),
  ];
}

const CHAT_TEMPLATE =
  "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}";

/** @returns {import('../../test/fixtures/micro-models/gguf-writer.mjs').Tensor[]} */
function tensors() {
  const tokens = createVocabulary().tokens.length;
  return [
    matrix('token_embd.weight', EMBEDDING, tokens),
    vector('output_norm.weight', EMBEDDING),
    matrix('output.weight', EMBEDDING, tokens),
    ...Array.from({ length: LAYERS }, (_, index) => layer(`blk.${index}`)).flat(),
  ];
}

/** @param {string} prefix */
function layer(prefix) {
  const keys = KV_HEADS * HEAD_SIZE;
  return [
    vector(`${prefix}.attn_norm.weight`, EMBEDDING),
    matrix(`${prefix}.attn_q.weight`, EMBEDDING, EMBEDDING),
    matrix(`${prefix}.attn_k.weight`, EMBEDDING, keys),
    matrix(`${prefix}.attn_v.weight`, EMBEDDING, keys),
    vector(`${prefix}.attn_q.bias`, EMBEDDING, 0),
    vector(`${prefix}.attn_k.bias`, keys, 0),
    vector(`${prefix}.attn_v.bias`, keys, 0),
    matrix(`${prefix}.attn_output.weight`, EMBEDDING, EMBEDDING),
    vector(`${prefix}.ffn_norm.weight`, EMBEDDING),
    matrix(`${prefix}.ffn_gate.weight`, EMBEDDING, FEED_FORWARD),
    matrix(`${prefix}.ffn_up.weight`, EMBEDDING, FEED_FORWARD),
    matrix(`${prefix}.ffn_down.weight`, FEED_FORWARD, EMBEDDING),
  ];
}

const vector = (/** @type {string} */ name, /** @type {number} */ length, value = 1) => ({
  name,
  shape: [length],
  type: /** @type {const} */ ('f32'),
  values: () => constant(length, value),
});

const matrix = (/** @type {string} */ name, /** @type {number} */ columns, /** @type {number} */ rows) => ({
  name,
  shape: [columns, rows],
  type: /** @type {const} */ ('q8_0'),
  values: () => {
    const random = normal(name, RANDOM_VALUES, 1 / Math.sqrt(columns));
    return Float32Array.from({ length: columns * rows }, (_, index) => random[index % RANDOM_VALUES]);
  },
});
