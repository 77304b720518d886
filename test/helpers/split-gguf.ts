// Cuts a GGUF file into parts, as llama.cpp's `gguf-split` does. Format:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The size of a metadata value in bytes, by type id. Type 8 is a string and type 9 an array. */
const SIZES: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const ALIGNMENT = 32;

interface SplitTensor {
  /** The tensor's entry in the header, up to the offset. */
  head: Buffer;
  data: Buffer;
}

/** Writes the parts `name-00001-of-0000N.gguf` and so on into a directory and returns their file names. */
export async function splitGguf(path: string, directory: string, name: string, count: number): Promise<string[]> {
  const { pairs, pairCount, tensors } = parse(await readFile(path));
  const perPart = Math.ceil(tensors.length / count);
  const names: string[] = [];
  for (let part = 0; part < count; part++) {
    const partTensors = tensors.slice(part * perPart, (part + 1) * perPart);
    const split = [
      pair('split.no', 2, u16(part)),
      pair('split.count', 2, u16(count)),
      pair('split.tensors.count', 5, u32(tensors.length)),
    ];
    const header = [
      Buffer.from('GGUF'),
      u32(3),
      u64(partTensors.length),
      u64((part === 0 ? pairCount : 0) + split.length),
      part === 0 ? pairs : Buffer.alloc(0),
      ...split,
    ];
    const data: Buffer[] = [];
    let offset = 0;
    for (const tensor of partTensors) {
      header.push(tensor.head, u64(offset));
      const padded = pad(tensor.data);
      data.push(padded);
      offset += padded.length;
    }
    const digits = (value: number) => String(value).padStart(5, '0');
    names.push(`${name}-${digits(part + 1)}-of-${digits(count)}.gguf`);
    await writeFile(join(directory, names.at(-1) as string), Buffer.concat([pad(Buffer.concat(header)), ...data]));
  }
  return names;
}

function parse(file: Buffer): { pairs: Buffer; pairCount: number; tensors: SplitTensor[] } {
  let position = 8;
  const readNumber = (bytes: 4 | 8) => {
    position += bytes;
    return bytes === 4 ? file.readUInt32LE(position - 4) : Number(file.readBigUInt64LE(position - 8));
  };
  const skipText = () => {
    const length = readNumber(8);
    position += length;
  };
  const skipValue = (type: number): void => {
    if (type === 8) {
      skipText();
    } else if (type === 9) {
      const element = readNumber(4);
      for (let left = readNumber(8); left > 0; left--) {
        skipValue(element);
      }
    } else {
      position += SIZES[type] as number;
    }
  };
  const tensorCount = readNumber(8);
  const pairCount = readNumber(8);
  const pairsStart = position;
  for (let left = pairCount; left > 0; left--) {
    skipText();
    skipValue(readNumber(4));
  }
  const pairs = file.subarray(pairsStart, position);
  const infos = Array.from({ length: tensorCount }, () => {
    const start = position;
    skipText();
    const dimensions = readNumber(4);
    position += 8 * dimensions + 4;
    const head = file.subarray(start, position);
    return { head, offset: readNumber(8) };
  });
  const data = file.subarray(Math.ceil(position / ALIGNMENT) * ALIGNMENT);
  const ends = [...infos.map(({ offset }) => offset), data.length].sort((a, b) => a - b);
  const endOf = (offset: number) => ends.find((end) => end > offset) as number;
  return {
    pairs,
    pairCount,
    tensors: infos.map(({ head, offset }) => ({ head, data: data.subarray(offset, endOf(offset)) })),
  };
}

function pair(key: string, type: number, value: Buffer): Buffer {
  return Buffer.concat([u64(key.length), Buffer.from(key), u32(type), value]);
}

function pad(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((ALIGNMENT - (bytes.length % ALIGNMENT)) % ALIGNMENT)]);
}

const u16 = (value: number) => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
};
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
