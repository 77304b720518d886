// Tests the rule of `flashAttention: 'auto'`.
import { type AttentionUse, chooseAttention } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

/** An agent with default options on SmolLM2, without a GPU. */
const USE: AttentionUse = {
  usesGpu: false,
  valueType: 'f16',
  kvLayout: 'unified',
  cells: 16_384,
  sequences: 8,
  heads: 9,
  batchSize: 512,
};

/** Bytes of the attention scores of one micro-batch. */
const scoreBytes = ({ cells, heads }: AttentionUse, microBatchSize = 512) => 4 * cells * heads * microBatchSize;

describe("`flashAttention: 'auto'`", () => {
  it('is off on the CPU', () => {
    expect(chooseAttention(USE)).toEqual({ flashAttention: false, microBatchSize: 512 });
    expect(chooseAttention({ ...USE, valueType: 'f32' }).flashAttention).toBe(false);
    expect(chooseAttention({ ...USE, batchSize: 64 })).toEqual({ flashAttention: false, microBatchSize: 64 });
  });

  it('is on with a GPU, with a quantized V cache, and for many sequences that share a KV cache', () => {
    expect(chooseAttention({ ...USE, usesGpu: true })).toEqual({ flashAttention: true });
    for (const valueType of ['q8_0', 'q4_0', 'iq4_nl'] as const) {
      expect(chooseAttention({ ...USE, valueType })).toEqual({ flashAttention: true });
    }
    expect(chooseAttention({ ...USE, sequences: 32 })).toEqual({ flashAttention: true });
    expect(chooseAttention({ ...USE, sequences: 32, kvLayout: 'split' }).flashAttention).toBe(false);
  });

  it('computes fewer tokens at once if the attention scores would need much memory, and is on if that is not enough', () => {
    for (const [cells, heads] of [
      [16_384, 32],
      [40_960, 32],
      [30_000, 9],
      [65_536, 14],
    ] as const) {
      const use = { ...USE, cells, heads };
      const { flashAttention, microBatchSize } = chooseAttention(use);
      expect({ flashAttention }).toEqual({ flashAttention: scoreBytes(use, 128) > 2 ** 29 });
      if (!flashAttention) {
        expect(scoreBytes(use, microBatchSize)).toBeLessThanOrEqual(2 ** 29);
        expect(scoreBytes(use, 2 * (microBatchSize as number))).toBeGreaterThan(microBatchSize === 512 ? 0 : 2 ** 29);
      }
    }
    expect(chooseAttention({ ...USE, cells: 2 ** 20, heads: 64 })).toEqual({ flashAttention: true });
  });
});
