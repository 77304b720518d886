import { describe, expect, it } from 'vitest';
import { StatsCounter } from '../../lib/cache/stats.js';

describe('the statistics', () => {
  it('give a hit rate of 0 before the first start', () => {
    expect(new StatsCounter().hitRate).toBe(0);
  });

  it('count every tier but miss and bypass as a hit', () => {
    const stats = new StatsCounter();
    for (const tier of ['miss', 'resident', 'resident', 'memory', 'disk', 'bypass'] as const) {
      stats.count(tier);
    }
    expect(stats).toMatchObject({ hits: 4, misses: 1, bypasses: 1 });
    expect(stats.hitsByTier).toEqual({ resident: 2, memory: 1, disk: 1 });
  });

  it('leave starts that did not want the cache out of the hit rate', () => {
    const stats = new StatsCounter();
    for (const tier of ['miss', 'resident', 'bypass', 'bypass'] as const) {
      stats.count(tier);
    }
    expect(stats.hitRate).toBe(0.5);
  });
});
