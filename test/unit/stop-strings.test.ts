import fc from 'fast-check';
import { StopStrings } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

/** Passes the pieces to a `StopStrings`. Returns the text that it lets through, and the stop string that it found. */
function streamed(stops: string[], pieces: string[]) {
  const watch = new StopStrings(stops);
  const out = pieces.map((piece) => watch.push(piece));
  return { out: [...out, watch.flush()].join(''), found: watch.matched };
}

describe('stop strings', () => {
  it('end the text in front of them, however the text is cut into pieces', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b', '\n'), maxLength: 30 });
    const stop = fc.string({ unit: fc.constantFrom('a', 'b', '\n'), minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(text, fc.array(stop, { minLength: 1, maxLength: 3 }), fc.array(fc.nat(5)), (all, stops, sizes) => {
        const pieces: string[] = [];
        let rest = all;
        for (const size of sizes) {
          pieces.push(rest.slice(0, size));
          rest = rest.slice(size);
        }
        pieces.push(...rest);
        const { out, found } = streamed(stops, pieces);
        expect(all.startsWith(out)).toBe(true);
        expect(stops.every((each) => !out.includes(each))).toBe(true);
        expect(found === undefined).toBe(stops.every((each) => !all.includes(each)));
        if (found === undefined) {
          expect(out).toBe(all);
        }
      }),
    );
  });

  it('hold text back only as long as they may still match', () => {
    const watch = new StopStrings(['END']);
    expect([watch.push('the E'), watch.push('N'), watch.push('emy'), watch.push(' EN'), watch.flush()]).toEqual([
      'the ',
      '',
      'ENemy',
      ' ',
      'EN',
    ]);
  });

  it('that contain one another end the text at the first match', () => {
    expect(streamed(['xbcd', 'bc'], ['a', 'x', 'b', 'c', 'd'])).toEqual({ out: 'ax', found: 'bc' });
    expect(streamed(['b', 'ab'], ['xab'])).toEqual({ out: 'x', found: 'ab' });
  });
});
