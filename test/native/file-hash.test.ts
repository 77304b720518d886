// FileHash computes the SHA-256 of files on a native thread, for fingerprints of models and content hashes of adapters.
import { createHash } from 'node:crypto';
import { symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HeadstartError } from 'llama-headstart';
import { addon, FileHash, type FileRange } from 'llama-headstart/internal';
import { expect, it } from 'vitest';
import { codeOf, seededRandom, temporaryDirectory } from '../helpers/native.js';

const directory = await temporaryDirectory();
const random = seededRandom(7);
const content = Buffer.from(Array.from({ length: 10_000_019 }, () => random() * 256));
const path = join(directory, 'content');
await writeFile(path, content);

async function hashOf(file: string, ranges: FileRange[], signal?: AbortSignal): Promise<string> {
  const hash = new FileHash();
  await hash.add(file, ranges, signal);
  return hash.digest();
}

it.each([
  ['', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
  ['abc', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'],
  [
    'abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq',
    '248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1',
  ],
])('the hash of %j is the hash in the standard (FIPS 180-2)', async (text, expected) => {
  const file = join(directory, `vector-${text.length}`);
  await writeFile(file, text);
  expect(await hashOf(file, [{ offset: 0, length: text.length }])).toBe(expected);
});

it('the hash equals the hash of OpenSSL for every length from 0 to 200 bytes', async () => {
  for (let length = 0; length <= 200; length++) {
    const expected = createHash('sha256').update(content.subarray(3, 3 + length));
    expect(await hashOf(path, [{ offset: 3, length }])).toBe(expected.digest('hex'));
  }
});

it('the ranges of several add() calls are hashed one after another', async () => {
  const ranges = [
    { offset: 0, length: content.length },
    { offset: 5, length: 0 },
    { offset: content.length - 10, length: 1000 }, // the file has only 10 of these bytes
    { offset: 1_000_000, length: 9_000_000 },
    { offset: content.length + 5, length: 3 },
  ];
  const hash = new FileHash();
  const expected = createHash('sha256');
  for (const round of [ranges, ranges.slice().reverse()]) {
    await hash.add(path, round);
    for (const { offset, length } of round) expected.update(content.subarray(offset, offset + length));
  }
  expect(await hash.digest()).toBe(expected.digest('hex'));
});

it('a symbolic link is followed, because model files are often links', async () => {
  const link = join(directory, 'link');
  await symlink(path, link);
  expect(await hashOf(link, [{ offset: 0, length: 9 }])).toBe(await hashOf(path, [{ offset: 0, length: 9 }]));
});

it('an unreadable file causes an error with a code, and concurrent hashes do not mix', async () => {
  const ranges = [{ offset: 0, length: 10 }];
  expect(await codeOf(() => hashOf(join(directory, 'none'), ranges))).toBe('ENTRY_MISSING');
  expect(await codeOf(() => hashOf(directory, ranges))).toBe('ENTRY_CORRUPT');
  const whole = [{ offset: 0, length: content.length }];
  const [first, second] = await Promise.all([hashOf(path, whole), hashOf(path, whole)]);
  expect(first).toBe(second);
});

it('a signal stops hashing, even in the middle of a file', async () => {
  const whole = [{ offset: 0, length: content.length }];
  expect(await codeOf(() => hashOf(path, whole, AbortSignal.abort()))).toBe('ABORTED');
  const large = join(directory, 'large'); // a sparse file of a gigabyte, which uses no disk space
  await writeFile(large, '');
  await truncate(large, 2 ** 30);
  const abort = new AbortController();
  const hashing = hashOf(large, [{ offset: 0, length: 2 ** 30 }], abort.signal).catch((error: unknown) => error);
  await new Promise(setImmediate);
  abort.abort('enough');
  const error = await hashing;
  expect(HeadstartError.isInstance(error, 'ABORTED') && error.cause).toBe('enough');
});

it('wrong arguments are refused with INVALID_ARGUMENT', async () => {
  const raw = new (addon().FileHash)() as unknown as { add(...args: unknown[]): Promise<void> };
  const bad: unknown[][] = [
    [],
    [5, new Float64Array(2)],
    ['', new Float64Array(2)],
    [path, [0, 1]],
    [path, Float64Array.of(-1, 1)],
    [path, Float64Array.of(0, 0.5)],
    [path, Float64Array.of(Number.NaN, 1)],
    [path, Float64Array.of(0, Number.POSITIVE_INFINITY)],
    [path, new Float64Array(2), {}],
  ];
  for (const args of bad) expect(await codeOf(() => raw.add(...args))).toBe('INVALID_ARGUMENT');
});
