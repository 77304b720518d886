import fc from 'fast-check';
import {
  type DatedEntry,
  hashPositions,
  hashPrefixes,
  likelyShared,
  PrefillEstimate,
  prefixHashes,
  stableToolOrder,
  surplus,
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

describe('what leaves a directory', () => {
  const entries = fc.array(
    fc.record({ bytes: fc.nat({ max: 50 }), lastUsedAt: fc.integer({ min: 0, max: 2000 }), pinned: fc.boolean() }),
    { maxLength: 12 },
  );
  const budget = fc.record(
    { maxDiskBytes: fc.nat({ max: 200 }), maxEntries: fc.nat({ max: 6 }), maxAgeMs: fc.nat({ max: 1000 }) },
    { requiredKeys: [] },
  );

  it('is never pinned nor the newest save, leaves what fits the budget, and nothing that was used before what stays', () => {
    fc.assert(
      fc.property(entries, budget, (made, limits) => {
        const all = made.map(({ bytes, lastUsedAt, pinned }, index) => entry(String(index), bytes, lastUsedAt, pinned));
        const leaving = surplus(all, limits, 1000, '0');
        const left = all.filter((each) => !leaving.includes(each));
        const free = left.filter(({ pinned, name }) => !pinned && name !== '0');
        expect(leaving.some(({ pinned, name }) => pinned || name === '0')).toBe(false);
        if (free.length > 0) {
          expect(left.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(limits.maxDiskBytes ?? Infinity);
          expect(left.length).toBeLessThanOrEqual(limits.maxEntries ?? Infinity);
        }
        for (const { lastUsedAt } of free) {
          expect(1000 - lastUsedAt).toBeLessThanOrEqual(limits.maxAgeMs ?? Infinity);
          expect(leaving.every((gone) => gone.lastUsedAt <= lastUsedAt)).toBe(true);
        }
      }),
    );
  });
});

describe('the hashes of prefixes', () => {
  it('never promise more than is shared, and at least two thirds of it from 16 tokens on', () => {
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

  it('are few, however long a template is', () => {
    expect(hashPositions(100_000).length).toBeLessThan(30);
    expect(hashPositions(15)).toEqual([]);
    expect(hashPositions(48)).toEqual([16, 24, 32, 48]);
  });
});

describe('what was measured', () => {
  it('says how long a prefill should take, and whether a restore is worth it', () => {
    const rates = new PrefillEstimate();
    expect(rates.expectedPrefillMs(100)).toBe(1000); // a guess
    expect(rates.prefillIsFaster()).toBe(false); // unknown: cache
    rates.notePrefill(100, 100);
    expect(rates.expectedPrefillMs(100)).toBe(100);
    rates.noteRestore(100, 10);
    expect(rates.prefillIsFaster()).toBe(false);
    const slow = new PrefillEstimate();
    slow.notePrefill(100, 10);
    slow.noteRestore(100, 100);
    slow.notePrefill(0, 0); // nothing was prefilled: nothing was measured
    expect(slow.prefillIsFaster()).toBe(true);
  });
});

describe('the order of tools', () => {
  it('is one for any order in which servers list theirs; your own come first, as you gave them', () => {
    const own = [{ name: 'z' }, { name: 'a' }];
    const listed = ['b', 'a'].flatMap((server) => ['y', 'x'].map((name) => ({ name, server })));
    const expected = ['z', 'a', 'x', 'y', 'x', 'y'];
    fc.assert(
      fc.property(fc.shuffledSubarray(listed, { minLength: listed.length }), (shuffled) => {
        const ordered = stableToolOrder([...own, ...shuffled]);
        expect(ordered.map(({ name }) => name)).toEqual(expected);
        expect(ordered.slice(2).map((tool) => ('server' in tool ? tool.server : ''))).toEqual(['a', 'a', 'b', 'b']);
      }),
    );
    expect(stableToolOrder(own)).toBe(own);
  });
});
