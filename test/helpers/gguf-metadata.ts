// Puts metadata into a GGUF file. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
const [FLOAT32, STRING] = [6, 8];
/** Magic, version, number of tensors, number of pairs. */
const HEADER_BYTES = 24;
const ALIGNMENT = 32;

/** A copy of the file with these numbers too. */
export function withMetadata(file: Buffer, numbers: Readonly<Record<string, number>>): Buffer {
  const pairs = Object.entries(numbers).map(([key, value]) => Buffer.concat([text(key), u32(FLOAT32), f32(value)]));
  const padding = (length: number) => Buffer.concat([text('padding'), u32(STRING), text('x'.repeat(length))]);
  const bytes = Buffer.concat([...pairs, padding(0)]).length;
  pairs.push(padding((ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT)); // the tensors stay where alignment wants them
  const header = Buffer.from(file.subarray(0, HEADER_BYTES));
  header.writeBigUInt64LE(header.readBigUInt64LE(16) + BigInt(pairs.length), 16);
  return Buffer.concat([header, ...pairs, file.subarray(HEADER_BYTES)]);
}

function text(of: string): Buffer {
  const bytes = Buffer.from(of);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([length, bytes]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function f32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}
