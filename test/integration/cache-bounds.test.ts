// Tests the budgets of the cache tiers, starts that bypass the cache, and statistics.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TEMPLATE_CACHE_CHANNEL, type TemplateCacheEvent } from 'llama-headstart';
import { PrefillEstimate } from 'llama-headstart/internal';
import { describe, expect, it, onTestFinished } from 'vitest';
import { agentOptions, startAgent, temporaryDirectory } from '../helpers/agents.js';
import type { LabOptions } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { entriesIn, numberedTemplate, openLab, save } from '../helpers/open-lab.js';
import { inOtherProcess } from '../helpers/processes.js';
import { TOOLS } from '../helpers/prompts.js';

/** Sets the time of the entry's last use to `seconds` seconds ago. */
async function age(directory: string, key: string, seconds: number): Promise<void> {
  const date = new Date(Date.now() - seconds * 1000);
  await utimes(join(directory, `template_${key.slice(0, 16)}.kv`), date, date);
}

describe('the budgets of the cache directory', () => {
  it('are off by default: no entry is deleted', async () => {
    const directory = await temporaryDirectory();
    const lab = await openLab({ directory });
    for (const seed of [1, 2, 3]) {
      await age(directory, await save(lab, seed), 1e8);
    }
    expect(await lab.cache.prune()).toEqual({ entries: 0, temporaryFiles: 0, corruptFiles: 0 });
    expect(await entriesIn(directory)).toHaveLength(3);
  });

  it('are recommended in the statistics and once in the log if the directory is large and has no budget', async () => {
    const directory = await temporaryDirectory();
    const warnings: string[] = [];
    const logger = (_: string, message: string) => warnings.push(message);
    await save(await openLab({ directory }), 1);
    const index = join(directory, 'index-1.jsonl');
    const entry = JSON.parse(await readFile(index, 'utf8'));
    await writeFile(index, `${JSON.stringify({ ...entry, bytes: 11 * 1024 ** 3 })}\n`);
    const lab = await openLab({ directory, cache: { logger } });
    const large = /holds \d entries of 11\.0 GiB: set `maxDiskBytes`, `maxEntries` or `maxAgeMs`, or call prune\(\)/;
    expect(lab.cache.stats().warning).toMatch(large);
    await save(lab, 2);
    await save(lab, 3);
    expect(warnings.filter((line) => large.test(line))).toHaveLength(1);
  });

  it('delete the least recently used entries first, whichever process used them', async () => {
    const directory = await temporaryDirectory();
    const first = await openLab({ directory });
    const keys = [await save(first, 1), await save(first, 2), await save(first, 3)] as const;
    await age(directory, keys[0], 3000);
    await age(directory, keys[1], 2000);
    await age(directory, keys[2], 1000);
    await first.close();
    const second = await openLab({ directory, cache: { maxEntries: 3 } });
    expect((await second.start(numberedTemplate(1))).source).toBe('disk'); // now entry 1 was used last
    await expect
      .poll(async () => (await stat(join(directory, `template_${keys[0].slice(0, 16)}.kv`))).mtimeMs)
      .toBeGreaterThan(Date.now() - 100_000);
    await save(second, 4);
    expect(second.cache.stats()).toMatchObject({ entries: 3, evictions: { disk: 1 } });
    expect((await second.cache.list()).map(({ key }) => key)).not.toContain(keys[1]);
  });

  it('for bytes, entries and age are enforced after each save, and never delete the newest entry', async () => {
    const directory = await temporaryDirectory();
    const lab = await openLab({ directory });
    await save(lab, 1);
    const { bytesOnDisk } = lab.cache.stats();
    const bounded = await openLab({ directory, cache: { maxDiskBytes: 2.5 * bytesOnDisk } });
    for (const seed of [2, 3, 4, 5]) {
      await save(bounded, seed);
      expect(bounded.cache.stats().bytesOnDisk).toBeLessThanOrEqual(2.5 * bytesOnDisk);
    }
    expect(await entriesIn(directory)).toHaveLength(2);
    const aged = await openLab({ directory, cache: { maxAgeMs: 500_000 } });
    for (const { key } of await aged.cache.list()) {
      await age(directory, key, 1000);
    }
    const newest = await save(aged, 6);
    expect((await aged.cache.list()).filter(({ file }) => file).map(({ key }) => key)).toEqual([newest]);
  });

  it('treat an entry as just used if its last use lies in the future, because the clock was set back', async () => {
    const directory = await temporaryDirectory();
    const lab = await openLab({ directory, cache: { maxAgeMs: 1000_000 } });
    const key = await save(lab, 1);
    await age(directory, key, -1e7);
    await save(lab, 2);
    expect(await entriesIn(directory)).toHaveLength(2);
    const again = await openLab({ directory });
    expect((await again.start(numberedTemplate(1))).source).toBe('disk');
  });

  it('prevent the save of a template with more bytes than the budget, and report the reason', async () => {
    const directory = await temporaryDirectory();
    const warnings: string[] = [];
    const logger = (_: string, message: string) => warnings.push(message);
    const lab = await openLab({ directory, cache: { maxDiskBytes: 1000, logger } });
    const report = await lab.start(numberedTemplate(1));
    expect(report.notSaved).toMatch(/^its \d+ bytes are more than `maxDiskBytes` \(1000\)$/);
    await lab.cache.flush();
    expect(await entriesIn(directory)).toEqual([]);
    expect(lab.cache.stats()).toMatchObject({ oversized: 1, saves: 0, failedSaves: 0 });
    expect(warnings.join('\n')).toMatch(/is not saved: its \d+ bytes/);
    expect((await lab.start(numberedTemplate(1))).source).toBe('resident');
  });

  it('never delete a pinned entry, whichever process pinned it, and even after a restart', async () => {
    const directory = await temporaryDirectory();
    const first = await openLab({ directory });
    await first.cache.pin({ tokens: numberedTemplate(1) }); // a template can be pinned before it is cached
    const pinned = await save(first, 1);
    await first.close();
    const second = await openLab({ directory, cache: { maxEntries: 1 } });
    await age(directory, pinned, 1e6);
    await save(second, 2);
    await save(second, 3);
    const keys = (await second.cache.list()).filter(({ file }) => file).map(({ key }) => key);
    expect(keys).toContain(pinned);
    expect(keys).toHaveLength(2); // the pinned entry and the newest one
    expect(await second.cache.inspect(pinned)).toMatchObject({ pinned: true, tokens: 100 });
    await second.cache.unpin({ tokens: numberedTemplate(1) });
    await save(second, 4);
    expect((await second.cache.list()).map(({ key, file }) => file && key)).not.toContain(pinned);
  });
});

describe('the budget of resident cells', () => {
  it('evicts the least recently used resident template, which then starts from memory', async () => {
    const lab = await openLab({ residents: 4, cache: { maxResidentCells: 250 } });
    for (const seed of [1, 2]) {
      await lab.start(numberedTemplate(seed));
    }
    await lab.start(numberedTemplate(1));
    await lab.start(numberedTemplate(3));
    expect(lab.cache.stats()).toMatchObject({ residentTemplates: 2, residentCells: 200, evictions: { resident: 1 } });
    expect((await lab.start(numberedTemplate(1))).source).toBe('resident');
    expect((await lab.start(numberedTemplate(2))).source).toBe('memory');
  });

  it('excludes a template that needs more cells than the budget, so that it starts from memory', async () => {
    const lab = await openLab({ residents: 4, cache: { maxResidentCells: 50 } });
    expect((await lab.start(numberedTemplate(1))).cache).toBe('miss');
    expect((await lab.start(numberedTemplate(1))).source).toBe('memory');
    expect(lab.cache.stats().residentTemplates).toBe(0);
  });

  it('evicts a pinned template only if all others are pinned too', async () => {
    const lab = await openLab({ residents: 2 });
    await lab.cache.pin({ tokens: numberedTemplate(1) });
    for (const seed of [1, 2, 3, 4]) {
      await lab.start(numberedTemplate(seed));
    }
    expect((await lab.start(numberedTemplate(1))).source).toBe('resident');
    await lab.cache.pin({ tokens: numberedTemplate(4) });
    await lab.start(numberedTemplate(5)); // both resident templates are pinned, so a pinned one is evicted
    expect(lab.cache.stats().residentTemplates).toBe(2);
  });
});

describe('a bypass of the cache', () => {
  it('for a short template is reported with its reason', async () => {
    const lab = await openLab({ cache: { minTokens: 64 } });
    const short = await lab.start(numberedTemplate(1, 63));
    expect(short).toMatchObject({ cache: 'bypass', reason: expect.stringContaining('`minTokens` (64)'), key: '' });
    expect((await lab.start(numberedTemplate(1, 64))).cache).toBe('miss');
    expect(lab.cache.stats()).toMatchObject({ bypasses: 1, misses: 1, requestedTokens: 64 });
  });
});

describe('the break-even check', () => {
  it('bypasses the cache only while measurements show that a prefill is no slower than a restore', async () => {
    const directory = await temporaryDirectory();
    const prefillEstimate = new PrefillEstimate();
    const lab = await openLab({
      directory,
      residents: 0,
      cache: { breakEven: true, maxMemoryBytes: 0, prefillEstimate },
    });
    expect(await save(lab, 1)).not.toBe(''); // a miss, because no restore was measured yet
    expect((await lab.start(numberedTemplate(1))).source).toBe('disk');
    expect(prefillEstimate.expectedPrefillMs(100)).toBeGreaterThan(0);
    // Extreme values outweigh the real measurements on any machine: 1 minute per token, then 1,000 tokens per
    // microsecond.
    const noteRestores = (tokens: number, ms: number) => {
      for (let count = 0; count < 100; count++) {
        prefillEstimate.noteRestore(tokens, ms);
      }
    };
    noteRestores(1, 60_000);
    expect(await lab.start(numberedTemplate(1))).toMatchObject({
      cache: 'bypass',
      reason: expect.stringContaining('`breakEven`'),
    });
    noteRestores(1000, 0.001);
    expect((await lab.start(numberedTemplate(1))).source).toBe('disk');
    expect(lab.cache.stats()).toMatchObject({ hits: 2, misses: 1, bypasses: 1 });
  });
});

describe('the statistics of the cache', () => {
  it('count tokens, sources, bytes and saved time; `totals` also counts other and earlier processes', async () => {
    const directory = await temporaryDirectory();
    const options = agentOptions({ cacheDir: directory, tools: TOOLS });
    const first = await inOtherProcess('agent', { options });
    const second = await inOtherProcess('agent', { options });
    const agent = await startAgent({ cacheDir: directory, tools: TOOLS });
    const { templateTokens } = first.report;
    expect(agent.getTemplateCacheStats()).toMatchObject({
      hits: 0,
      misses: 0,
      entries: 1,
      totalTokens: templateTokens,
    });
    for (let index = 0; index < 3; index++) {
      await (await agent.createSession()).close();
    }
    const stats = agent.getTemplateCacheStats();
    expect(stats).toMatchObject({
      hits: 3,
      hitRate: 1,
      tokenHitRate: 1,
      hitsByTier: { resident: 2, memory: 0, disk: 1 },
      bytesByTier: { memory: 0, disk: second.report.bytes },
      requestedTokens: 3 * templateTokens,
      reusedTokens: 3 * templateTokens,
      residentTemplates: 1,
      residentCells: templateTokens,
      totals: { hits: 4, misses: 1, saves: 1, requestedTokens: 5 * templateTokens, reusedTokens: 4 * templateTokens },
    });
    expect(stats.prefillMsSaved).toBeGreaterThan(0);
    expect(stats.restoreMs.mean).toBeGreaterThan(0);
    await agent.close();
    expect(JSON.parse(await readFile(join(directory, 'totals-1.json'), 'utf8'))).toMatchObject({ hits: 4, misses: 1 });
  });

  it('are correct after a restart, even if the index file is missing or damaged', async () => {
    const directory = await temporaryDirectory();
    const lab = await openLab({ directory });
    for (const seed of [1, 2, 3]) {
      await save(lab, seed, 50 * seed);
    }
    const { bytesOnDisk } = lab.cache.stats();
    const index = join(directory, 'index-1.jsonl');
    const whole = await readFile(index, 'utf8');
    for (const content of [undefined, 'junk\n{"name":7}\n', whole.slice(0, whole.length / 2), `${whole}${whole}`]) {
      await (content === undefined ? rm(index) : writeFile(index, content));
      const again = await openLab({ directory });
      expect(again.cache.stats()).toMatchObject({ entries: 3, totalTokens: 300, bytesOnDisk });
      await again.close();
    }
  });

  it('soon include the saves and deletes of other processes, without a call that reads the directory', async () => {
    const options: LabOptions = { path: microModel('dense') };
    await Promise.all(
      (['exact', 'nearest'] as const).map(async (reuse) => {
        const directory = await temporaryDirectory();
        const lab = await openLab({ directory, cache: { reuse } });
        await save(lab, 1);
        const saveElsewhere = () => {
          const input = {
            options: { ...options, directory },
            template: [...numberedTemplate(2, 50)],
            message: [],
            steps: 0,
          };
          return inOtherProcess('continuation', input);
        };
        const deleteElsewhere = () => inOtherProcess('empty', { options: { ...options, directory } });
        const countSoon = (counts: object) =>
          expect.poll(() => lab.cache.stats(), { timeout: 60_000, interval: 50 }).toMatchObject(counts);
        await saveElsewhere();
        await countSoon({ entries: 2, totalTokens: 150 });
        expect(await deleteElsewhere()).toBe(2);
        await countSoon({ entries: 0, totalTokens: 0, bytesOnDisk: 0 });
        await saveElsewhere();
        await deleteElsewhere();
        await save(lab, 3); // the index may still list a deleted entry
        await countSoon({ entries: 1, totalTokens: 100 });
      }),
    );
  });

  it('are exact after `list`, `verify` and `prune`, although saves and deletes run at the same time', async () => {
    const directory = await temporaryDirectory();
    const [one, two] = [await openLab({ directory }), await openLab({ directory })];
    await save(one, 1);
    expect(await two.cache.list()).toHaveLength(1);
    const seeds = [2, 3, 4, 5, 6, 7];
    await Promise.all([
      ...seeds.map((seed) => two.start(numberedTemplate(seed))),
      ...seeds.map(() => two.cache.list()),
    ]);
    await Promise.all([two.cache.flush(), two.cache.list()]);
    expect(two.cache.stats()).toMatchObject({ entries: 7, totalTokens: 700 });
    await Promise.all([two.cache.clear(), two.cache.list(), two.cache.verify()]);
    expect(two.cache.stats()).toMatchObject({ entries: 0, totalTokens: 0, bytesOnDisk: 0 });
    await one.cache.prune();
    expect(one.cache.stats()).toMatchObject({ entries: 0, totalTokens: 0, bytesOnDisk: 0 });
  });

  it('are accompanied by an event on the diagnostics channel for each start, save and eviction', async () => {
    const events: TemplateCacheEvent[] = [];
    const listen = (event: unknown) => events.push(event as TemplateCacheEvent);
    subscribe(TEMPLATE_CACHE_CHANNEL, listen);
    onTestFinished(() => {
      unsubscribe(TEMPLATE_CACHE_CHANNEL, listen);
    });
    const directory = await temporaryDirectory();
    const lab = await openLab({ directory, residents: 1 });
    const key = await save(lab, 1);
    await lab.start(numberedTemplate(1));
    await lab.start(numberedTemplate(2));
    await lab.cache.flush();
    expect(events.map(({ type }) => type)).toEqual(['start', 'save', 'start', 'evict', 'start', 'save']);
    expect(events[1]).toMatchObject({ type: 'save', key });
    expect(events[2]).toMatchObject({ type: 'start', report: { source: 'resident', key } });
    expect(events[3]).toMatchObject({ type: 'evict', tier: 'resident', key });
  });
});
