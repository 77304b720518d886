import fc from 'fast-check';
import { commonPrefixLength, isPrefix, sameTokens } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const tokens = fc.array(fc.nat({ max: 3 }), { maxLength: 12 }).map((values) => Int32Array.from(values));

describe('token comparison', () => {
  it('counts the equal tokens from the start', () => {
    fc.assert(
      fc.property(tokens, tokens, (a, b) => {
        const length = commonPrefixLength(a, b);
        expect(a.slice(0, length)).toEqual(b.slice(0, length));
        expect(length === a.length || length === b.length || a[length] !== b[length]).toBe(true);
      }),
    );
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
