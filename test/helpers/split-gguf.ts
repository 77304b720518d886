// Cuts a GGUF file into parts, as llama.cpp's `gguf-split` does. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Bytes of a metadata value, by its type id; 8 is a string, 9 an array. */
const SIZES: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const ALIGNMENT = 32;

interface SplitTensor {
  /** Its entry in the header, up to its offset. */
  head: Buffer;
  data: Buffer;
}

/** Writes `name-00001-of-0000N.gguf` and so on into a directory, and returns their names. */
export async function splitGguf(path: string, directory: string, name: string, count: number): Promise<string[]> {
  const { pairs, pairCount, tensors } = parse(await readFile(path));
  const perPart = Math.ceil(tensors.length / count);
  const names: string[] = [];
  for (let part = 0; part < count; part++) {
    const own = tensors.slice(part * perPart, (part + 1) * perPart);
    const split = [
      pair('split.no', 2, u16(part)),
      pair('split.count', 2, u16(count)),
      pair('split.tensors.count', 5, u32(tensors.length)),
    ];
    const header = [
      Buffer.from('GGUF'),
      u32(3),
      u64(own.length),
      u64((part === 0 ? pairCount : 0) + split.length),
      part === 0 ? pairs : Buffer.alloc(0),
      ...split,
    ];
    const data: Buffer[] = [];
    let offset = 0;
    for (const tensor of own) {
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
  let at = 8;
  const number = (bytes: 4 | 8) => {
    at += bytes;
    return bytes === 4 ? file.readUInt32LE(at - 4) : Number(file.readBigUInt64LE(at - 8));
  };
  const skipText = () => {
    const length = number(8);
    at += length;
  };
  const skipValue = (type: number): void => {
    if (type === 8) {
      skipText();
    } else if (type === 9) {
      const element = number(4);
      for (let left = number(8); left > 0; left--) {
        skipValue(element);
      }
    } else {
      at += SIZES[type] as number;
    }
  };
  const tensorCount = number(8);
  const pairCount = number(8);
  const begin = at;
  for (let left = pairCount; left > 0; left--) {
    skipText();
    skipValue(number(4));
  }
  const pairs = file.subarray(begin, at);
  const infos = Array.from({ length: tensorCount }, () => {
    const from = at;
    skipText();
    const dimensions = number(4);
    at += 8 * dimensions + 4;
    const head = file.subarray(from, at);
    return { head, offset: number(8) };
  });
  const data = file.subarray(Math.ceil(at / ALIGNMENT) * ALIGNMENT);
  const ends = [...infos.map(({ offset }) => offset), data.length].sort((a, b) => a - b);
  const endOf = (offset: number) => ends.find((each) => each > offset) as number;
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
