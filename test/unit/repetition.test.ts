import fc from 'fast-check';
import { RepetitionGuard } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const endsAt = (guard: RepetitionGuard, tokens: number[]) => tokens.findIndex((token) => guard.push(token));

describe('the repetition guard', () => {
  it('ends a reply when a run of tokens has been repeated often enough, for runs of any length up to 64', () => {
    for (const length of [1, 2, 7, 64]) {
      const guard = new RepetitionGuard({ repeats: 3, minTokens: 12 });
      const tokens = Array.from({ length: 400 }, (_, index) => index % length);
      expect(endsAt(guard, tokens) + 1).toBe(Math.max(3 * length, 12));
    }
  });

  it('does not end a reply that is a list of different items', () => {
    const guard = new RepetitionGuard();
    expect(
      endsAt(
        guard,
        Array.from({ length: 2000 }, (_, index) => (index % 4 === 3 ? index : index % 4)),
      ),
    ).toBe(-1);
  });

  it('ends a reply only if its newest tokens are repetitions of one run', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(2), { maxLength: 200 }), (tokens) => {
        const at = endsAt(new RepetitionGuard({ maxRunTokens: 8, repeats: 3, minTokens: 9 }), tokens);
        const tail = tokens.slice(0, at + 1);
        const isRun = (run: number) => {
          const length = Math.max(3 * run, 9);
          const last = tail.slice(-length);
          return last.length === length && last.every((token, index) => index < run || token === last[index - run]);
        };
        expect(at < 0 || [1, 2, 3, 4, 5, 6, 7, 8].some(isRun)).toBe(true);
      }),
    );
  });
});
