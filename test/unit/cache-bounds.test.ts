import fc from 'fast-check';
import {
  type DatedEntry,
  entriesOverBudget,
  hashPositions,
  hashPrefixes,
  likelyShared,
  PrefillEstimate,
  prefixHashes,
  stableToolOrder,
} from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const entry = (name: string, bytes: number, lastUsedAt: number, pinned = false): DatedEntry => ({
  name,
  key: name,
  group: '',
  tokens: 1,
  bytes,
  createdAt: '',
  prefillMs: 1,
  hashes: [],
  whole: 0,
  lastUsedAt,
  pinned,
});

describe('eviction from the cache directory', () => {
  const entries = fc.array(
    fc.record({ bytes: fc.nat({ max: 50 }), lastUsedAt: fc.integer({ min: 0, max: 2000 }), pinned: fc.boolean() }),
    { maxLength: 12 },
  );
  const budget = fc.record(
    { maxDiskBytes: fc.nat({ max: 200 }), maxEntries: fc.nat({ max: 6 }), maxAgeMs: fc.nat({ max: 1000 }) },
    { requiredKeys: [] },
  );

  it('enforces the budget, spares pinned entries and the newest entry, and begins with the least recently used', () => {
    fc.assert(
      fc.property(entries, budget, (records, limits) => {
        const all = records.map(({ bytes, lastUsedAt, pinned }, index) =>
          entry(String(index), bytes, lastUsedAt, pinned),
        );
        const toDelete = entriesOverBudget(all, limits, 1000, '0');
        const staying = all.filter((candidate) => !toDelete.includes(candidate));
        const evictable = staying.filter(({ pinned, name }) => !pinned && name !== '0');
        expect(toDelete.some(({ pinned, name }) => pinned || name === '0')).toBe(false);
        if (evictable.length > 0) {
          expect(staying.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(
            limits.maxDiskBytes ?? Infinity,
          );
          expect(staying.length).toBeLessThanOrEqual(limits.maxEntries ?? Infinity);
        }
        for (const { lastUsedAt } of evictable) {
          expect(1000 - lastUsedAt).toBeLessThanOrEqual(limits.maxAgeMs ?? Infinity);
          expect(toDelete.every((deleted) => deleted.lastUsedAt <= lastUsedAt)).toBe(true);
        }
      }),
    );
  });
});

describe('the hashes of prefixes', () => {
  it('find at least two thirds of a shared prefix of 16 or more tokens, and never more than the shared prefix', () => {
    const tokens = fc.array(fc.nat({ max: 3 }), { minLength: 0, maxLength: 120 });
    fc.assert(
      fc.property(tokens, tokens, tokens, (head, tailA, tailB) => {
        const [a, b] = [Int32Array.from([...head, ...tailA]), Int32Array.from([...head, ...tailB])];
        let shared = 0;
        while (shared < Math.min(a.length, b.length) && a[shared] === b[shared]) {
          shared++;
        }
        const likely = likelyShared(hashPrefixes(a), prefixHashes(b));
        expect(likely).toBeLessThanOrEqual(shared);
        if (shared >= 16) {
          expect(likely * 1.5).toBeGreaterThanOrEqual(shared - 1);
        }
        if (shared === a.length) {
          expect(likely).toBe(a.length);
        }
      }),
    );
  });

  it('are fewer than 30 even for a template of 100,000 tokens', () => {
    expect(hashPositions(100_000).length).toBeLessThan(30);
    expect(hashPositions(15)).toEqual([]);
    expect(hashPositions(48)).toEqual([16, 24, 32, 48]);
  });
});

describe('the prefill estimate', () => {
  it('gives the expected duration of a prefill, and says whether a prefill is faster than a restore', () => {
    const estimate = new PrefillEstimate();
    expect(estimate.expectedPrefillMs(100)).toBe(1000); // the assumption before the first measurement
    expect(estimate.prefillIsFaster()).toBe(false); // no measurement yet
    estimate.notePrefill(100, 100);
    expect(estimate.expectedPrefillMs(100)).toBe(100);
    estimate.noteRestore(100, 10);
    expect(estimate.prefillIsFaster()).toBe(false);
    const slow = new PrefillEstimate();
    slow.notePrefill(100, 10);
    slow.noteRestore(100, 100);
    slow.notePrefill(0, 0); // a prefill of no tokens is not a measurement
    expect(slow.prefillIsFaster()).toBe(true);
  });
});

describe('the stable order of tools', () => {
  it('does not depend on the order in which MCP servers list them, and begins with the tools without a server', () => {
    const withoutServer = [{ name: 'z' }, { name: 'a' }];
    const listed = ['b', 'a'].flatMap((server) => ['y', 'x'].map((name) => ({ name, server })));
    const expected = ['z', 'a', 'x', 'y', 'x', 'y'];
    fc.assert(
      fc.property(fc.shuffledSubarray(listed, { minLength: listed.length }), (shuffled) => {
        const ordered = stableToolOrder([...withoutServer, ...shuffled]);
        expect(ordered.map(({ name }) => name)).toEqual(expected);
        expect(ordered.slice(2).map((tool) => ('server' in tool ? tool.server : ''))).toEqual(['a', 'a', 'b', 'b']);
      }),
    );
    expect(stableToolOrder(withoutServer)).toBe(withoutServer);
  });
});
