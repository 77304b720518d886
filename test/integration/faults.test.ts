// A fault of the cache causes a miss with a reason. No fault causes a crash, a changed reply, or a leftover file.
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { StartReport } from 'llama-headstart';
import { CacheDirectory, DirectoryIndex, DiskStore, type KeyComponents } from 'llama-headstart/internal';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type AgentSettings, replies, startAgent, temporaryDirectory, uncachedReplies } from '../helpers/agents.js';
import { runChild } from '../helpers/children.js';
import { Lab, someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { leaseBusy } from '../helpers/open-engine.js';
import { numberedPrompt } from '../helpers/prompts.js';
import { variants } from '../helpers/soak.js';

const MESSAGES = ['Hello', '\nAnd now?'];
let expected: string[];

beforeAll(async () => {
  expected = await uncachedReplies({}, MESSAGES, 8);
});

const entriesIn = async (directory: string) => (await readdir(directory)).filter((name) => name.endsWith('.kv'));

/** Saves one entry in a new directory. Returns the paths of the directory and the entry. */
async function savedEntry(settings: AgentSettings = {}): Promise<{ directory: string; path: string }> {
  const directory = await temporaryDirectory();
  const agent = await startAgent({ ...settings, cacheDir: directory });
  await agent.createSession();
  await agent.close();
  const [name] = await entriesIn(directory);
  return { directory, path: join(directory, name as string) };
}

/**
 * Starts an agent on the directory and expects the replies of an uncached agent. Returns the start report and the
 * statistics.
 */
async function startOn(directory: string, settings: AgentSettings = {}) {
  const agent = await startAgent({ ...settings, cacheDir: directory });
  const session = await agent.createSession();
  expect(await replies(session, MESSAGES, 8)).toEqual(expected);
  await agent.flush();
  const stats = agent.getTemplateCacheStats();
  await agent.close();
  return { report: session.report, stats };
}

function expectMiss(report: Readonly<StartReport>, reason: RegExp): void {
  expect(report).toMatchObject({ cache: 'miss', cachedTokens: 0, bytes: 0 });
  expect(report.reason).toMatch(reason);
}

/** Expects that a good entry replaced the bad one: the next start reads the good entry from disk. */
async function expectSavedAgain(directory: string): Promise<void> {
  expect((await startOn(directory)).report.source).toBe('disk');
  expect((await readdir(directory)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
}

async function alter(path: string, at: (size: number) => number): Promise<void> {
  const bytes = await readFile(path);
  const position = at(bytes.length);
  bytes[position] = (bytes[position] as number) ^ 0x40;
  await writeFile(path, bytes);
}

describe('a cache entry that is damaged', () => {
  it.each([
    ['in its magic', (size: number) => size * 0],
    ['in its token count', () => 8],
    ['in its token ids', () => 20],
    ['at the start of its state', () => 4 * 400],
    ['in the middle of its state', (size: number) => size >> 1],
    ['in its metadata', (size: number) => size - 200],
    ['in the length of its metadata', (size: number) => size - 26],
    ['in its checksum', (size: number) => size - 16],
    ['in its closing magic', (size: number) => size - 1],
  ])('%s is set aside and saved again', async (_, at) => {
    const { directory, path } = await savedEntry();
    await alter(path, at);
    const { report, stats } = await startOn(directory);
    expectMiss(report, /^corrupt: /);
    expect(stats).toMatchObject({ hits: 0, misses: 1, corruptions: 1, saves: 1, entries: 1 });
    expect((await stat(`${path}.corrupt`)).isFile()).toBe(true);
    await expectSavedAgain(directory);
  });

  it.each([
    ['to nothing', () => 0],
    ['to its header', () => 12],
    ['in its state', (size: number) => size >> 1],
    ['in its footer', (size: number) => size - 10],
    ['by one byte', (size: number) => size - 1],
  ])('because it was truncated %s is set aside and saved again', async (_, length) => {
    const { directory, path } = await savedEntry();
    await truncate(path, length((await stat(path)).size));
    const { report, stats } = await startOn(directory);
    expectMiss(report, /^corrupt: /);
    expect(stats).toMatchObject({ misses: 1, corruptions: 1 });
    expect((await readdir(directory)).filter((name) => name.endsWith('.corrupt'))).toHaveLength(1);
    await expectSavedAgain(directory);
  });

  it('by extra bytes at its end, or by other content, is set aside', async () => {
    const { directory, path } = await savedEntry();
    for (const content of [Buffer.concat([await readFile(path), Buffer.from('x')]), Buffer.from('not an entry')]) {
      await writeFile(path, content);
      expectMiss((await startOn(directory)).report, /^corrupt: /);
    }
    // The newest damaged file replaced the older one.
    expect(await readFile(`${path}.corrupt`, 'utf8')).toBe('not an entry');
    await expectSavedAgain(directory);
  });
});

describe('a logger that throws', () => {
  it('does not make a start fail if the start logs a damaged entry', async () => {
    const { directory, path } = await savedEntry();
    const template = someTokens(100, 1);
    const open = (logger?: () => never) =>
      Lab.open({ path: microModel('dense'), directory, cache: { ...(logger && { logger }) } });
    const first = await open();
    await first.start(template);
    await first.close();
    const entries = (await entriesIn(directory)).map((name) => join(directory, name));
    await alter(entries.find((entry) => entry !== path) as string, (size) => size >> 1);
    const lab = await open(() => {
      throw new Error('no line');
    });
    onTestFinished(() => lab.close());
    expectMiss(await lab.start(template), /^corrupt: /);
  });
});

describe('a file with the name of a cache entry', () => {
  it('that belongs to another configuration is not used and not set aside', async () => {
    const foreign = await savedEntry({ name: 'dense-other' });
    const { directory, path } = await savedEntry();
    await rename(foreign.path, path);
    const { report, stats } = await startOn(directory);
    expectMiss(report, /^foreign: /);
    expect(stats.corruptions).toBe(0);
    await expectSavedAgain(directory);
  });

  it('that belongs to another template is not used', async () => {
    const other = await savedEntry({ systemPrompt: numberedPrompt(1) });
    const { directory, path } = await savedEntry();
    await rename(other.path, path);
    expectMiss((await startOn(directory)).report, /^foreign: /);
    await expectSavedAgain(directory);
  });

  it.each([
    ['a directory', async (path: string) => mkdir(join(path, 'inside'), { recursive: true })],
    ['a named pipe without a writer', async (path: string) => execFileSync('mkfifo', [path])],
    ['a link to an entry', async (path: string) => symlink(`${path}.elsewhere`, path)],
    ['a link to itself', async (path: string) => symlink(path, path)],
  ])('that is %s is set aside', async (_, make) => {
    const { directory, path } = await savedEntry();
    await rename(path, `${path}.elsewhere`);
    await make(path);
    const { report, stats } = await startOn(directory);
    expectMiss(report, /^corrupt: /);
    expect(stats.corruptions).toBe(1);
    await expectSavedAgain(directory);
  });

  it('causes a miss if it was deleted', async () => {
    const { directory, path } = await savedEntry();
    await rm(path);
    const { report, stats } = await startOn(directory);
    expectMiss(report, /^absent$/);
    expect(stats).toMatchObject({ misses: 1, corruptions: 0, entries: 1 });
    await expectSavedAgain(directory);
  });
});

describe('a cache directory that cannot be used', () => {
  it('because a file has its name makes every start a miss, and failed saves are counted', async () => {
    const path = join(await temporaryDirectory(), 'cache');
    await writeFile(path, 'in the way');
    for (const directory of [path, join(path, 'below')]) {
      const warnings: string[] = [];
      const { report, stats } = await startOn(directory, { logger: (_, message) => warnings.push(message) });
      expectMiss(report, /^unreadable: /);
      expect(stats).toMatchObject({ entries: 0, saves: 0, failedSaves: 1, residentTemplates: 1 });
      expect(warnings.join('\n')).toMatch(/not saved/);
    }
    expect(await readFile(path, 'utf8')).toBe('in the way');
  });

  it('because too little disk space is free gets no entry and no leftover file', async () => {
    const directory = await temporaryDirectory();
    const { report, stats } = await startOn(directory, { minFreeDiskBytes: Number.MAX_SAFE_INTEGER });
    expectMiss(report, /^absent$/);
    expect(stats).toMatchObject({ entries: 0, failedSaves: 1 });
    expect(await entriesIn(directory)).toEqual([]);
  });

  it('because it was deleted is created again', async () => {
    const directory = join(await temporaryDirectory(), 'cache');
    const agent = await startAgent({ cacheDir: directory, maxResidentTemplates: 1, maxMemoryBytes: 0 });
    const first = await agent.createSession();
    await agent.flush();
    await rm(directory, { recursive: true });
    await agent.createSession({ systemPrompt: numberedPrompt(1) }); // takes the only resident sequence
    await agent.flush();
    const again = await agent.createSession();
    await agent.flush();
    expectMiss(again.report, /^absent$/);
    expect(await replies(again, MESSAGES, 8)).toEqual(expected);
    expect(await replies(first, MESSAGES, 8)).toEqual(expected);
    expect(agent.getTemplateCacheStats()).toMatchObject({ entries: 2, failedSaves: 0 });
    expect(await entriesIn(directory)).toHaveLength(2);
  });
});

describe('a save of a cache entry', () => {
  it('leaves no temporary file if the rename fails', async () => {
    const directory = await temporaryDirectory();
    const lab = await Lab.open({ path: microModel('dense') });
    onTestFinished(() => lab.close());
    const tokens = someTokens(20, 1);
    const sequence = await leaseBusy(lab.engine);
    await lab.engine.prefill(sequence, tokens);
    const state = await sequence.capture();
    const key = 'ab'.repeat(32);
    await mkdir(join(directory, `template_${key.slice(0, 16)}.kv`, 'in the way'), { recursive: true });
    const metadata = { key, components: {} as KeyComponents, prefillMs: 0 };
    const cacheDirectory = new CacheDirectory(directory, 0);
    const store = new DiskStore(cacheDirectory, new DirectoryIndex(cacheDirectory), () => undefined);
    await expect(store.write(state, metadata)).rejects.toMatchObject({ code: 'WRITE_FAILED' });
    expect((await readdir(directory)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });
});

describe('the cache directory', () => {
  it('changes no reply, whichever of its files is deleted, truncated or overwritten', async () => {
    const faults: ((path: string) => Promise<void>)[] = [
      (path) => rm(path),
      async (path) => truncate(path, (await stat(path)).size >> 1),
      (path) => writeFile(path, 'something else'),
      (path) => writeFile(path, '{"format":2,"controlTokens":1,"tokens":3}'),
    ];
    for (const [number, damage] of faults.entries()) {
      // In `npm test`, each file is damaged in two of the four ways.
      for (const index of variants([0, 1, 2, 3, 4], (each) => each % 2 === number % 2)) {
        const { directory } = await savedEntry();
        const names = await readdir(directory);
        expect(names).toHaveLength(5);
        await damage(join(directory, names[index] as string));
        await startOn(directory); // compares the replies
      }
    }
  });

  it('contains one file for each entry and a tag for caches, and only its owner can read its files', async () => {
    const directory = join(await temporaryDirectory(), 'a', 'b');
    await startOn(directory);
    const names = (await readdir(directory)).sort();
    expect(names).toEqual([
      'CACHEDIR.TAG',
      expect.stringMatching(/^boundary_[0-9a-f]{16}\.json$/),
      'index-1.jsonl',
      expect.stringMatching(/^template_[0-9a-f]{16}\.kv$/),
      'totals-1.json',
    ]);
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    for (const name of names) {
      expect((await stat(join(directory, name))).mode & 0o777).toBe(0o600);
    }
  });

  it('does not contain the text of a prompt', async () => {
    const { directory } = await savedEntry();
    const names = await readdir(directory);
    expect(names).toHaveLength(5);
    for (const name of names) {
      expect((await readFile(join(directory, name))).includes('bicycles')).toBe(false);
    }
  });

  it('may contain foreign files, which are ignored', async () => {
    const { directory } = await savedEntry();
    await writeFile(join(directory, 'template_0011223344556677.kv'), 'junk');
    await writeFile(join(directory, 'notes.txt'), 'mine');
    const { report, stats } = await startOn(directory);
    expect(report.source).toBe('disk');
    expect(stats).toMatchObject({ entries: 1, corruptions: 0 });
    expect(await readFile(join(directory, 'notes.txt'), 'utf8')).toBe('mine');
  });

  it('can be used by several agents at the same time', async () => {
    const directory = await temporaryDirectory();
    const agents = await Promise.all([1, 2, 3].map(() => startAgent({ cacheDir: directory })));
    const sessions = await Promise.all(agents.map((agent) => agent.createSession()));
    await Promise.all(agents.map((agent) => agent.flush()));
    for (const session of sessions) {
      expect(await replies(session, MESSAGES, 8)).toEqual(expected);
    }
    expect(await entriesIn(directory)).toHaveLength(1);
    await expectSavedAgain(directory);
  });
});

describe.skipIf(process.platform === 'win32')('a directory that cannot be created', () => {
  it('makes each start a miss, and makes each download and save fail with an error code', async () => {
    const directory = await temporaryDirectory();
    await writeFile(join(directory, 'file'), '');
    await symlink(join(directory, 'nowhere', 'at all'), join(directory, 'dangling'));
    // The child deletes its working directory, so no relative path can be created.
    const impossible = [
      '.cache/templates',
      '.',
      '/proc/headstart/a',
      join(directory, 'file'),
      `${directory}/dangling/a`,
    ];
    const { stdout, stderr, code } = await runChild('integration/children/lost-directory.mjs', [
      microModel('dense'),
      JSON.stringify(impossible),
      JSON.stringify(impossible),
    ]);
    expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
    const failed = { replied: true, failedSaves: 1, misses: 1, save: 'WRITE_FAILED', warned: true };
    expect(JSON.parse(stdout)).toEqual({
      caches: impossible.map(() => failed),
      models: impossible.map(() => 'WRITE_FAILED'),
      relativeModel: 'MODEL_NOT_FOUND',
    });
  });
});
