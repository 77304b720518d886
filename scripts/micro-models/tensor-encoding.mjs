// Weights as the bytes of a GGUF tensor: f32, f16 and Q8_0. Node 20 has no Float16Array.

/** Values and bytes of one Q8_0 block (`block_q8_0` in ggml-common.h): an f16 scale, then 32 int8. */
export const Q8_0_BLOCK_VALUES = 32;
export const Q8_0_BLOCK_BYTES = 34;

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
