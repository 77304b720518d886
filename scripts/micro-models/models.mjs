// Micro models: real GGUF files of about a megabyte with pseudo-random weights, for tests that want every kind of
// llama.cpp memory but no meaning. They load in milliseconds and are the same bytes on every machine.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeDirectory } from '../lib/make-directory.mjs';
import { dense, hybrid, longRope, recurrent, slidingWindow, wide } from './architectures.mjs';
import { hasLayout, layoutGguf, writeGguf } from './gguf-writer.mjs';
import { createVocabulary, tokenizerMetadata } from './tokenizer.mjs';

/** Raise with every change of the files' content, so that no test finds an older one. */
const FORMAT_VERSION = 1;

/** llama.cpp's `LLAMA_FTYPE_MOSTLY_F16`, `_Q8_0`, `_Q4_K_S` and `_IQ2_XXS`. */
const FILE_TYPE = { f16: 1, q8_0: 7, q4_k: 14, iq2_xxs: 19 };

const VENDOR_DIRECTORY = fileURLToPath(new URL('../../vendor/llama.cpp', import.meta.url));
const CHAT_TEMPLATE = 'models/templates/Qwen-Qwen2.5-7B-Instruct.jinja';

/**
 * @typedef {object} MicroModel
 * @property {string} description one line
 * @property {(printable: boolean[]) => import('./architectures.mjs').Architecture} architecture
 * @property {string} seed models of one architecture and seed have the same weights
 * @property {'f16' | 'q8_0' | 'q4_k' | 'iq2_xxs'} [type] of the matrices
 * @property {boolean} [withoutTokenizer]
 */

/** @satisfies {Record<string, MicroModel>} */
const DEFINITIONS = {
  dense: {
    description: 'qwen2, 3 layers, grouped-query attention',
    architecture: dense,
    seed: 'dense',
  },
  'dense-other': {
    description: 'the shape of dense with other weights',
    architecture: dense,
    seed: 'dense-other',
  },
  'dense-quantised': {
    description: 'the weights of dense in Q8_0',
    architecture: dense,
    seed: 'dense',
    type: 'q8_0',
  },
  'wide-q4_k': {
    description: 'the shape of dense, twice as wide, in Q4_K',
    architecture: wide,
    seed: 'wide',
    type: 'q4_k',
  },
  'wide-iq2_xxs': {
    description: 'the same in IQ2_XXS',
    architecture: wide,
    seed: 'wide',
    type: 'iq2_xxs',
  },
  'no-tokenizer': {
    description: 'the weights of dense without tokeniser and chat template',
    architecture: dense,
    seed: 'dense',
    withoutTokenizer: true,
  },
  'sliding-window': {
    description: 'gemma3, 4 layers, a window of 64 tokens in every other one',
    architecture: slidingWindow,
    seed: 'sliding-window',
  },
  'long-rope': {
    description: 'phi3, 2 layers, RoPE factors for contexts under and over 1,024 tokens',
    architecture: longRope,
    seed: 'long-rope',
  },
  recurrent: {
    description: 'mamba, 3 layers, no KV cache',
    architecture: recurrent,
    seed: 'recurrent',
  },
  hybrid: {
    description: 'jamba, 4 layers, Mamba and attention in turns',
    architecture: hybrid,
    seed: 'hybrid',
  },
};

/** What `reproducible` is tested on: F16, Q8_0, Q4_K and IQ2_XXS; sliding-window, recurrent and hybrid memory. */
export const REPRODUCIBLE_MODELS = /** @type {const} */ ([
  'dense',
  'dense-quantised',
  'wide-q4_k',
  'wide-iq2_xxs',
  'sliding-window',
  'recurrent',
  'hybrid',
]);

/** @typedef {keyof typeof DEFINITIONS} MicroModelName */

/**
 * Every micro model's name and one line about it.
 *
 * @type {Readonly<Record<MicroModelName, string>>}
 */
export const MICRO_MODELS = Object.freeze(
  /** @type {Record<MicroModelName, string>} */ (
    Object.fromEntries(Object.entries(DEFINITIONS).map(([name, { description }]) => [name, description]))
  ),
);

/**
 * Makes sure that the micro models are in `directory`. Whole files from an earlier call are kept; callers and processes
 * that do this at the same time do not harm one another.
 *
 * @template {MicroModelName} [Name=MicroModelName]
 * @param {string} directory made if missing
 * @param {object} [options]
 * @param {readonly Name[]} [options.only] default: all
 * @param {(progress: { name: Name, path: string, byteLength: number, written: boolean }) => void} [options.onProgress]
 *   called once a model; `written` is false for a file that was there
 * @param {string} [options.vendorDirectory] of llama.cpp, for the chat template. Default: the vendored one
 * @returns {Promise<Record<Name, string>>} paths by name
 */
export async function generateMicroModels(directory, options = {}) {
  const {
    only = /** @type {Name[]} */ (Object.keys(DEFINITIONS)),
    onProgress,
    vendorDirectory = VENDOR_DIRECTORY,
  } = options;
  const unknown = only.filter((name) => !Object.hasOwn(DEFINITIONS, name));
  if (unknown.length > 0) {
    throw new RangeError(
      `Expected micro models among ${Object.keys(DEFINITIONS).join(', ')}, got ${unknown.join(', ')}`,
    );
  }
  const chatTemplate = await readFile(join(vendorDirectory, CHAT_TEMPLATE), 'utf8');
  const vocabulary = createVocabulary();
  await makeDirectory(directory);

  const paths = /** @type {Record<Name, string>} */ ({});
  for (const name of only) {
    const path = join(directory, `micro-${name}-v${FORMAT_VERSION}.gguf`);
    const layout = layoutModel(name, DEFINITIONS[name], vocabulary, chatTemplate);
    const written = await ensureFile(path, layout);
    paths[name] = path;
    onProgress?.({ name, path, byteLength: layout.byteLength, written });
  }
  return paths;
}

/**
 * @param {string} path
 * @param {import('./gguf-writer.mjs').Layout} layout
 * @returns {Promise<boolean>} whether it had to be written
 */
async function ensureFile(path, layout) {
  if (await hasLayout(path, layout)) return false;
  try {
    await writeGguf(path, layout);
  } catch (error) {
    // Windows does not rename onto a file that someone has open: someone who wrote the same file before us.
    if (!(await hasLayout(path, layout))) throw error;
  }
  return true;
}

/**
 * @param {string} name
 * @param {MicroModel} model
 * @param {import('./tokenizer.mjs').Vocabulary} vocabulary
 * @param {string} chatTemplate
 */
function layoutModel(name, { architecture, seed, type = 'f16', withoutTokenizer = false }, vocabulary, chatTemplate) {
  const { name: architectureName, metadata, weights } = architecture(vocabulary.printable);
  const tokenizer = withoutTokenizer
    ? noTokenizerMetadata(architectureName, vocabulary.tokens.length)
    : tokenizerMetadata(vocabulary, chatTemplate);
  return layoutGguf(
    [
      ['general.architecture', 'string', architectureName],
      ['general.type', 'string', 'model'],
      ['general.name', 'string', `llama-headstart micro ${name}`],
      ['general.file_type', 'uint32', FILE_TYPE[type]],
      ['general.quantization_version', 'uint32', 2],
      ...metadata,
      ...tokenizer,
    ],
    weights.map((each) => toTensor(each, seed, type)),
  );
}

/**
 * @param {string} architectureName
 * @param {number} size tokens
 * @returns {import('./gguf-writer.mjs').Metadata[]}
 */
function noTokenizerMetadata(architectureName, size) {
  return [
    [`${architectureName}.vocab_size`, 'uint32', size],
    ['tokenizer.ggml.model', 'string', 'no_vocab'],
  ];
}

/**
 * @param {import('./layers.mjs').Weights} weights
 * @param {string} seed
 * @param {NonNullable<MicroModel['type']>} matrixType
 * @returns {import('./gguf-writer.mjs').Tensor}
 */
function toTensor({ name, shape, draw, full }, seed, matrixType) {
  const count = shape.reduce((product, length) => product * length, 1);
  return {
    name,
    shape,
    // ggml's operators want vectors in f32.
    type: full || shape.length === 1 ? 'f32' : matrixType,
    values: () => draw(`${seed}/${name}`, count),
  };
}
