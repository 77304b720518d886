// A damaged model fails to load with an error code, and never ends the process. A child process loads the models, so
// that the tests notice a crash.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Model } from 'llama-headstart/native';
import { expect, it } from 'vitest';
import { runChild } from '../helpers/children.js';
import { type MicroModelName, microModel } from '../helpers/models.js';
import { codeOf, seededRandom, temporaryDirectory } from '../helpers/native.js';

const directory = await temporaryDirectory();

/** Returns the outcome of each file. Fails if the child process crashed or printed anything else. */
async function outcomesOf(paths: readonly string[]): Promise<string[]> {
  const { stdout, ...end } = await runChild('native/children/damaged-models.mjs', paths);
  const outcomes = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as string);
  expect({ ...end, next: paths[outcomes.length] }).toEqual({ code: 0, signal: null, stderr: '', next: undefined });
  expect(outcomes.filter((outcome) => outcome.startsWith('no code'))).toEqual([]);
  return outcomes;
}

function write(name: string, bytes: Uint8Array | string): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
}

it('files that are not models are refused: empty, text, another format, a directory, a FIFO', async () => {
  mkdirSync(join(directory, 'folder.gguf'));
  const paths = [
    write('empty.gguf', ''),
    write('text.gguf', 'This is not a model.\n'.repeat(100)),
    write('magic.gguf', 'GGUF'),
    write('zeros.gguf', new Uint8Array(4096)),
    write('ones.gguf', Buffer.concat([Buffer.from('GGUF\x03\0\0\0'), Buffer.alloc(4096, 0xff)])),
    join(directory, 'folder.gguf'),
  ];
  if (process.platform !== 'win32') {
    execFileSync('mkfifo', [join(directory, 'fifo.gguf')]);
    paths.push(join(directory, 'fifo.gguf'));
  }
  expect(await outcomesOf(paths)).toEqual(paths.map(() => 'MODEL_INVALID'));
});

it('a model that is truncated at any length is refused', async () => {
  const whole = readFileSync(microModel('dense'));
  const cuts = [1, 4, 8, 16, 23, 24, 25, 40, 100, 500, 1_000, 5_000, 20_000, 60_000, 200_000, whole.length - 1];
  const paths = cuts.map((length) => write(`cut-${length}.gguf`, whole.subarray(0, length)));
  expect(await outcomesOf(paths)).toEqual(paths.map(() => 'MODEL_INVALID'));
});

// The header begins with sizes, types and hyperparameters. Tokens, merges and descriptions of tensors follow.
const AREAS = { hyperparameters: [0, 900], header: [0, 60_000], 'whole file': [0, Infinity] } as const;

it.each<[keyof typeof AREAS, MicroModelName]>([
  ['hyperparameters', 'dense'],
  ['hyperparameters', 'hybrid'],
  ['hyperparameters', 'recurrent'],
  ['hyperparameters', 'sliding-window'],
  ['header', 'dense'],
  ['whole file', 'dense-quantised'],
])('changed bytes in the %s of a %s model lead to an error code or a usable model', async (area, kind) => {
  const whole = readFileSync(microModel(kind));
  const [from, to] = AREAS[area];
  const paths = Array.from({ length: 30 }, (_, seed) => {
    const random = seededRandom(1000 + seed);
    const bytes = Buffer.from(whole);
    for (let changes = 1 + Math.floor(random() * 4); changes > 0; changes--) {
      const at = from + Math.floor(random() * (Math.min(to, bytes.length) - from));
      bytes[at] = random() < 0.5 ? Math.floor(random() * 256) : (bytes[at] as number) ^ (1 << Math.floor(random() * 8));
    }
    return write(`${area}-${kind}-${seed}.gguf`, bytes);
  });
  expect(new Set(await outcomesOf(paths))).toContain('MODEL_INVALID');
});

it('the error message of a damaged model contains the failed assert of llama.cpp', async () => {
  const bytes = readFileSync(microModel('dense'));
  // Gives two tokens the same text. llama.cpp asserts that there are as many different texts as tokens.
  const at = bytes.indexOf('tokenizer.ggml.tokens') + 'tokenizer.ggml.tokens'.length + 4 + 4 + 8;
  bytes.copyWithin(at + 10, at, at + 10);
  const path = write('assert.gguf', bytes);
  await expect(Model.load({ path })).rejects.toMatchObject({
    code: 'MODEL_INVALID',
    message: expect.stringMatching(/llama-vocab\.cpp.*GGML_ASSERT/),
  });
});

it('a split model is refused if its other parts are missing', async () => {
  const whole = readFileSync(microModel('dense'));
  const text = (value: string) => Buffer.concat([u64(value.length), Buffer.from(value)]);
  const u64 = (value: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return bytes;
  };
  const UINT16 = Buffer.of(2, 0, 0, 0);
  const INT32 = Buffer.of(5, 0, 0, 0);
  const STRING = Buffer.of(8, 0, 0, 0);
  const pairs = Buffer.concat([
    text('split.no'),
    UINT16,
    Buffer.of(0, 0),
    text('split.count'),
    UINT16,
    Buffer.of(3, 0),
    text('split.tensors.count'),
    INT32,
    Buffer.of(100, 0, 0, 0),
  ]);
  // The added metadata has a multiple of 32 bytes, so that the tensors keep their alignment.
  const filler = Buffer.concat([text('filler'), STRING]);
  const padding = 32 - ((pairs.length + filler.length + 8) % 32);
  const head = Buffer.from(whole.subarray(0, 24));
  head.writeBigUInt64LE(head.readBigUInt64LE(16) + 4n, 16);
  const path = write(
    'model-00001-of-00003.gguf',
    Buffer.concat([head, pairs, filler, text('.'.repeat(padding)), whole.subarray(24)]),
  );
  expect(await codeOf(() => Model.load({ path }))).toBe('MODEL_INVALID');
});

it('a model can be loaded after the load of another model failed', async () => {
  expect(await codeOf(() => Model.load({ path: write('broken.gguf', 'GGUF') }))).toBe('MODEL_INVALID');
  const model = await Model.load({ path: microModel('dense') });
  await model.close();
});
