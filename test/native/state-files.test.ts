// A file keeps a state unchanged. A failed write leaves no file.
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Context, Model, SequenceState } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { captureOf, codeOf, someTokens, temporaryDirectory } from '../helpers/native.js';
import { smallDisk } from '../helpers/small-disk.js';
import { rounds } from '../helpers/soak.js';

const directory = await temporaryDirectory();
let model: Model;
let context: Context;
let state: SequenceState;
let tokens: Int32Array;

beforeAll(async () => {
  model = await Model.load({ path: microModel('dense') });
  tokens = someTokens(100, model.info.vocabulary.size);
  context = await model.createContext({ kvCells: 2048, batchSize: 512, maxSequences: 2 });
  state = await captureOf(context, tokens);
});
afterAll(() => model?.close());

describe('a written state', () => {
  it('can be read with its tokens, size and metadata', async () => {
    const path = join(directory, 'round.kv');
    const metadata = { name: 'π 🦙', nested: { list: [1, 2.5, null, true] }, big: 2 ** 53 };
    const size = await state.writeFile(path, metadata);
    expect((await stat(path)).size).toBe(size);
    const read = await SequenceState.readFile(path);
    expect(read.tokens).toEqual(tokens);
    expect(read.byteLength).toBe(state.byteLength);
    expect(read.metadata).toMatchObject({ ...metadata, tokenCount: 100 });
    expect(await SequenceState.readMetadata(path)).toEqual(read.metadata);
    read.close();
  });

  it('is in a file that only the user who wrote it can read', async () => {
    const path = join(directory, 'mode.kv');
    await state.writeFile(path);
    if (process.platform !== 'win32') {
      expect((await stat(path)).mode & 0o777).toBe(0o600);
    }
  });

  it('has the same bytes if it is read and written again', async () => {
    const [first, second] = [join(directory, 'first.kv'), join(directory, 'second.kv')];
    await state.writeFile(first, { a: 1 });
    const read = await SequenceState.readFile(first);
    await read.writeFile(second, read.metadata);
    read.close();
    expect(Buffer.compare(await readFile(first), await readFile(second))).toBe(0);
  });

  it('starts like a file of llama.cpp, with the magic bytes and the tokens', async () => {
    const path = join(directory, 'layout.kv');
    await state.writeFile(path);
    const bytes = await readFile(path);
    expect(bytes.toString('latin1', 0, 4)).toBe('qsgg');
    expect(bytes.readUInt32LE(8)).toBe(100);
    expect(new Int32Array(bytes.buffer.slice(bytes.byteOffset + 12, bytes.byteOffset + 412))).toEqual(tokens);
    expect(bytes.toString('latin1', bytes.length - 8)).toBe('HDSTART1');
  });

  it('is refused by a context with incompatible options', async () => {
    const path = join(directory, 'kind.kv');
    await state.writeFile(path);
    const read = await SequenceState.readFile(path);
    const other = await model.createContext({ kvCells: 256, flashAttention: false });
    expect(await codeOf(() => other.restoreSequence(0, read))).toBe('STATE_INCOMPATIBLE');
    await other.close();
    read.close();
  });

  it('can be written and read by many calls at the same time', async () => {
    const paths = Array.from({ length: 20 }, (_, index) => join(directory, `many-${index}.kv`));
    await Promise.all(paths.map((path) => state.writeFile(path)));
    const states = await Promise.all(paths.map((path) => SequenceState.readFile(path)));
    for (const read of states) {
      expect(read.tokens).toEqual(tokens);
      read.close();
    }
  });
});

describe('a file without a footer, as llama.cpp writes it', () => {
  it('can be read only with the option `unverified`', async () => {
    const ours = join(directory, 'ours.kv');
    await state.writeFile(ours);
    const bytes = await readFile(ours);
    const footer = bytes.readUInt32LE(bytes.length - 28) + 28;
    const path = join(directory, 'bare.kv');
    await writeFile(path, bytes.subarray(0, bytes.length - footer));
    expect(await codeOf(() => SequenceState.readFile(path))).toBe('ENTRY_CORRUPT');
    const read = await SequenceState.readFile(path, { unverified: true });
    expect(read.tokens).toEqual(tokens);
    expect(read.metadata).toEqual({});
    await context.restoreSequence(1, read);
    expect((await context.positionRange(1)).last).toBe(99);
    await context.removeSequence(1);
    read.close();
  });
});

describe('the write of a state to a file', () => {
  const failing = async (path: string, code: string) => {
    const before = existsSync(path) ? await readFile(path) : undefined;
    expect(await codeOf(() => state.writeFile(path)), path).toBe(code);
    expect(existsSync(path) ? await readFile(path) : undefined).toEqual(before);
  };

  it('is refused if the path already has a file, and that file stays unchanged', async () => {
    const path = join(directory, 'taken.kv');
    await writeFile(path, 'taken');
    await failing(path, 'WRITE_FAILED');
  });

  it('is refused in a missing directory, below a file, at the path of a directory, and with a long name', async () => {
    await writeFile(join(directory, 'file'), '');
    await mkdir(join(directory, 'folder'));
    await failing(join(directory, 'missing', 'x.kv'), 'WRITE_FAILED');
    await failing(join(directory, 'file', 'x.kv'), 'WRITE_FAILED');
    expect(await codeOf(() => state.writeFile(join(directory, 'folder')))).toBe('WRITE_FAILED');
    expect(await codeOf(() => state.writeFile(join(directory, 'n'.repeat(300))))).toBe('WRITE_FAILED');
  });

  it('is refused on a read-only file system', async () => {
    if (process.platform !== 'linux') return;
    expect(await codeOf(() => state.writeFile('/proc/llama-headstart.kv'))).toBe('WRITE_FAILED');
  });

  it('causes DISK_FULL on a full disk, and no part of the file is left', async ({ skip }) => {
    const disk = smallDisk(join(directory, 'disk'), '64k');
    if (disk === undefined) return skip('no small file system can be mounted here');
    expect(state.byteLength).toBeGreaterThan(64 << 10);
    expect(await codeOf(() => state.writeFile(join(disk, 'x.kv')))).toBe('DISK_FULL');
    expect(await readdir(disk)).toEqual([]);
  });

  it('is refused if the metadata is too large or nests too deeply', async () => {
    const path = join(directory, 'metadata.kv');
    expect(await codeOf(() => state.writeFile(path, { text: 'x'.repeat(2 << 20) }))).toBe('INVALID_ARGUMENT');
    let deep: object = {};
    for (let level = 0; level < 3000; level++) deep = { deep };
    expect(await codeOf(() => state.writeFile(path, deep))).toBe('JSON_TOO_DEEP');
    expect(existsSync(path)).toBe(false);
  });

  // Writing such a text takes seconds.
  it.runIf(rounds(0, 1))(
    'is refused if the JSON text of the metadata would exceed the maximum length of a string',
    async () => {
      const path = join(directory, 'long-metadata.kv');
      const long = Array(600).fill('x'.repeat(1_000_000));
      expect(await codeOf(() => state.writeFile(path, { long }))).toBe('INVALID_ARGUMENT');
      expect(existsSync(path)).toBe(false);
    },
  );
});
