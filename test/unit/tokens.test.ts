import fc from 'fast-check';
import { commonPrefixLength, isPrefix, prefixOfAtLeast, sameTokens } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const tokens = fc.array(fc.nat({ max: 3 }), { maxLength: 12 }).map((values) => Int32Array.from(values));

describe('token comparison', () => {
  it('counts the equal tokens at the beginning of two arrays', () => {
    fc.assert(
      fc.property(tokens, tokens, (a, b) => {
        const length = commonPrefixLength(a, b);
        expect(a.slice(0, length)).toEqual(b.slice(0, length));
        expect(length === a.length || length === b.length || a[length] !== b[length]).toBe(true);
      }),
    );
  });

  it('returns 0 if the shared prefix is shorter than the required minimum', () => {
    fc.assert(
      fc.property(fc.nat({ max: 14 }), tokens, tokens, (minimum, a, b) => {
        const length = commonPrefixLength(a, b);
        expect(prefixOfAtLeast(minimum, a, b)).toBe(length >= minimum ? length : 0);
      }),
    );
  });

  it('notices after one comparison that arrays with the same long beginning share too few tokens', () => {
    const a = Int32Array.from({ length: 1000 }, (_, index) => index);
    const compared: unknown[] = [];
    const b = new Proxy([...a.slice(0, 990), 0, 1], {
      get: (target, name) => (name === 'length' ? target.length : compared.push(name)),
    });
    expect(prefixOfAtLeast(992, a, b)).toBe(0);
    expect(compared).toEqual(['991']);
  });

  it('recognizes a prefix only if all of its tokens match', () => {
    fc.assert(
      fc.property(tokens, tokens, (a, b) => {
        expect(isPrefix(a, Int32Array.of(...a, ...b))).toBe(true);
        expect(isPrefix(Int32Array.of(...a, 9), Int32Array.of(...a, ...b))).toBe(false);
      }),
    );
    expect(isPrefix(new Int32Array(), new Int32Array())).toBe(true);
    expect(isPrefix(Int32Array.of(1), new Int32Array())).toBe(false);
  });

  it('treats arrays as equal only if all tokens and the lengths are equal', () => {
    expect(sameTokens(Int32Array.of(1, 2), Int32Array.of(1, 2))).toBe(true);
    expect(sameTokens(Int32Array.of(1, 2), Int32Array.of(1, 2, 3))).toBe(false);
    expect(sameTokens(Int32Array.of(1, 2), Int32Array.of(1))).toBe(false);
    expect(sameTokens(Int32Array.of(1, 2), Int32Array.of(1, 3))).toBe(false);
  });
});
