// Changes the metadata of GGUF files. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
const [FLOAT32, STRING] = [6, 8];
/** The size of the magic number, the version, the number of tensors and the number of metadata pairs. */
const HEADER_BYTES = 24;
const ALIGNMENT = 32;

/** Returns a copy of the file that has these additional numbers in its metadata. */
export function withMetadata(file: Buffer, numbers: Readonly<Record<string, number>>): Buffer {
  const pairs = Object.entries(numbers).map(([key, value]) => Buffer.concat([text(key), u32(FLOAT32), f32(value)]));
  return withPairs(
    file,
    pairs,
    pairs.reduce((total, { length }) => total + length, 0),
  );
}

/** Returns a copy of the file in which some tokens of the vocabulary have other texts. */
export function withTokens(file: Buffer, texts: Readonly<Record<string, string>>): Buffer {
  let changed = file;
  for (const [old, replacement] of Object.entries(texts)) {
    const start = changed.indexOf(text(old));
    if (start < 0) {
      throw new Error(`Expected a file with the token ${old}, found no such token`);
    }
    const end = start + text(old).length;
    changed = Buffer.concat([changed.subarray(0, start), text(replacement), changed.subarray(end)]);
  }
  return withPairs(changed, [], changed.length - file.length);
}

/** Returns a copy of the file with another chat template. */
export function withChatTemplate(file: Buffer, chatTemplate: string): Buffer {
  const key = Buffer.concat([text('tokenizer.chat_template'), u32(STRING)]);
  const start = file.indexOf(key) + key.length;
  const end = start + 8 + Number(file.readBigUInt64LE(start));
  const changed = Buffer.concat([file.subarray(0, start), text(chatTemplate), file.subarray(end)]);
  return withPairs(changed, [], changed.length - file.length);
}

/**
 * Adds metadata pairs, and one more pair as padding that keeps the tensors aligned.
 *
 * @param grown the number of bytes that the change adds to the part in front of the tensors, including `pairs`
 */
function withPairs(file: Buffer, pairs: readonly Buffer[], grown: number): Buffer {
  const padding = (length: number) => Buffer.concat([text('padding'), u32(STRING), text('x'.repeat(length))]);
  const over = (((grown + padding(0).length) % ALIGNMENT) + ALIGNMENT) % ALIGNMENT;
  const all = [...pairs, padding((ALIGNMENT - over) % ALIGNMENT)];
  const header = Buffer.from(file.subarray(0, HEADER_BYTES));
  header.writeBigUInt64LE(header.readBigUInt64LE(16) + BigInt(all.length), 16);
  return Buffer.concat([header, ...all, file.subarray(HEADER_BYTES)]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
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
