// Reads the metadata of a GGUF file, in the form in which the writer of the micro models takes it.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

const [STRING, ARRAY] = [8, 9];
/** The size of the magic number, the version and the number of tensors. */
const BEFORE_COUNT = 16;

/**
 * How to read each type of number: its name, its size in bytes, and the value at an offset.
 *
 * @type {Record<number, [name: string, bytes: number, read: (file: Buffer, at: number) => unknown]>}
 */
const NUMBERS = {
  0: ['uint8', 1, (file, at) => file.readUInt8(at)],
  1: ['int8', 1, (file, at) => file.readInt8(at)],
  2: ['uint16', 2, (file, at) => file.readUInt16LE(at)],
  3: ['int16', 2, (file, at) => file.readInt16LE(at)],
  4: ['uint32', 4, (file, at) => file.readUInt32LE(at)],
  5: ['int32', 4, (file, at) => file.readInt32LE(at)],
  6: ['float32', 4, (file, at) => file.readFloatLE(at)],
  7: ['bool', 1, (file, at) => file.readUInt8(at) !== 0],
  10: ['uint64', 8, (file, at) => file.readBigUInt64LE(at)],
  11: ['int64', 8, (file, at) => file.readBigInt64LE(at)],
  12: ['float64', 8, (file, at) => file.readDoubleLE(at)],
};

/**
 * @param {Buffer} file
 * @returns {import('../../../test/fixtures/micro-models/gguf-writer.mjs').Metadata[]}
 */
export function readGgufMetadata(file) {
  const reader = new Reader(file, BEFORE_COUNT);
  const count = Number(reader.value(10));
  return Array.from({ length: count }, () => {
    const key = /** @type {string} */ (reader.value(STRING));
    return [key, ...reader.typed()];
  });
}

class Reader {
  #file;
  #at;

  /** @param {Buffer} file @param {number} at */
  constructor(file, at) {
    this.#file = file;
    this.#at = at;
  }

  /** Reads a type, and a value of this type. @returns {[type: string, value: unknown]} */
  typed() {
    const type = Number(this.value(4));
    if (type !== ARRAY) return [nameOf(type), this.value(type)];
    const element = Number(this.value(4));
    const length = Number(this.value(10));
    return [`${nameOf(element)}[]`, Array.from({ length }, () => this.value(element))];
  }

  /** @param {number} type the id of a type that is no array */
  value(type) {
    if (type === STRING) {
      const length = Number(this.value(10));
      this.#at += length;
      return this.#file.toString('utf8', this.#at - length, this.#at);
    }
    const [, bytes, read] = NUMBERS[type];
    this.#at += bytes;
    return read(this.#file, this.#at - bytes);
  }
}

/** @param {number} type */
function nameOf(type) {
  return type === STRING ? 'string' : NUMBERS[type][0];
}
