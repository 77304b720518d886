// The micro models' layers. Weights are drawn so that activations stay near 1 and the next token depends on the whole
// context, near and far: see `attention` and `mamba`.

import { constant, normal, uniform } from './weights.mjs';

export const EMBEDDING = 128;
export const HEAD_SIZE = 32; // a whole block of the quantised KV cache types

/**
 * @typedef {object} Width of a layer
 * @property {number} embedding
 * @property {number} feedForward
 * @property {number} heads
 * @property {number} kvHeads
 */

/** @type {Width} */
export const NARROW = { embedding: EMBEDDING, feedForward: 256, heads: 4, kvHeads: 2 };

/** Its rows are whole super-blocks of the quantised types that have such. @type {Width} */
export const WIDE = { embedding: 256, feedForward: 512, heads: 8, kvHeads: 4 };

export const INNER = 2 * EMBEDDING; // llama.cpp's Mamba takes no other expansion
export const STATE_SIZE = 16;
export const CONVOLUTION = 4; // tokens
export const TIME_STEP_RANK = 8;

/** Standard deviation of the logits. At temperature 1 the likeliest token then has a probability of a tenth to a half. */
const LOGIT_DEVIATION = 3;

/**
 * @typedef {object} Weights
 * @property {string} name
 * @property {number[]} shape ggml's order
 * @property {(seed: string, count: number) => Float32Array} draw
 * @property {boolean} [full] keep in f32: ggml's operator wants it so
 */

/**
 * Embedding, last norm and output. The output rows of unprintable tokens are short, so greedy text is printable ASCII
 * and never ends by itself; a grammar or a logit bias can still force such a token.
 *
 * @param {boolean[]} printable
 * @param {number} deviation of the embedding
 * @param {Width} [width]
 * @returns {Weights[]}
 */
export function ends(printable, deviation, { embedding } = NARROW) {
  return [
    {
      name: 'token_embd.weight',
      shape: [embedding, printable.length],
      draw: (seed, count) => normal(seed, count, deviation),
    },
    constants('output_norm.weight', embedding),
    {
      name: 'output.weight',
      shape: [embedding, printable.length],
      draw: (seed, count) =>
        normal(seed, count, LOGIT_DEVIATION / Math.sqrt(embedding)).map((value, index) =>
          printable[Math.floor(index / embedding)] ? value : value / 4,
        ),
    },
  ];
}

/**
 * @param {number} count
 * @param {(index: number) => Weights[]} layer
 * @returns {Weights[]}
 */
export function layers(count, layer) {
  return Array.from({ length: count }, (_, index) =>
    layer(index).map((weights) => ({ ...weights, name: `blk.${index}.${weights.name}` })),
  ).flat();
}

/**
 * Random attention over a long context is nearly uniform and hence nearly nothing. So the heads differ. The first two
 * have no query from the token: they average the values, evenly or as `combBias` says. The others look sharply at few
 * tokens.
 *
 * @param {number} averaging gain of the averaging heads. About sqrt(tokens) makes up for what the mean of unlike values
 *   loses, so that every token of the context counts. Attention layers in a row take it once: behind it all values have a
 *   part in common, which a second gain would let drown the rest.
 * @param {Width} [width]
 * @returns {Weights[]}
 */
export function attention(averaging = 1, { embedding, kvHeads } = NARROW) {
  // Of four heads; wider models have several such fours.
  const sharpness = [0, 0, 2, 3];
  const gain = [averaging, averaging, 1, 1];
  const kind = (/** @type {number} */ place) => Math.floor(place / HEAD_SIZE) % sharpness.length;
  return [
    constants('attn_norm.weight', embedding),
    matrix('attn_q.weight', embedding, embedding, (row) => sharpness[kind(row)]),
    matrix('attn_k.weight', embedding, kvHeads * HEAD_SIZE),
    matrix('attn_v.weight', embedding, kvHeads * HEAD_SIZE),
    matrix('attn_output.weight', embedding, embedding, (_, column) => gain[kind(column)]),
  ];
}

/**
 * Makes the averaging heads' weights a wave over the distance: a constant query and key in one rotating dimension give
 * a score of cos(distance * frequency). With every new token that comb slides on over the context, so the next token
 * sees another mix of it; without, greedy text soon runs in circles.
 *
 * @param {Width} [width]
 * @returns {Weights[]}
 */
export function combBias({ embedding, kvHeads } = NARROW) {
  return [
    {
      name: 'attn_q.bias',
      shape: [embedding],
      // The first head waves at the first (fastest) of RoPE's frequencies, the second head at the second.
      draw: (_seed, count) =>
        constant(count, 0)
          .fill(5, 0, 1)
          .fill(5, HEAD_SIZE + 1, HEAD_SIZE + 2),
    },
    {
      name: 'attn_k.bias',
      shape: [kvHeads * HEAD_SIZE],
      draw: (_seed, count) => constant(count, 0).fill(2, 0, 2), // the first KV head serves both
    },
  ];
}

/**
 * @param {Width} [width]
 * @returns {Weights[]}
 */
export function feedForward({ embedding, feedForward } = NARROW) {
  return [
    constants('ffn_norm.weight', embedding),
    matrix('ffn_gate.weight', embedding, feedForward, () => 1.5),
    matrix('ffn_up.weight', embedding, feedForward, () => 1.5),
    matrix('ffn_down.weight', feedForward, embedding, () => 1.5),
  ];
}

/**
 * Gate and up in one matrix.
 *
 * @returns {Weights[]}
 */
export function fusedFeedForward() {
  return [
    constants('ffn_norm.weight', EMBEDDING),
    matrix('ffn_up.weight', EMBEDDING, 2 * NARROW.feedForward, () => 1.5),
    matrix('ffn_down.weight', NARROW.feedForward, EMBEDDING, () => 1.5),
  ];
}

/**
 * The state forgets by exp(dt * A) a token. With softplus(bias) between 0.02 and 0.2 and A from -0.0016 to -1 that
 * reaches from a few tokens back to thousands.
 *
 * @returns {Weights[]}
 */
export function mamba() {
  return [
    constants('attn_norm.weight', EMBEDDING),
    matrix('ssm_in.weight', EMBEDDING, 2 * INNER),
    { ...matrix('ssm_conv1d.weight', CONVOLUTION, INNER, () => 1.5), full: true },
    { name: 'ssm_conv1d.bias', shape: [INNER], draw: (seed, count) => normal(seed, count, 0.1) },
    matrix('ssm_x.weight', INNER, TIME_STEP_RANK + 2 * STATE_SIZE, () => 2),
    matrix('ssm_dt.weight', TIME_STEP_RANK, INNER, () => 0.5),
    { name: 'ssm_dt.bias', shape: [INNER], draw: (seed, count) => uniform(seed, count, -4, -1.5) },
    { name: 'ssm_a', shape: [STATE_SIZE, INNER], draw: decayRates, full: true },
    constants('ssm_d', INNER),
    matrix('ssm_out.weight', INNER, EMBEDDING, () => 2),
  ];
}

/**
 * For each channel the same geometric series of rates, one for each element of its state.
 *
 * @param {string} _seed
 * @param {number} count
 */
function decayRates(_seed, count) {
  return Float32Array.from({ length: count }, (_, index) => {
    let rate = -1;
    for (let step = 0; step < index % STATE_SIZE; step++) rate *= 0.65;
    return rate;
  });
}

/**
 * Keeps the deviation of what it multiplies, times `gain`.
 *
 * @param {string} name
 * @param {number} inputs
 * @param {number} outputs
 * @param {(row: number, column: number) => number} gain of one weight
 * @returns {Weights}
 */
function matrix(name, inputs, outputs, gain = () => 1) {
  return {
    name,
    shape: [inputs, outputs],
    draw: (seed, count) =>
      normal(seed, count, 1 / Math.sqrt(inputs)).map(
        (value, index) => value * gain(Math.floor(index / inputs), index % inputs),
      ),
  };
}

/**
 * @param {string} name
 * @param {number} length
 * @param {number} value
 * @returns {Weights}
 */
export function constants(name, length, value = 1) {
  return { name, shape: [length], draw: (_seed, count) => constant(count, value) };
}
