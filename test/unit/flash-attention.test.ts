// Tests the rule of `flashAttention: 'auto'`.
import { type AttentionUse, chooseAttention } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

/** An agent with default options on SmolLM2, without a GPU. */
const USE: AttentionUse = {
  usesGpu: false,
  hybrid: false,
  valueType: 'f16',
  kvLayout: 'unified',
  cells: 16_384,
  sequences: 8,
  heads: 9,
  batchSize: 512,
};

describe("`flashAttention: 'auto'`", () => {
  it('is off on the CPU', () => {
    expect(chooseAttention(USE)).toEqual({ flashAttention: false, microBatchSize: 128 });
    expect(chooseAttention({ ...USE, valueType: 'f32' }).flashAttention).toBe(false);
    expect(chooseAttention({ ...USE, batchSize: 64 })).toEqual({ flashAttention: false, microBatchSize: 64 });
  });

  it('is on with a GPU, with a hybrid model, with a quantized V cache, and for many sequences that share a KV cache', () => {
    expect(chooseAttention({ ...USE, usesGpu: true })).toEqual({ flashAttention: true });
    expect(chooseAttention({ ...USE, hybrid: true })).toEqual({ flashAttention: true });
    for (const valueType of ['q8_0', 'q4_0', 'iq4_nl'] as const) {
      expect(chooseAttention({ ...USE, valueType })).toEqual({ flashAttention: true });
    }
    expect(chooseAttention({ ...USE, sequences: 32 })).toEqual({ flashAttention: true });
    expect(chooseAttention({ ...USE, sequences: 32, kvLayout: 'split' }).flashAttention).toBe(false);
  });

  it('is on if the attention scores of 128 tokens would need more than 512 MiB', () => {
    expect(chooseAttention({ ...USE, cells: 2 ** 15, heads: 32 }).flashAttention).toBe(false);
    expect(chooseAttention({ ...USE, cells: 2 ** 15, heads: 33 })).toEqual({ flashAttention: true });
    expect(chooseAttention({ ...USE, cells: 2 ** 15, heads: 33, batchSize: 64 }).flashAttention).toBe(false);
  });
});
