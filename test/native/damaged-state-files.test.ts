// Reading a damaged file fails with an error code. It never returns a wrong state.
import { execFileSync } from 'node:child_process';
import { constants } from 'node:fs';
import { copyFile, mkdir, open, readFile, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Model, SequenceState } from 'llama-headstart/native';
import { beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { captureOf, codeOf, seededRandom, someTokens, temporaryDirectory } from '../helpers/native.js';

const TOKENS = 50;
const HEADER_BYTES = 12;
const TRAILER_BYTES = 28;

const directory = await temporaryDirectory();
const intact = join(directory, 'intact.kv');
let bytes: Buffer;
let metadataBytes: number;

beforeAll(async () => {
  const model = await Model.load({ path: microModel('dense') });
  const context = await model.createContext({ kvCells: 256 });
  const state = await captureOf(context, someTokens(TOKENS, model.info.vocabulary.size));
  await state.writeFile(intact, { note: 'a state' });
  await model.close();
  bytes = await readFile(intact);
  metadataBytes = bytes.readUInt32LE(bytes.length - TRAILER_BYTES);
});

let count = 0;
async function file(content: Uint8Array): Promise<string> {
  const path = join(directory, `damaged-${count++}.kv`);
  await writeFile(path, content);
  return path;
}

const read = (path: string) => codeOf(async () => (await SequenceState.readFile(path)).close());

it('an undamaged file can be read', async () => {
  expect(await read(intact)).toBe('none');
});

describe('a changed file', () => {
  it('is refused as corrupt if it is truncated at any length', async () => {
    const states = bytes.length - TRAILER_BYTES - metadataBytes;
    const edges = [0, 4, 8, HEADER_BYTES, HEADER_BYTES + 4 * TOKENS, states, states + metadataBytes, bytes.length];
    const cuts = new Set([...edges.flatMap((edge) => [edge - 1, edge, edge + 1]), 2000, 20_000]);
    for (const length of cuts) {
      if (length < 0 || length >= bytes.length) continue;
      expect(await read(await file(bytes.subarray(0, length))), `${length} of ${bytes.length}`).toBe('ENTRY_CORRUPT');
    }
  });

  it('is refused as corrupt or foreign if any bit in any part is changed', async () => {
    const random = seededRandom(42);
    const states = HEADER_BYTES + 4 * TOKENS;
    const parts = [
      [0, HEADER_BYTES],
      [HEADER_BYTES, states],
      [states, bytes.length - TRAILER_BYTES - metadataBytes],
      [bytes.length - TRAILER_BYTES - metadataBytes, bytes.length],
    ] as const;
    for (let seed = 0; seed < 300; seed++) {
      const [from, to] = parts[seed % parts.length] as (typeof parts)[number];
      const at = from + Math.floor(random() * (to - from));
      const bit = Math.floor(random() * 8);
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] as number) ^ (1 << bit);
      expect(['ENTRY_CORRUPT', 'ENTRY_FOREIGN'], `bit ${bit} of byte ${at}`).toContain(await read(await file(changed)));
    }
  });

  it('is refused as corrupt if bytes are added or removed', async () => {
    expect(await read(await file(Buffer.concat([bytes, Buffer.from([0])])))).toBe('ENTRY_CORRUPT');
    expect(await read(await file(Buffer.concat([bytes, bytes])))).toBe('ENTRY_CORRUPT');
    expect(await read(await file(Buffer.concat([Buffer.alloc(16), bytes])))).toBe('ENTRY_CORRUPT');
    const middle = Buffer.concat([bytes.subarray(0, 5000), bytes.subarray(5004)]);
    expect(await read(await file(middle))).toBe('ENTRY_CORRUPT');
  });

  it('is refused as corrupt if it is empty, has only zeros, or has only text', async () => {
    expect(await read(await file(Buffer.alloc(0)))).toBe('ENTRY_CORRUPT');
    expect(await read(await file(Buffer.alloc(bytes.length)))).toBe('ENTRY_CORRUPT');
    expect(await read(await file(Buffer.from('not a state\n'.repeat(1000))))).toBe('ENTRY_CORRUPT');
  });

  it('is refused as corrupt if its footer belongs to another state', async () => {
    const other = Buffer.from(bytes);
    other.subarray(0, other.length - (other.length % 2)).swap16();
    const footer = bytes.subarray(bytes.length - TRAILER_BYTES - metadataBytes);
    expect(await read(await file(Buffer.concat([other.subarray(0, other.length - footer.length), footer])))).toBe(
      'ENTRY_CORRUPT',
    );
  });

  it('is refused as foreign if it has another format version', async () => {
    const other = Buffer.from(bytes);
    other.writeUInt32LE(other.readUInt32LE(4) + 1, 4);
    expect(await read(await file(other))).toBe('ENTRY_FOREIGN');
  });

  it('is refused as corrupt if its number of tokens is wrong', async () => {
    for (const tokens of [0, TOKENS - 1, TOKENS + 1, 2 ** 31, 2 ** 32 - 1]) {
      const other = Buffer.from(bytes);
      other.writeUInt32LE(tokens, 8);
      expect(await read(await file(other)), String(tokens)).toBe('ENTRY_CORRUPT');
    }
  });
});

describe('a path that is not a regular file', () => {
  it('is refused with an error code, and the read does not block', async () => {
    expect(await read(join(directory, 'missing.kv'))).toBe('ENTRY_MISSING');
    expect(await read(join(intact, 'under-a-file.kv'))).toBe('READ_FAILED');
    await mkdir(join(directory, 'folder.kv'));
    expect(await read(join(directory, 'folder.kv'))).toBe('ENTRY_CORRUPT');
    if (process.platform === 'win32') return;
    await symlink(intact, join(directory, 'link.kv'));
    expect(await read(join(directory, 'link.kv'))).toBe('ENTRY_CORRUPT');
    await symlink('/nowhere', join(directory, 'dangling.kv'));
    expect(await read(join(directory, 'dangling.kv'))).toBe('ENTRY_CORRUPT');
    execFileSync('mkfifo', [join(directory, 'fifo.kv')]);
    expect(await read(join(directory, 'fifo.kv'))).toBe('ENTRY_CORRUPT');
    expect(await read('/dev/zero')).toBe('ENTRY_CORRUPT');
  });
});

describe("a path that is not a regular file, passed to llama.cpp's own reader", () => {
  it('is refused without blocking, and the context still works', async () => {
    const folder = join(directory, 'theirs');
    await mkdir(folder);
    const paths = [join(folder, 'missing.kv'), join(intact, 'under-a-file.kv'), folder];
    if (process.platform !== 'win32') {
      execFileSync('mkfifo', [join(folder, 'fifo.kv')]);
      await symlink(join(folder, 'fifo.kv'), join(folder, 'link.kv'));
      paths.push(join(folder, 'fifo.kv'), join(folder, 'link.kv'), '/dev/zero', '/dev/null');
    }
    const model = await Model.load({ path: microModel('dense') });
    const context = await model.createContext({ kvCells: 256 });
    for (const path of paths) expect(await codeOf(() => context.loadFile(0, path)), path).toBe('RESTORE_FAILED');
    await context.loadFile(0, intact);
    expect((await context.positionRange(0)).last).toBe(TOKENS - 1);
    await context.close();
    await model.close();
  });
});

describe('a sparse file of a terabyte', () => {
  it('is refused without allocating a terabyte', async () => {
    const path = join(directory, 'sparse.kv');
    await writeFile(path, '');
    await truncate(path, 2 ** 40);
    expect(await read(path)).toBe('ENTRY_CORRUPT');
    const handle = await open(path, constants.O_RDWR);
    await handle.write(bytes.subarray(0, HEADER_BYTES), 0, HEADER_BYTES, 0);
    expect(await read(path)).toBe('ENTRY_CORRUPT');
    const footer = bytes.subarray(bytes.length - TRAILER_BYTES - metadataBytes);
    await handle.write(footer, 0, footer.length, 2 ** 40 - footer.length);
    expect(await read(path)).toBe('ENTRY_CORRUPT');
    await handle.close();
  });
});

describe('readMetadata', () => {
  it('refuses a file with a missing or damaged footer', async () => {
    expect(await SequenceState.readMetadata(intact)).toMatchObject({ note: 'a state', tokenCount: TOKENS });
    expect(await codeOf(() => SequenceState.readMetadata(join(directory, 'missing.kv')))).toBe('ENTRY_MISSING');
    const metadata = bytes.length - TRAILER_BYTES - metadataBytes;
    for (const at of [bytes.length - 1, bytes.length - TRAILER_BYTES + 2, metadata, metadata + 1]) {
      const damaged = Buffer.from(bytes);
      damaged[at] = 0xff;
      const path = await file(damaged);
      expect(await codeOf(() => SequenceState.readMetadata(path)), String(at)).toBe('ENTRY_CORRUPT');
    }
  });
});

describe('a damaged file that is read without verification', () => {
  it('does not end the process, and clear() makes the context usable again', async () => {
    const model = await Model.load({ path: microModel('dense') });
    const context = await model.createContext({ kvCells: 256 });
    const random = seededRandom(7);
    const states = bytes.length - TRAILER_BYTES - metadataBytes;
    const outcomes = new Set<string>();
    for (let seed = 0; seed < 100; seed++) {
      const damaged = Buffer.from(bytes.subarray(0, seed % 2 ? states : Math.floor(random() * states)));
      const head = HEADER_BYTES + 4 * TOKENS;
      const at = seed % 4 < 2 ? Math.floor(random() * head) : head + Math.floor(random() * 1000);
      if (at < damaged.length) damaged[at] = Math.floor(random() * 256);
      const path = await file(damaged);
      outcomes.add(
        await codeOf(async () => {
          const state = await SequenceState.readFile(path, { unverified: true });
          await context.restoreSequence(0, state);
        }),
      );
      await context.clear();
      outcomes.add(await codeOf(() => context.loadFile(0, path)));
      await context.clear();
    }
    expect(outcomes).toContain('RESTORE_FAILED');
    await copyFile(intact, join(directory, 'again.kv'));
    await context.loadFile(0, join(directory, 'again.kv'));
    expect((await context.positionRange(0)).last).toBe(TOKENS - 1);
    await model.close();
  });
});
