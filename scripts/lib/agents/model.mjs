// Generates the model that answers the agents. It has the vocabulary of Qwen2, so that prompts have as many tokens as
// with a real model. It has one narrow layer, so that 20,000 tokens take seconds. Its replies make no sense.

import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory } from '../../../bin/lib/make-directory.mjs';
import { root } from '../../../bin/lib/run.mjs';
import { layoutGguf, writeGguf } from '../../../test/fixtures/micro-models/gguf-writer.mjs';
import { attention, ends, feedForward, layers } from '../../../test/fixtures/micro-models/layers.mjs';
import { readGgufMetadata } from './gguf-metadata.mjs';

const MODELS = join(root, 'vendor/llama.cpp/models');
const VOCABULARY = join(MODELS, 'ggml-vocab-qwen2.gguf');
/** Increase this number with every change of the content, so that no test uses an older file. */
const VERSION = 1;
const WIDTH = { embedding: 32, feedForward: 32, heads: 1, kvHeads: 1 };

/** The number of tokens that a conversation may have. */
export const CONTEXT_SIZE = 65_536;

/** A chat template for each order in which chat templates write the system prompt and the tools. */
export const TEMPLATES = {
  'system-first': 'Qwen-Qwen2.5-7B-Instruct',
  'tools-first': 'NousResearch-Hermes-3-Llama-3.1-8B-tool_use',
};

/** @typedef {keyof typeof TEMPLATES} TemplateOrder */

/** @param {TemplateOrder} order @returns {Promise<string>} the chat template */
export function readTemplate(order) {
  return readFile(join(MODELS, 'templates', `${TEMPLATES[order]}.jinja`), 'utf8');
}

/**
 * Generates the model, unless an earlier call has done so.
 *
 * @param {string} directory
 * @returns {Promise<string>} the path of the model
 */
export async function ensureAgentModel(directory) {
  const path = join(directory, `agents-v${VERSION}.gguf`);
  const exists = await access(path).then(
    () => true,
    () => false,
  );
  if (!exists) {
    await makeDirectory(directory);
    await writeGguf(path, layoutModel(await readFile(VOCABULARY)));
  }
  return path;
}

/** @param {Buffer} vocabularyFile */
function layoutModel(vocabularyFile) {
  const tokenizer = readGgufMetadata(vocabularyFile).filter(([key]) => key.startsWith('tokenizer.'));
  const tokens = /** @type {string[]} */ (tokenizer.find(([key]) => key === 'tokenizer.ggml.tokens')?.[2]);
  const weights = [
    ...ends(tokens.map(isPrintable), 1, WIDTH),
    ...layers(1, () => [...attention(1, WIDTH), ...feedForward(WIDTH)]),
  ];
  return layoutGguf(
    [
      ['general.architecture', 'string', 'qwen2'],
      ['general.type', 'string', 'model'],
      ['general.name', 'string', 'llama-headstart agents'],
      ['general.file_type', 'uint32', 1],
      ['general.quantization_version', 'uint32', 2],
      ['qwen2.context_length', 'uint32', CONTEXT_SIZE],
      ['qwen2.embedding_length', 'uint32', WIDTH.embedding],
      ['qwen2.block_count', 'uint32', 1],
      ['qwen2.feed_forward_length', 'uint32', WIDTH.feedForward],
      ['qwen2.attention.layer_norm_rms_epsilon', 'float32', 1e-5],
      ['qwen2.attention.head_count', 'uint32', WIDTH.heads],
      ['qwen2.attention.head_count_kv', 'uint32', WIDTH.kvHeads],
      ...tokenizer,
    ],
    weights.map(({ name, shape, draw, full }) => ({
      name,
      shape,
      type: full || shape.length === 1 ? 'f32' : 'f16',
      values: () =>
        draw(
          `agents/${name}`,
          shape.reduce((product, length) => product * length, 1),
        ),
    })),
  );
}

/** Whether a token is printable ASCII text. The vocabulary writes spaces as U+0120 and line breaks as U+010A. */
function isPrintable(/** @type {string} */ token) {
  return /^[\x21-\x7e\u0120\u010a]+$/.test(token) && !/^<\|.*\|>$/.test(token);
}
