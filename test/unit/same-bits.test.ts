import { sameBits } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const rows = (...all: number[][]) => all.map((row) => Float32Array.from(row));

describe('the comparison of logits', () => {
  it('finds a difference in the last bit of a row', () => {
    expect(sameBits(rows([1, 2], [3]), rows([1, 2], [3]))).toBe(true);
    expect(sameBits(rows([1, 2], [3]), rows([1, 2], [Math.fround(3 + 2 ** -21)]))).toBe(false);
    expect(sameBits(rows([0]), rows([-0]))).toBe(false);
    expect(sameBits(rows([Number.NaN]), rows([Number.NaN]))).toBe(true);
  });

  it('finds a difference in the number or length of rows', () => {
    expect(sameBits(rows([1]), rows([1], [2]))).toBe(false);
    expect(sameBits(rows([1], [2]), rows([1]))).toBe(false);
    expect(sameBits(rows([1, 2]), rows([1]))).toBe(false);
    expect(sameBits([], [])).toBe(true);
  });

  it('compares views of a larger buffer', () => {
    const large = Float32Array.from([9, 1, 2, 9]);
    expect(sameBits([large.subarray(1, 3)], rows([1, 2]))).toBe(true);
  });
});
