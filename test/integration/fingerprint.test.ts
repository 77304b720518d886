// The fingerprint of a model covers the GGUF header and two samples of every tensor, in all parts of the model. The
// tests compute the expected hash with `node:crypto`.
import { createHash } from 'node:crypto';
import { copyFile, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HeadstartError } from 'llama-headstart';
import { addon, fingerprintModel } from 'llama-headstart/internal';
import { expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { codeOf, temporaryDirectory } from '../helpers/native.js';

const SAMPLE_BYTES = 4096;
const directory = await temporaryDirectory();
const path = microModel('dense');

/** Returns the length of the header, and the offset and length of each sample, all in bytes. */
async function samplesOf(file: string): Promise<{ header: number; samples: [start: number, length: number][] }> {
  const { dataOffset, offsets, sizes } = await addon().ggufLayout(file);
  const samples = [...offsets].flatMap((offset, index): [number, number][] => {
    const size = sizes[index] ?? 0;
    const start = dataOffset + offset;
    const half = Math.floor(size / 2);
    const first: [number, number] = [start, Math.min(SAMPLE_BYTES, size)];
    return size <= SAMPLE_BYTES ? [first] : [first, [start + half, Math.min(SAMPLE_BYTES, size - half)]];
  });
  return { header: dataOffset, samples };
}

async function expectedOf(...files: string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const file of files) {
    const content = await readFile(file);
    const { header, samples } = await samplesOf(file);
    for (const [start, length] of [[0, header], ...samples] as [number, number][]) {
      hash.update(content.subarray(start, start + length));
    }
  }
  return hash.digest('hex');
}

/** Copies the model and changes one bit of the byte at `position`. Returns the path of the copy. */
async function changedAt(position: number, name: string): Promise<string> {
  const copy = join(directory, `${name}.gguf`);
  await copyFile(path, copy);
  const file = await open(copy, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, position);
  await file.write(Buffer.from([byte.readUInt8() ^ 1]), 0, 1, position);
  await file.close();
  return copy;
}

it('the fingerprint of a model covers the header and two samples of every tensor', async () => {
  expect(await fingerprintModel(path)).toBe(await expectedOf(path));
});

it('the fingerprint of a model covers all parts of a split model, in their order', async () => {
  const parts = [1, 2].map((part) => join(directory, `split-0000${part}-of-00002.gguf`));
  await copyFile(path, parts[0] as string);
  await copyFile(microModel('recurrent'), parts[1] as string);
  expect(await fingerprintModel(parts[0] as string)).toBe(await expectedOf(...parts));
});

it('the fingerprint of a model changes with a weight in a sample, and is the same for a copy of the file', async () => {
  const { samples } = await samplesOf(path);
  const [start, length] = samples[0] as [number, number];
  const original = await fingerprintModel(path);
  for (const [name, position] of [
    ['first', start],
    ['last', start + length - 1],
  ] as const) {
    expect(await fingerprintModel(await changedAt(position, name))).not.toBe(original);
  }
  const copy = join(directory, 'copy.gguf');
  await copyFile(path, copy);
  expect(await fingerprintModel(copy)).toBe(original);
});

it('the fingerprint of a file that is not a model fails with an error code', async () => {
  const text = join(directory, 'text.gguf');
  await writeFile(text, 'not a model');
  expect(await codeOf(() => fingerprintModel(text))).toBe('MODEL_INVALID');
  expect(await codeOf(() => fingerprintModel(join(directory, 'missing.gguf')))).toBe('MODEL_NOT_FOUND');
});

it('the fingerprint of a model fails with ABORTED and the reason when the signal is aborted', async () => {
  const abort = new AbortController();
  const outcome = fingerprintModel(path, { signal: abort.signal }).catch((error: unknown) => error);
  abort.abort('enough');
  for (const error of [
    await outcome,
    await fingerprintModel(path, { signal: AbortSignal.abort('enough') }).catch((error: unknown) => error),
  ]) {
    expect(HeadstartError.isInstance(error, 'ABORTED') && error.cause).toBe('enough');
  }
});
