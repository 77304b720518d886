// The shapes of the micro models: hyperparameters and tensors, as `load_arch_hparams` and `load_arch_tensors` of
// llama.cpp's src/models/{qwen2,gemma3,mamba,jamba,phi3}.cpp want them.

import {
  attention,
  CONVOLUTION,
  combBias,
  constants,
  EMBEDDING,
  ends,
  feedForward,
  fusedFeedForward,
  HEAD_SIZE,
  INNER,
  layers,
  mamba,
  NARROW,
  STATE_SIZE,
  TIME_STEP_RANK,
  WIDE,
} from './layers.mjs';

const CONTEXT_LENGTH = 8192; // tokens
const NORM_EPSILON = 1e-5;

/** Gain of the averaging heads: found by trial, for prompts of 50 to 1,500 tokens. */
const AVERAGING = 8;

/**
 * @typedef {object} Architecture
 * @property {string} name llama.cpp's
 * @property {import('./gguf-writer.mjs').Metadata[]} metadata hyperparameters
 * @property {import('./layers.mjs').Weights[]} weights
 */

/**
 * A plain transformer with grouped-query attention.
 *
 * @param {boolean[]} printable of each token
 * @param {import('./layers.mjs').Width} [width]
 * @returns {Architecture}
 */
export function dense(printable, width = NARROW) {
  const { kvHeads } = width;
  const averaging = (/** @type {number} */ index) => (index === 0 ? AVERAGING : 1);
  return {
    name: 'qwen2',
    metadata: [...commonMetadata('qwen2', 3, width), ...attentionMetadata('qwen2', kvHeads, width)],
    weights: [
      ...ends(printable, 1, width),
      ...layers(3, (index) => [...attention(averaging(index), width), ...combBias(width), ...feedForward(width)]),
    ],
  };
}

/**
 * The same twice as wide.
 *
 * @param {boolean[]} printable of each token
 * @returns {Architecture}
 */
export function wide(printable) {
  return dense(printable, WIDE);
}

/**
 * Sliding-window and full attention in turns, window first.
 *
 * @param {boolean[]} printable of each token
 * @returns {Architecture}
 */
export function slidingWindow(printable) {
  // Gemma normalises queries and keys, and what a branch adds.
  const norms = [
    constants('attn_q_norm.weight', HEAD_SIZE, 2), // the sharpness that `attention` cannot give to normalised queries
    constants('attn_k_norm.weight', HEAD_SIZE),
    constants('post_attention_norm.weight', EMBEDDING),
    constants('post_ffw_norm.weight', EMBEDDING),
  ];
  return {
    name: 'gemma3',
    metadata: [
      ...commonMetadata('gemma3', 4),
      ...attentionMetadata('gemma3', NARROW.kvHeads),
      ['gemma3.attention.key_length', 'uint32', HEAD_SIZE],
      ['gemma3.attention.value_length', 'uint32', HEAD_SIZE],
      ['gemma3.attention.sliding_window', 'uint32', 64],
      ['gemma3.attention.sliding_window_pattern', 'uint32', 2],
    ],
    weights: [
      ...ends(printable, 1 / Math.sqrt(EMBEDDING)), // Gemma multiplies embeddings by sqrt(n_embd)
      ...layers(4, (index) => [...attention(index === 0 ? AVERAGING : 1), ...combBias(), ...feedForward(), ...norms]),
    ],
  };
}

/**
 * A transformer with RoPE factors for short and for long contexts: which of them serve is decided by the cells that a
 * sequence may use.
 *
 * @param {boolean[]} printable of each token
 * @returns {Architecture}
 */
export function longRope(printable) {
  return {
    name: 'phi3',
    metadata: [
      ...commonMetadata('phi3', 2),
      ...attentionMetadata('phi3', NARROW.kvHeads),
      ['phi3.rope.dimension_count', 'uint32', HEAD_SIZE],
      ['phi3.rope.scaling.original_context_length', 'uint32', 1024],
    ],
    weights: [
      ...ends(printable, 1),
      constants('rope_factors_short.weight', HEAD_SIZE / 2),
      constants('rope_factors_long.weight', HEAD_SIZE / 2, 4),
      ...layers(2, (index) => [...attention(index === 0 ? AVERAGING : 1), ...combBias(), ...fusedFeedForward()]),
    ],
  };
}

/**
 * Mamba layers alone: no KV cache, a state of fixed size.
 *
 * @param {boolean[]} printable of each token
 * @returns {Architecture}
 */
export function recurrent(printable) {
  return {
    name: 'mamba',
    metadata: [...commonMetadata('mamba', 3), ['mamba.attention.head_count', 'uint32', 0], ...stateMetadata('mamba')],
    weights: [...ends(printable, 1), ...layers(3, mamba)],
  };
}

/**
 * Mamba and attention layers in turns, Mamba first.
 *
 * @param {boolean[]} printable of each token
 * @returns {Architecture}
 */
export function hybrid(printable) {
  const norms = [
    constants('ssm_dt_norm.weight', TIME_STEP_RANK),
    constants('ssm_b_norm.weight', STATE_SIZE),
    constants('ssm_c_norm.weight', STATE_SIZE),
  ];
  return {
    name: 'jamba',
    metadata: [
      ...commonMetadata('jamba', 4),
      ...attentionMetadata('jamba', [0, NARROW.kvHeads, 0, NARROW.kvHeads]), // no KV heads: a recurrent layer
      ...stateMetadata('jamba'),
    ],
    weights: [
      ...ends(printable, 1),
      ...layers(4, (index) => [...(index % 2 === 0 ? [...mamba(), ...norms] : attention(AVERAGING)), ...feedForward()]),
    ],
  };
}

/**
 * @param {string} name
 * @param {number} layerCount
 * @param {import('./layers.mjs').Width} [width]
 * @returns {import('./gguf-writer.mjs').Metadata[]}
 */
function commonMetadata(name, layerCount, { embedding, feedForward } = NARROW) {
  return [
    [`${name}.context_length`, 'uint32', CONTEXT_LENGTH],
    [`${name}.embedding_length`, 'uint32', embedding],
    [`${name}.block_count`, 'uint32', layerCount],
    [`${name}.feed_forward_length`, 'uint32', feedForward],
    [`${name}.attention.layer_norm_rms_epsilon`, 'float32', NORM_EPSILON],
  ];
}

/**
 * @param {string} name
 * @param {number | number[]} kvHeads for all layers, or for each
 * @param {import('./layers.mjs').Width} [width]
 * @returns {import('./gguf-writer.mjs').Metadata[]}
 */
function attentionMetadata(name, kvHeads, { heads } = NARROW) {
  return [
    [`${name}.attention.head_count`, 'uint32', heads],
    [`${name}.attention.head_count_kv`, Array.isArray(kvHeads) ? 'uint32[]' : 'uint32', kvHeads],
  ];
}

/**
 * @param {string} name
 * @returns {import('./gguf-writer.mjs').Metadata[]}
 */
function stateMetadata(name) {
  return [
    [`${name}.ssm.conv_kernel`, 'uint32', CONVOLUTION],
    [`${name}.ssm.inner_size`, 'uint32', INNER],
    [`${name}.ssm.state_size`, 'uint32', STATE_SIZE],
    [`${name}.ssm.time_step_rank`, 'uint32', TIME_STEP_RANK],
  ];
}
