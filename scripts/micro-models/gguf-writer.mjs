// A writer for GGUF v3, as much of it as the micro models need.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

import { randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import {
  encodeF16,
  encodeF32,
  encodeIQ2_XXS,
  encodeQ4_K,
  encodeQ8_0,
  IQ2_XXS_BLOCK_BYTES,
  Q4_K_BLOCK_BYTES,
  Q8_0_BLOCK_BYTES,
  Q8_0_BLOCK_VALUES,
  SUPER_BLOCK_VALUES,
} from './tensor-encoding.mjs';

const MAGIC = 'GGUF';
const VERSION = 3;
const ALIGNMENT = 32; // general.alignment's default; it applies to the start of the tensor data and to each tensor
const ARRAY_TYPE = 9;

/**
 * Number and text types of metadata values: GGUF's type id, and how one value becomes bytes.
 *
 * @type {Record<string, { id: number, encode: (value: any) => Buffer }>}
 */
const VALUE_TYPES = {
  uint8: { id: 0, encode: (value) => fixed(1, (bytes) => bytes.writeUInt8(value)) },
  int8: { id: 1, encode: (value) => fixed(1, (bytes) => bytes.writeInt8(value)) },
  uint16: { id: 2, encode: (value) => fixed(2, (bytes) => bytes.writeUInt16LE(value)) },
  int16: { id: 3, encode: (value) => fixed(2, (bytes) => bytes.writeInt16LE(value)) },
  uint32: { id: 4, encode: (value) => fixed(4, (bytes) => bytes.writeUInt32LE(value)) },
  int32: { id: 5, encode: (value) => fixed(4, (bytes) => bytes.writeInt32LE(value)) },
  float32: { id: 6, encode: (value) => fixed(4, (bytes) => bytes.writeFloatLE(value)) },
  bool: { id: 7, encode: (value) => fixed(1, (bytes) => bytes.writeUInt8(value ? 1 : 0)) },
  string: { id: 8, encode: encodeString },
  uint64: { id: 10, encode: (value) => fixed(8, (bytes) => bytes.writeBigUInt64LE(BigInt(value))) },
  int64: { id: 11, encode: (value) => fixed(8, (bytes) => bytes.writeBigInt64LE(BigInt(value))) },
  float64: { id: 12, encode: (value) => fixed(8, (bytes) => bytes.writeDoubleLE(value)) },
};

/**
 * Tensor types: ggml's type id, the bytes of `count` values, and the encoder.
 *
 * @type {Record<string, { id: number, byteLength: (count: number) => number, encode: (values: Float32Array) => Buffer }>}
 */
const TENSOR_TYPES = {
  f32: { id: 0, byteLength: (count) => count * 4, encode: encodeF32 },
  f16: { id: 1, byteLength: (count) => count * 2, encode: encodeF16 },
  q8_0: { id: 8, byteLength: (count) => (count / Q8_0_BLOCK_VALUES) * Q8_0_BLOCK_BYTES, encode: encodeQ8_0 },
  q4_k: { id: 12, byteLength: (count) => (count / SUPER_BLOCK_VALUES) * Q4_K_BLOCK_BYTES, encode: encodeQ4_K },
  iq2_xxs: { id: 16, byteLength: (count) => (count / SUPER_BLOCK_VALUES) * IQ2_XXS_BLOCK_BYTES, encode: encodeIQ2_XXS },
};

/**
 * One metadata entry: key, type, value. A type is a name in `VALUE_TYPES`, with `[]` behind it for an array of such.
 *
 * @typedef {[key: string, type: string, value: unknown]} Metadata
 */

/**
 * One tensor. `shape` is in ggml's order: the length of a row first.
 * `values` is called only when the file is written, so a layout costs no weights.
 *
 * @typedef {object} Tensor
 * @property {string} name
 * @property {number[]} shape
 * @property {'f32' | 'f16' | 'q8_0' | 'q4_k' | 'iq2_xxs'} type
 * @property {() => Float32Array} values
 */

/**
 * A file that is known byte for byte up to its tensor data, and in length beyond.
 *
 * @typedef {object} Layout
 * @property {Buffer} header everything before the tensor data, padded to the alignment
 * @property {number} byteLength of the whole file
 * @property {(Tensor & { byteLength: number })[]} tensors in file order
 */

/**
 * @param {Metadata[]} metadata
 * @param {Tensor[]} tensors
 * @returns {Layout}
 */
export function layoutGguf(metadata, tensors) {
  const parts = [
    Buffer.from(MAGIC, 'latin1'),
    encode('uint32', VERSION),
    encode('uint64', tensors.length),
    encode('uint64', metadata.length),
  ];
  for (const [key, type, value] of metadata) {
    parts.push(encode('string', key), encodeTyped(type, value));
  }
  let offset = 0;
  const placed = tensors.map((tensor) => {
    const byteLength = tensorByteLength(tensor);
    parts.push(encodeTensorInfo(tensor, offset));
    offset += aligned(byteLength);
    return { ...tensor, byteLength };
  });
  const header = padded(Buffer.concat(parts));
  return { header, byteLength: header.length + offset, tensors: placed };
}

/**
 * Writes the file under a temporary name beside `path`, then renames: whoever finds `path` finds all of it.
 *
 * @param {string} path
 * @param {Layout} layout
 */
export async function writeGguf(path, layout) {
  const temporary = `${path}.${process.pid}-${randomUUID()}.tmp`;
  try {
    const file = await open(temporary, 'wx');
    try {
      await file.writeFile(layout.header);
      for (const tensor of layout.tensors) {
        await file.writeFile(padded(encodeTensor(tensor)));
      }
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
}

/**
 * Whether `path` holds a file of this layout: the same header and the same length.
 * With the rename in `writeGguf` that means a whole file; the weights themselves are not read.
 *
 * @param {string} path
 * @param {Layout} layout
 */
export async function hasLayout(path, layout) {
  let file;
  try {
    file = await open(path, 'r');
    if ((await file.stat()).size !== layout.byteLength) return false;
    const { buffer } = await file.read(Buffer.alloc(layout.header.length), 0, layout.header.length, 0);
    return buffer.equals(layout.header);
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === 'ENOENT') return false;
    throw error;
  } finally {
    await file?.close();
  }
}

/**
 * @param {string} type
 * @param {unknown} value
 */
function encodeTyped(type, value) {
  if (!type.endsWith('[]')) return Buffer.concat([encode('uint32', valueType(type).id), encode(type, value)]);
  const element = type.slice(0, -2);
  const values = /** @type {unknown[]} */ (value);
  return Buffer.concat([
    encode('uint32', ARRAY_TYPE),
    encode('uint32', valueType(element).id),
    encode('uint64', values.length),
    ...values.map((each) => encode(element, each)),
  ]);
}

/**
 * @param {Tensor} tensor
 * @param {number} offset from the start of the tensor data, in bytes
 */
function encodeTensorInfo(tensor, offset) {
  return Buffer.concat([
    encode('string', tensor.name),
    encode('uint32', tensor.shape.length),
    ...tensor.shape.map((length) => encode('uint64', length)),
    encode('uint32', TENSOR_TYPES[tensor.type].id),
    encode('uint64', offset),
  ]);
}

/** @param {Tensor & { byteLength: number }} tensor */
function encodeTensor(tensor) {
  const bytes = TENSOR_TYPES[tensor.type].encode(tensor.values());
  if (bytes.length !== tensor.byteLength) {
    throw new Error(`Expected ${tensor.byteLength} bytes for tensor ${tensor.name}, got ${bytes.length}`);
  }
  return bytes;
}

/** @param {Tensor} tensor */
function tensorByteLength({ shape, type }) {
  return TENSOR_TYPES[type].byteLength(shape.reduce((product, length) => product * length, 1));
}

/**
 * @param {string} type
 * @param {unknown} value
 */
function encode(type, value) {
  return valueType(type).encode(value);
}

/** @param {string} type */
function valueType(type) {
  const found = VALUE_TYPES[type];
  if (!found) throw new Error(`Expected a GGUF value type (${Object.keys(VALUE_TYPES).join(', ')}), got ${type}`);
  return found;
}

/** @param {string} text */
function encodeString(text) {
  const bytes = Buffer.from(text, 'utf8');
  return Buffer.concat([encode('uint64', bytes.length), bytes]);
}

/**
 * @param {number} length
 * @param {(bytes: Buffer) => void} write
 */
function fixed(length, write) {
  const bytes = Buffer.alloc(length);
  write(bytes);
  return bytes;
}

/** @param {number} length */
function aligned(length) {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

/** @param {Buffer} bytes */
function padded(bytes) {
  return Buffer.concat([bytes], aligned(bytes.length));
}
