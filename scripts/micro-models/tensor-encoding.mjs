// Weights as the bytes of a GGUF tensor: f32, f16, Q8_0, Q4_K and IQ2_XXS. Node 20 has no Float16Array.

/** Values and bytes of one Q8_0 block (`block_q8_0` in ggml-common.h): an f16 scale, then 32 int8. */
export const Q8_0_BLOCK_VALUES = 32;
export const Q8_0_BLOCK_BYTES = 34;

/** Values of one super-block (`QK_K`), and bytes of one in Q4_K and IQ2_XXS (`block_q4_K`, `block_iq2_xxs`). */
export const SUPER_BLOCK_VALUES = 256;
export const Q4_K_BLOCK_BYTES = 144;
export const IQ2_XXS_BLOCK_BYTES = 66;

/** Values that share a scale inside a super-block. */
const GROUP = 32;

/** @param {Float32Array} values */
export function encodeF32(values) {
  const bytes = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => {
    bytes.writeFloatLE(value, index * 4);
  });
  return bytes;
}

/** @param {Float32Array} values */
export function encodeF16(values) {
  const bytes = Buffer.alloc(values.length * 2);
  values.forEach((value, index) => {
    bytes.writeUInt16LE(toHalf(value), index * 2);
  });
  return bytes;
}

/**
 * As `quantize_row_q8_0_ref` in ggml-quants.c, except for the direction in which exact halves are rounded.
 *
 * @param {Float32Array} values a whole number of blocks
 */
export function encodeQ8_0(values) {
  const bytes = Buffer.alloc((values.length / Q8_0_BLOCK_VALUES) * Q8_0_BLOCK_BYTES);
  for (let start = 0, at = 0; start < values.length; start += Q8_0_BLOCK_VALUES, at += Q8_0_BLOCK_BYTES) {
    const block = values.subarray(start, start + Q8_0_BLOCK_VALUES);
    const scale = block.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) / 127;
    bytes.writeUInt16LE(toHalf(scale), at);
    block.forEach((value, index) => {
      bytes.writeInt8(scale === 0 ? 0 : Math.round(value / scale), at + 2 + index);
    });
  }
  return bytes;
}

/**
 * Eight groups of 32 values: `d * scale * q - dmin * minimum`, with 4 bits for q and 6 for scale and minimum. Each group reaches
 * from its lowest value to its highest; `quantize_row_q4_K_ref` in ggml-quants.c searches for better.
 *
 * @param {Float32Array} values a whole number of super-blocks
 */
export function encodeQ4_K(values) {
  return encodeSuperBlocks(values, Q4_K_BLOCK_BYTES, (block, bytes) => {
    const lowest = groupsOf(block).map((group) => Math.max(0, -group.reduce((least, each) => Math.min(least, each))));
    const steps = groupsOf(block).map((group, index) => (Math.max(...group) + lowest[index]) / 15);
    const [d, dmin] = [Math.max(...steps) / 63, Math.max(...lowest) / 63];
    bytes.writeUInt16LE(toHalf(d), 0);
    bytes.writeUInt16LE(toHalf(dmin), 2);
    const quantised = groupsOf(block).map((group, index) => {
      const scale = d === 0 ? 0 : Math.round(steps[index] / d);
      const minimum = dmin === 0 ? 0 : Math.round(lowest[index] / dmin);
      writeScale(bytes.subarray(4, 16), index, scale, minimum);
      return group.map((value) => (scale === 0 ? 0 : clamp(Math.round((value + dmin * minimum) / (d * scale)), 15)));
    });
    for (let pair = 0; pair < quantised.length; pair += 2) {
      for (let index = 0; index < GROUP; index++) {
        bytes[16 + (pair / 2) * GROUP + index] = quantised[pair][index] | (quantised[pair + 1][index] << 4);
      }
    }
  });
}

/**
 * The layout that `get_scale_min_k4` in ggml-quants.c reads: two times eight numbers of 6 bits.
 *
 * @param {Buffer} bytes 12
 * @param {number} group 0 to 7
 * @param {number} scale
 * @param {number} minimum
 */
function writeScale(bytes, group, scale, minimum) {
  if (group < 4) {
    bytes[group] |= scale;
    bytes[group + 4] |= minimum;
  } else {
    bytes[group + 4] = (scale & 15) | ((minimum & 15) << 4);
    bytes[group - 4] |= (scale >> 4) << 6;
    bytes[group] |= (minimum >> 4) << 6;
  }
}

/** Root of the mean square of `iq2xxs_grid` in ggml-common.h. */
const IQ2_XXS_GRID = 23.12;

/**
 * Keeps the size of each super-block and most signs: of eight values 7 have a sign of their own, and which point of ggml's grid
 * stands for them hangs on their last bits. Weights that are random anyway lose nothing.
 *
 * @param {Float32Array} values a whole number of super-blocks
 */
export function encodeIQ2_XXS(values) {
  return encodeSuperBlocks(values, IQ2_XXS_BLOCK_BYTES, (block, bytes) => {
    const size = Math.sqrt(block.reduce((sum, value) => sum + value * value, 0) / block.length);
    bytes.writeUInt16LE(toHalf((4 / 4.5) * (size / IQ2_XXS_GRID)), 0);
    groupsOf(block).forEach((group, index) => {
      let signs = 2 ** 28 * 4; // the group's scale: a quarter of 4 and a half
      for (let eight = 0; eight < 4; eight++) {
        const part = group.subarray(8 * eight, 8 * eight + 8);
        float[0] = part[7];
        bytes[2 + 8 * index + eight] = bits[0] >>> 7; // a byte takes its lowest eight bits
        part.subarray(0, 7).forEach((value, place) => {
          signs += value < 0 ? 2 ** (7 * eight + place) : 0;
        });
      }
      bytes.writeUInt32LE(signs, 2 + 8 * index + 4);
    });
  });
}

/**
 * @param {Float32Array} values
 * @param {number} blockBytes
 * @param {(block: Float32Array, bytes: Buffer) => void} encode
 */
function encodeSuperBlocks(values, blockBytes, encode) {
  const count = values.length / SUPER_BLOCK_VALUES;
  const bytes = Buffer.alloc(count * blockBytes);
  for (let index = 0; index < count; index++) {
    const block = values.subarray(index * SUPER_BLOCK_VALUES, (index + 1) * SUPER_BLOCK_VALUES);
    encode(block, bytes.subarray(index * blockBytes, (index + 1) * blockBytes));
  }
  return bytes;
}

/** @param {Float32Array} block */
function groupsOf(block) {
  return Array.from({ length: block.length / GROUP }, (_, index) => block.subarray(index * GROUP, (index + 1) * GROUP));
}

/**
 * @param {number} value
 * @param {number} most
 */
function clamp(value, most) {
  return Math.min(most, Math.max(0, value));
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/**
 * IEEE 754 binary32 to binary16, rounded to nearest, ties to even.
 *
 * @param {number} value
 */
function toHalf(value) {
  float[0] = value;
  const sign = (bits[0] >>> 16) & 0x8000;
  const magnitude = Math.abs(float[0]);
  if (!(magnitude < 65520)) return sign | (Number.isNaN(magnitude) ? 0x7e00 : 0x7c00);
  // Below 2^-14 halves are multiples of 2^-24. Rounding up to 2^-14 itself yields 0x400, the right bits for it.
  if (magnitude < 2 ** -14) return sign | roundToEven(magnitude * 2 ** 24);
  // Rebias the exponent from 127 to 15 and drop 13 bits of the mantissa; a carry out of it is a larger exponent.
  return sign | roundToEven(((bits[0] & 0x7fffffff) - ((127 - 15) << 23)) / 2 ** 13);
}

/** @param {number} value not negative */
function roundToEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
