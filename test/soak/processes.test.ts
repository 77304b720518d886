// Several real processes use one cache directory. Tests kill or stop some of these processes at random moments.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { FileLock } from 'llama-headstart/native';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { loopTurns } from '../helpers/event-loop.js';
import { Lab, type LabOptions, someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { seededRandom } from '../helpers/native.js';
import { laterVersion, OtherProcess, type ProcessOptions } from '../helpers/processes.js';
import { rounds, Tally, variants } from '../helpers/soak.js';

const TEMPLATE = [...someTokens(1200, 1)];
const MESSAGE = [...someTokens(7, 2)];
const STEPS = 3;

const dense = (directory: string, more: Partial<LabOptions> = {}): LabOptions => ({
  path: microModel('dense'),
  directory,
  kvCells: 8192,
  ...more,
});

/** The tokens after the template and message, computed without any cache. */
let expected: Promise<number[]> | undefined;

function expectedTokens(): Promise<number[]> {
  expected ??= (async () => {
    const lab = await Lab.open({ path: microModel('dense'), kvCells: 8192 });
    const { tokens } = await lab.run(Int32Array.from(TEMPLATE), Int32Array.from(MESSAGE), STEPS, { cache: false });
    await lab.close();
    return tokens;
  })();
  return expected;
}

/** Starts `count` processes, lets them continue at the same time, and returns their results. */
async function startTogether(
  count: number,
  options: LabOptions,
  { sessions = 1, process = {} as ProcessOptions } = {},
) {
  const input = { options, template: TEMPLATE, message: MESSAGE, steps: STEPS, sessions };
  const all = await Promise.all(Array.from({ length: count }, () => OtherProcess.start('together', input, process)));
  await Promise.all(all.map((other) => other.ready()));
  for (const other of all) {
    other.go();
  }
  return Promise.all(all.map((other) => other.result()));
}

describe('processes that start at the same time with an empty cache', () => {
  const cold = new Tally('cold starts of several processes');
  afterAll(() => cold.done());

  const started: [processes: number, sessions: number][] = [
    [1, 10],
    [4, 10],
    [8, 1],
  ];
  it.each(variants(started, ([, sessions]) => sessions > 1))(
    'prefill the template exactly once: %i processes with %i sessions each',
    async (processes, sessions) => {
      for (let round = 0; round < rounds(1, 10); round++) {
        await cold.try(`${processes} x ${sessions}, round ${round}`, async () => {
          const directory = await temporaryDirectory();
          const all = await startTogether(processes, dense(directory, { sessions: 10, kvCells: 16_384 }), { sessions });
          const decoded = all.reduce((sum, { decodedTokens }) => sum + decodedTokens, 0);
          expect(decoded).toBe(TEMPLATE.length + processes * sessions * (MESSAGE.length + STEPS - 1));
          const sources = all.flatMap(({ reports }) => reports.map(({ source }) => source));
          expect(sources.filter((source) => source === 'prefill')).toHaveLength(1);
          for (const tokens of all.flatMap((result) => result.tokens)) {
            expect(tokens).toEqual(await expectedTokens());
          }
          expect((await readdir(directory)).filter((name) => /\.(lock|tmp|corrupt)$/.test(name))).toEqual([]);
        });
      }
      expect(cold.wrong).toEqual([]);
    },
  );
});

describe('a process that is killed during a save', () => {
  it('leaves only complete entries, and the next process removes its temporary files', async () => {
    const kills = new Tally('kills during a save');
    const random = seededRandom(7);
    const directory = await temporaryDirectory();
    const head = [...someTokens(3000, 3)];
    const options = dense(directory, { cache: { reuse: 'nearest' } });
    for (let kill = 0; kill < rounds(3, 100); kill++) {
      await kills.try(`kill ${kill}`, async () => {
        const child = await OtherProcess.start('saveForever', { options, head });
        await child.ready();
        await new Promise((resolve) => setTimeout(resolve, 60 * random()));
        await child.kill();
        const lab = await Lab.open(options);
        try {
          const { checked, intact } = await lab.cache.verify();
          expect(intact).toBe(checked);
          expect(lab.cache.stats()).toMatchObject({ entries: intact, corruptions: 0 });
          const names = await readdir(directory);
          expect(names.filter((name) => /\.tmp$|\.corrupt$|^owner_|^template_.*\.lock$/.test(name))).toEqual([]);
          expect((await lab.start(Int32Array.from(head))).source).toBe('disk');
          await lab.cache.prune({ maxEntries: 3 });
        } finally {
          await lab.close();
        }
      });
    }
    expect(kills.done()).toEqual([]);
  });
});

describe('a process that holds the lock of a template', () => {
  const holders = new Tally('lock holders killed or stopped');
  afterAll(() => holders.done());
  const longTemplate = [...someTokens(3000, 9)];
  const input = { template: longTemplate, message: MESSAGE, steps: 1, sessions: 1 };

  /** Starts a process and stops it during the prefill of the template. */
  async function startStoppedOwner(directory: string) {
    const options = dense(directory, { batchSize: 64 });
    const owner = await OtherProcess.start('together', { ...input, options });
    onTestFinished(() => owner.kill());
    await owner.ready();
    owner.go();
    const lockNames = async () =>
      (await readdir(directory)).filter((name) => /^template_[0-9a-f]{64}\.lock$/.test(name));
    /** Returns whether a process holds the lock. The lock file exists a moment before a process locks it. */
    const isHeld = async () => {
      const [name] = await lockNames();
      const lock = name === undefined ? undefined : await FileLock.tryAcquire(join(directory, name));
      lock?.release();
      return lock === null;
    };
    await expect.poll(isHeld, { interval: 1, timeout: 60_000 }).toBe(true);
    owner.child.kill('SIGSTOP');
    return owner;
  }

  async function startWaiter(directory: string) {
    const before = [...someTokens(500, 4)];
    const waiter = await OtherProcess.start('together', { ...input, options: dense(directory), before });
    onTestFinished(() => waiter.kill());
    await waiter.ready();
    waiter.go();
    return waiter;
  }

  it('releases the lock when it is killed, and a waiting process prefills at once', async () => {
    for (let round = 0; round < rounds(1, 10); round++) {
      await holders.try(`killed, round ${round}`, async () => {
        const directory = await temporaryDirectory();
        const owner = await startStoppedOwner(directory);
        const waiter = await startWaiter(directory);
        await owner.kill();
        const { reports, stats } = await waiter.result();
        expect(reports[0]).toMatchObject({ cache: 'miss' });
        expect(stats).toMatchObject({ saves: 2, failedSaves: 0 });
      });
    }
    expect(holders.wrong).toEqual([]);
  });

  it('does not block other processes for long when it is stopped, and damages nothing when it continues', async () => {
    for (let round = 0; round < rounds(1, 5); round++) {
      await holders.try(`stopped, round ${round}`, async () => {
        const directory = await temporaryDirectory();
        const owner = await startStoppedOwner(directory);
        const waiter = await startWaiter(directory);
        const { reports, tokens } = await waiter.result();
        expect(reports[0]?.cache).toBe('miss');
        expect(reports[0]?.waitedMs).toBeGreaterThan(0);
        owner.child.kill('SIGCONT');
        const continued = await owner.result();
        expect(continued.tokens).toEqual(tokens);
        const lab = await Lab.open(dense(directory));
        onTestFinished(() => lab.close());
        expect(await lab.cache.verify()).toMatchObject({ checked: 2, intact: 2 });
        expect((await lab.start(Int32Array.from(longTemplate))).source).toBe('disk');
      });
    }
    expect(holders.wrong).toEqual([]);
  });

  it('makes two sessions of another process wait, and the abort of one session does not stop the other', async () => {
    const directory = await temporaryDirectory();
    const owner = await startStoppedOwner(directory);
    const lab = await Lab.open(dense(directory));
    onTestFinished(() => lab.close());
    const controller = new AbortController();
    const aborted = lab.start(Int32Array.from(longTemplate), { signal: controller.signal });
    const other = lab.start(Int32Array.from(longTemplate));
    await loopTurns(50);
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    owner.child.kill('SIGCONT');
    expect(['disk', 'prefill']).toContain((await other).source);
    await owner.result();
  });
});

describe('calls such as cache.prune() and cache.clear()', () => {
  it('change no reply and damage no entry while sessions and another process run', async () => {
    const calls = new Tally('cache operations during sessions and another process');
    const random = seededRandom(23);
    const directory = await temporaryDirectory();
    const options = dense(directory);
    const other = await OtherProcess.start('saveForever', { options, head: [...someTokens(400, 3)] });
    onTestFinished(() => other.kill());
    await other.ready();
    const lab = await Lab.open({ ...options, residents: 1, cache: { maxMemoryBytes: 0 } });
    onTestFinished(() => lab.close());
    // With these templates the chosen tokens are much more likely than all other tokens. Other sequences in the batch
    // therefore cannot change the greedy replies.
    const templates = [21, 22, 24].map((seed) => someTokens(150, seed));
    const message = Int32Array.from(MESSAGE);
    const replies: number[][] = [];
    for (const template of templates) {
      replies.push((await lab.run(template, message, STEPS, { cache: false })).tokens);
    }
    const pick = () => Math.floor(random() * templates.length);
    const some = () => templates[pick()] as Int32Array;
    const operations: Record<string, () => Promise<unknown>> = {
      list: () => lab.cache.list(),
      inspect: async () => {
        const key = lab.prefixCache.keyring().keyOf(some());
        await lab.cache.inspect(key).catch((error) => expect(error).toMatchObject({ code: 'ENTRY_MISSING' }));
      },
      verify: async () => expect(await lab.cache.verify()).toMatchObject({ corrupt: 0, foreign: 0 }),
      prune: () => lab.cache.prune({ maxEntries: 3 }),
      clear: () => lab.cache.clear(),
      invalidate: () => lab.cache.invalidate({ tokens: some() }),
      pin: () => lab.cache.pin({ tokens: some() }),
      unpin: () => lab.cache.unpin({ tokens: some() }),
      explainMiss: () => lab.cache.explainMiss({ tokens: some() }),
      flush: () => lab.cache.flush(),
    };
    const names = Object.keys(operations);
    for (let index = 0; index < rounds(20, 400); index++) {
      const name = names[index % names.length] as string;
      await calls.try(`${name}, ${index}`, async () => {
        const which = pick();
        const running = [lab.run(templates[which] as Int32Array, message, STEPS), lab.run(some(), message, STEPS)];
        await operations[name]?.();
        const [{ tokens } = { tokens: [] }] = await Promise.all(running);
        expect(tokens).toEqual(replies[which]);
      });
    }
    await other.kill();
    await lab.cache.flush();
    expect(await lab.cache.verify()).toMatchObject({ corrupt: 0 });
    const files = (await readdir(directory)).filter((name) => name.endsWith('.kv'));
    expect(lab.cache.stats()).toMatchObject({ entries: files.length, corruptions: 0, failedSaves: 0 });
    expect(calls.done()).toEqual([]);
  });
});

describe('processes of two versions and two layouts that use one directory at the same time', () => {
  it('use only entries of their own version and layout, and damage no other entry', async () => {
    const shared = new Tally('shared directories of two versions and two layouts');
    const later = await laterVersion();
    for (let round = 0; round < rounds(1, 8); round++) {
      await shared.try(`round ${round}`, async () => {
        const directory = await temporaryDirectory();
        const kinds = [
          { options: dense(directory), process: {} },
          { options: dense(directory), process: later },
          { options: dense(directory, { layout: 'split' as const }), process: {} },
          { options: dense(directory, { layout: 'split' as const }), process: later },
        ];
        for (const source of ['prefill', ...Array(rounds(1, 2)).fill('disk')]) {
          const all = await Promise.all(
            kinds.map((kind) => startTogether(1, kind.options, { sessions: 1, process: kind.process })),
          );
          for (const { reports, tokens, stats } of all.flat()) {
            expect(reports[0]?.source).toBe(source);
            expect(tokens[0]).toEqual(await expectedTokens());
            expect(stats).toMatchObject({ corruptions: 0, failedSaves: 0 });
          }
        }
        const lab = await Lab.open(dense(directory));
        onTestFinished(() => lab.close());
        expect(await lab.cache.verify()).toMatchObject({ checked: 4, intact: 2, foreign: 2, corrupt: 0 });
        expect((await readdir(directory)).filter((name) => /^(index|totals)-[12]/.test(name)).sort()).toEqual([
          'index-1.jsonl',
          'index-2.jsonl',
          'totals-1.json',
          'totals-2.json',
        ]);
        // clear() also removes the entries of the other processes. The next start in another process is then a miss.
        expect(await lab.cache.clear()).toBe(4);
        const [afterClear] = await startTogether(1, dense(directory), { sessions: 1, process: later });
        expect(afterClear).toMatchObject({ stats: { misses: 1, saves: 1, corruptions: 0 } });
      });
    }
    expect(shared.done()).toEqual([]);
  });
});
