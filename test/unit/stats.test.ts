import type { StartReport } from 'llama-headstart';
import { addCounts, NO_COUNTS, type StateSource, StatsCounter, startReport } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

/** Returns the report of a start with a template of 100 tokens: a miss if its source is "prefill", otherwise a hit. */
function start(source: StateSource, more: Partial<StartReport> = {}): StartReport {
  const hit = source !== 'prefill';
  return startReport({
    source,
    cache: hit ? 'hit' : 'miss',
    templateTokens: 100,
    cachedTokens: hit ? 100 : 0,
    bytes: source === 'memory' || source === 'disk' ? 1000 : 0,
    ms: 1,
    key: '',
    ...more,
  });
}

const BYPASS = { cache: 'bypass' } as const;

function counted(...starts: StartReport[]): StatsCounter {
  const stats = new StatsCounter();
  for (const each of starts) {
    stats.record(each, each.cachedTokens);
  }
  return stats;
}

describe('the statistics', () => {
  it('give rates of 0 before the first start', () => {
    const { hitRate, tokenHitRate, restoreMs } = new StatsCounter();
    expect([hitRate, tokenHitRate, restoreMs]).toEqual([0, 0, { mean: 0, p50: 0, p99: 0 }]);
  });

  it('count each start whose whole template was cached as a hit', () => {
    const sources = ['prefill', 'resident', 'resident', 'memory', 'disk'] as const;
    const stats = counted(...sources.map((source) => start(source)), start('prefill', BYPASS));
    expect(stats.counts).toMatchObject({ hits: 4, misses: 1, bypasses: 1, requestedTokens: 500, reusedTokens: 400 });
    expect(stats.hitsByTier).toEqual({ resident: 2, memory: 1, disk: 1 });
    expect(stats.bytesByTier).toEqual({ memory: 1000, disk: 1000 });
    expect(stats.counts.prefillMsSaved).toBe(400);
  });

  it('leave starts that bypassed the cache out of the rates', () => {
    const stats = counted(start('prefill'), start('resident'), start('prefill', BYPASS), start('prefill', BYPASS));
    expect([stats.hitRate, stats.tokenHitRate]).toEqual([0.5, 0.5]);
  });

  it('count a start from the nearest template as a miss, and its shared tokens as reused', () => {
    const stats = counted(start('memory', { cache: 'prefix', cachedTokens: 80 }));
    expect(stats.counts).toMatchObject({ hits: 0, misses: 1, prefixStarts: 1, reusedTokens: 80 });
    expect([stats.hitRate, stats.tokenHitRate]).toEqual([0, 0.8]);
    expect(stats.hitsByTier.memory).toBe(0);
  });

  it('give mean, median and 99th percentile of restores, without the waiting time', () => {
    const starts = Array.from({ length: 100 }, (_, index) => start('disk', { ms: index + 1 }));
    const { restoreMs } = counted(...starts, start('resident', { ms: 1e9 }));
    expect(restoreMs).toEqual({ mean: 50.5, p50: 50, p99: 99 });
    expect(counted(start('memory', { ms: 105, waitedMs: 100 })).restoreMs.p50).toBe(5);
  });

  it('of several processes can be added and subtracted', () => {
    const two = addCounts({ ...NO_COUNTS, hits: 3 }, { ...NO_COUNTS, hits: 4, waits: 1 });
    expect(two).toMatchObject({ hits: 7, waits: 1, misses: 0 });
    expect(addCounts(two, two, -1)).toEqual(NO_COUNTS);
  });
});
