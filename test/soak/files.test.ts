// Damaged files, full disks and other faults never cause a crash or a wrong reply, and every fault is counted.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import {
  appendFile,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { type Lab, someTokens } from '../helpers/lab.js';
import { seededRandom } from '../helpers/native.js';
import { openLab } from '../helpers/open-lab.js';
import { makeReadOnly, smallDisk } from '../helpers/small-disk.js';
import { rounds, Tally } from '../helpers/soak.js';

const TEMPLATE = someTokens(64, 1);
const OTHER = someTokens(64, 2);
const MESSAGE = someTokens(5, 3);
const STEPS = 3;
const RealDate = Date;
/** The options of a lab without resident templates and without the memory tier. Every start then reads the disk. */
const DISK_ONLY = { residents: 0, cache: { maxMemoryBytes: 0 } } as const;

const run = (lab: Lab, template = TEMPLATE) => lab.run(template, MESSAGE, STEPS);

async function expectedTokens(template = TEMPLATE): Promise<number[]> {
  const lab = await openLab({});
  const { tokens } = await lab.run(template, MESSAGE, STEPS, { cache: false });
  return tokens;
}

/** Saves an entry in a new directory. Returns the directory and the path of the entry. */
async function savedEntry(template = TEMPLATE): Promise<{ directory: string; path: string }> {
  const directory = await temporaryDirectory();
  const lab = await openLab({ directory });
  const { key } = await lab.start(template);
  await lab.close();
  return { directory, path: join(directory, `template_${key.slice(0, 16)}.kv`) };
}

type Random = () => number;
type Damage = (path: string, size: number, random: Random) => Promise<void>;

/**
 * Returns a function that flips one bit of a file. `from` and `to` compute the range of offsets from the file's size.
 */
const flip =
  (from: (size: number) => number, to: (size: number) => number): Damage =>
  async (path, size, random) => {
    const offset = from(size) + Math.floor(random() * (to(size) - from(size)));
    const file = await open(path, 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, offset);
    byte[0] = (byte[0] as number) ^ (1 << Math.floor(random() * 8));
    await file.write(byte, 0, 1, offset);
    await file.close();
  };

const TOKENS_END = 12 + 4 * TEMPLATE.length;

const DAMAGES: Record<string, Damage> = {
  'a bit of the header': flip(
    () => 0,
    () => 12,
  ),
  'a bit of the tokens': flip(
    () => 12,
    () => TOKENS_END,
  ),
  'a bit of the state': flip(
    () => TOKENS_END,
    (size) => size - 1200,
  ),
  'a bit of the footer': flip(
    (size) => size - 1200,
    (size) => size,
  ),
  'a truncation': async (path, size, random) => truncate(path, Math.floor(random() * size)),
  'an empty file': async (path) => truncate(path, 0),
  'a sparse file of a terabyte': async (path) => truncate(path, 2 ** 40),
  'additional bytes at the end': async (path, _, random) =>
    appendFile(path, Buffer.alloc(1 + Math.floor(random() * 100))),
  'other bytes': async (path, size) => writeFile(path, Buffer.alloc(size, 0x5a)),
  'a named pipe': async (path) => {
    await rm(path);
    execFileSync('mkfifo', [path]);
  },
  'a directory': async (path) => {
    await rm(path);
    await mkdir(join(path, 'inside'), { recursive: true });
  },
  'a link to an entry': async (path) => {
    await rename(path, `${path}.elsewhere`);
    await symlink(`${path}.elsewhere`, path);
  },
};

describe('a cache entry', () => {
  it('with random damage counts as a miss and does not change the reply', async () => {
    const damaged = new Tally('random corruptions');
    const random = seededRandom(11);
    const { directory, path } = await savedEntry();
    const expected = await expectedTokens();
    const lab = await openLab({ directory, ...DISK_ONLY });
    const names = Object.keys(DAMAGES);
    for (let index = 0; index < rounds(60, 1900); index++) {
      const name = names[index % names.length] as string;
      await damaged.try(`${name}, ${index}`, async () => {
        const before = lab.cache.stats();
        await DAMAGES[name]?.(path, (await stat(path)).size, random);
        const { report, tokens } = await run(lab);
        await lab.cache.flush();
        expect(tokens).toEqual(expected);
        // A flipped bit in the version makes the file foreign, not damaged. A foreign file is not deleted.
        const foreign = report.reason?.startsWith('foreign') === true;
        expect(report).toMatchObject({ cache: 'miss', cachedTokens: 0 });
        expect(lab.cache.stats().corruptions - before.corruptions).toBe(foreign ? 0 : 1);
        if (foreign) {
          expect(name).toBe('a bit of the header');
          await rm(path);
          await lab.cache.invalidate({ tokens: TEMPLATE });
          await run(lab);
          await lab.cache.flush();
        }
        await rm(`${path}.elsewhere`, { force: true });
        expect((await run(lab)).report.source).toBe('disk'); // the entry was saved again
      });
    }
    expect((await readdir(directory)).filter((file) => file.endsWith('.corrupt')).length).toBeLessThanOrEqual(8);
    expect(damaged.done()).toEqual([]);
  });

  it('that is truncated during a read causes no crash and no wrong reply', async () => {
    const truncations = new Tally('truncations while an entry is read');
    const random = seededRandom(13);
    const { directory, path } = await savedEntry();
    const whole = await readFile(path);
    const expected = await expectedTokens();
    const lab = await openLab({ directory, ...DISK_ONLY });
    for (let index = 0; index < rounds(8, 100); index++) {
      await truncations.try(`truncation ${index}`, async () => {
        await writeFile(path, whole);
        const running = run(lab);
        for (let time = 0; time < 3; time++) {
          // The file may have been renamed to *.corrupt.
          await truncate(path, Math.floor(random() * whole.length)).catch(() => undefined);
        }
        const { report, tokens } = await running;
        expect(['disk', 'prefill']).toContain(report.source);
        expect(tokens).toEqual(expected);
        await lab.cache.flush();
      });
    }
    expect(truncations.done()).toEqual([]);
  });

  it('with the content of another entry is not used, and both templates are saved again', async () => {
    const swaps = new Tally('swapped entries');
    const { directory, path } = await savedEntry();
    const lab = await openLab({ directory, ...DISK_ONLY });
    const { key } = await lab.start(OTHER);
    await lab.cache.flush();
    const other = join(directory, `template_${key.slice(0, 16)}.kv`);
    const expected = [await expectedTokens(), await expectedTokens(OTHER)];
    for (let index = 0; index < rounds(2, 20); index++) {
      await swaps.try(`swap ${index}`, async () => {
        await rename(path, `${path}.aside`);
        await rename(other, path);
        await rename(`${path}.aside`, other);
        const swapped = [await run(lab), await run(lab, OTHER)];
        expect(swapped.map(({ tokens }) => tokens)).toEqual(expected);
        await lab.cache.flush();
        expect([await run(lab), await run(lab, OTHER)].map(({ report }) => report.source)).toEqual(['disk', 'disk']);
        expect(lab.cache.stats().corruptions).toBe(0);
      });
    }
    expect(swaps.done()).toEqual([]);
  });
});

describe('a disk', () => {
  it('that is full receives no partial files, and every start still gives the right reply', async ({ skip }) => {
    const full = new Tally('saves to a full disk');
    const directory = smallDisk(join(await temporaryDirectory(), 'disk'), '400k');
    if (directory === undefined) {
      skip('this user cannot mount a small file system (only root can)');
      return;
    }
    const lab = await openLab({ directory, ...DISK_ONLY, cache: { maxMemoryBytes: 0, allowSharedDirectory: true } });
    for (let seed = 1; seed <= rounds(12, 60); seed++) {
      await full.try(`template ${seed}`, async () => {
        const template = someTokens(64, seed);
        const { tokens } = await run(lab, template);
        await lab.cache.flush();
        expect(tokens).toEqual(await expectedTokens(template));
        expect((await readdir(directory)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
      });
    }
    const { saves, failedSaves } = lab.cache.stats();
    expect([saves > 0, failedSaves > 0]).toEqual([true, true]);
    expect(await lab.cache.verify()).toMatchObject({ corrupt: 0, intact: saves });
    await lab.cache.clear();
    await lab.start(someTokens(64, 1));
    await lab.cache.flush();
    expect((await lab.start(someTokens(64, 1))).source).toBe('disk'); // after clear() there is free space
    expect(full.done()).toEqual([]);
  });

  it('that is read-only still serves its entries, and failed saves are counted', async ({ skip }) => {
    const directory = smallDisk(join(await temporaryDirectory(), 'disk'), '4m');
    if (directory === undefined) {
      skip('this user cannot mount a file system (only root can)');
      return;
    }
    const first = await openLab({ directory, cache: { allowSharedDirectory: true } });
    await first.start(TEMPLATE);
    await first.close();
    makeReadOnly(directory);
    const lab = await openLab({ directory, ...DISK_ONLY, cache: { maxMemoryBytes: 0, allowSharedDirectory: true } });
    const readOnly = new Tally('starts on a read-only disk');
    const expected = [await expectedTokens(), await expectedTokens(OTHER)];
    for (let index = 0; index < rounds(2, 20); index++) {
      await readOnly.try(`start ${index}`, async () => {
        const all = [await run(lab), await run(lab, OTHER)];
        expect(all.map(({ report }) => report.source)).toEqual(['disk', 'prefill']);
        expect(all.map(({ tokens }) => tokens)).toEqual(expected);
        await lab.cache.flush();
        expect(lab.cache.stats()).toMatchObject({ failedSaves: index + 1, saves: 0 });
      });
    }
    expect(readOnly.done()).toEqual([]);
    await expect(lab.cache.pin({ tokens: OTHER })).rejects.toMatchObject({ code: 'WRITE_FAILED' });
    await lab.close();
  });
});

describe('the cache directory', () => {
  it('may be deleted at any moment, and no reply becomes wrong', async () => {
    const deletions = new Tally('deletions of the directory');
    const random = seededRandom(17);
    const directory = join(await temporaryDirectory(), 'cache');
    const lab = await openLab({ directory, ...DISK_ONLY });
    const expected = await expectedTokens();
    for (let index = 0; index < rounds(8, 100); index++) {
      await deletions.try(`deletion ${index}`, async () => {
        const running = run(lab);
        for (let turn = Math.floor(random() * 20); turn > 0; turn--) {
          await new Promise(setImmediate);
        }
        await rm(directory, { recursive: true, force: true, maxRetries: 3 });
        expect((await running).tokens).toEqual(expected);
        await lab.cache.flush();
      });
    }
    await run(lab);
    await lab.cache.flush();
    expect((await run(lab)).report.source).toBe('disk');
    expect(deletions.done()).toEqual([]);
  });

  it('with thousands of entries is read once when it is opened, and not for a hit', async () => {
    const { directory, path } = await savedEntry();
    const count = rounds(2000, 10_000);
    const many = new Tally(`hits in a directory of ${count.toLocaleString('en')} entries`);
    const expected = await expectedTokens();
    await fillDirectory(directory, path, count);
    await utimes(directory, 1, 1); // an old time, so that the directory counts as unchanged
    const lab = await openLab({ directory, residents: 1, cache: { maxMemoryBytes: 0 } });
    expect(lab.cache.stats()).toMatchObject({ entries: count + 1, totalTokens: (count + 1) * TEMPLATE.length });
    const scans = countScans();
    for (let index = 0; index < rounds(4, 100); index++) {
      await many.try(`hit ${index}`, async () => {
        lab.engine.residents.evictIdle();
        const [disk, resident] = [await run(lab), await run(lab)];
        expect([disk.report.source, resident.report.source]).toEqual(['disk', 'resident']);
        expect([disk.tokens, resident.tokens]).toEqual([expected, expected]);
      });
    }
    expect(scans.count).toBe(0);
    scans.stop();
    expect(many.done()).toEqual([]);
  });

  it('loses no entry while the system clock jumps back and forward', async () => {
    const jumps = new Tally('jumps of the clock');
    const random = seededRandom(19);
    const directory = await temporaryDirectory();
    const lab = await openLab({
      directory,
      ...DISK_ONLY,
      cache: { maxMemoryBytes: 0, maxAgeMs: 3_600_000, maxEntries: 90 },
    });
    const expected = await expectedTokens();
    await run(lab);
    await lab.cache.flush();
    for (let index = 1; index <= rounds(6, 60); index++) {
      await jumps.try(`jump ${index}`, async () => {
        // The jump must not evict an entry, because all entries were used a moment ago.
        setClock(index % 3 === 0 ? 0 : -Math.floor(random() * 30 * 86_400_000));
        const { report, tokens } = await run(lab);
        expect([report.source, tokens]).toEqual(['disk', expected]);
        await lab.start(someTokens(64, 100 + index));
        await lab.cache.flush();
        expect(await lab.cache.prune()).toEqual({ entries: 0, temporaryFiles: 0, corruptFiles: 0 });
        expect(lab.cache.stats()).toMatchObject({ entries: index + 1, evictions: { disk: 0 }, failedSaves: 0 });
      });
    }
    expect(jumps.done()).toEqual([]);
  });

  it('keeps entries whose last use is in the future after the clock was set back', async () => {
    const { directory, path } = await savedEntry();
    const future = new Date(Date.now() + 1e10);
    await utimes(path, future, future);
    const lab = await openLab({ directory, cache: { maxAgeMs: 60_000, maxEntries: 10 } });
    expect((await run(lab)).report.source).toBe('disk');
    await lab.start(OTHER);
    await lab.cache.flush();
    expect(lab.cache.stats()).toMatchObject({ entries: 2, evictions: { disk: 0 } });
  });
});

/** Adds `count` entries. Each entry is a hard link to the same file under a new name, and a line in the index. */
async function fillDirectory(directory: string, path: string, count: number): Promise<void> {
  const [line] = (await readFile(join(directory, 'index-1.jsonl'), 'utf8')).split('\n');
  const original = JSON.parse(line as string);
  const lines: string[] = [];
  for (let index = 0; index < count; index++) {
    const key = index.toString(16).padStart(64, '0');
    const name = `template_${index.toString(16).padStart(16, '0')}.kv`;
    lines.push(`${JSON.stringify({ ...original, name, key, group: 'elsewhere' })}\n`);
    // A file system may limit the number of links to a file.
    await link(path, join(directory, name)).catch(() => writeFile(join(directory, name), ''));
  }
  await appendFile(join(directory, 'index-1.jsonl'), lines.join(''));
}

/** Shifts the time that `Date` returns by `offset` milliseconds until the test ends. */
function setClock(offset: number): void {
  onTestFinished(() => {
    globalThis.Date = RealDate;
  });
  globalThis.Date = class extends RealDate {
    constructor(...parameters: unknown[]) {
      super(...((parameters.length === 0 ? [RealDate.now() + offset] : parameters) as [number]));
    }

    static override now(): number {
      return RealDate.now() + offset;
    }
  } as DateConstructor;
}

/** Counts the calls of `readdir` from now on. */
function countScans(): { count: number; stop(): void } {
  const original = fs.promises.readdir;
  const scans = {
    count: 0,
    stop: () => {
      fs.promises.readdir = original;
      syncBuiltinESMExports();
    },
  };
  fs.promises.readdir = ((...parameters: Parameters<typeof original>) => {
    scans.count++;
    return original(...parameters);
  }) as typeof original;
  syncBuiltinESMExports();
  onTestFinished(scans.stop);
  return scans;
}
