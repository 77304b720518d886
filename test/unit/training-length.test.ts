// Whether a context is longer than the model was made for, and what is to be set then.

import { ropeAdvice, trainingLengthWarning } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const MODEL = { architecture: 'llama', trainContextSize: 8192, ropeType: 0 };
const STRETCHED = { 'llama.rope.scaling.original_context_length': '2048', 'llama.rope.scaling.factor': '4' };

describe('a context', () => {
  it.each([
    ['as long as the training', {}, {}, 8192],
    ['stretched by the model file', STRETCHED, {}, 8192],
    [
      'stretched by the model file, whose training length does not say so',
      { 'llama.rope.scaling.factor': '4' },
      {},
      32_768,
    ],
    ['stretched by YaRN', {}, { ropeScaling: 'yarn', ropeFrequencyScale: 8192 / 100_000 }, 100_000],
    ['stretched by interpolation', {}, { ropeFrequencyScale: 0.5 }, 16_384],
    ['stretched further than by the model file', STRETCHED, { ropeFrequencyScale: 2048 / 50_000 }, 50_000],
    ['with another base: how far it reaches, nobody can tell', {}, { ropeFrequencyBase: 1e6 }, 100_000],
  ] as const)('gives no warning: %s', (_, metadata, options, contextSize) => {
    expect(trainingLengthWarning(MODEL, metadata, { ...options, contextSize })).toBeUndefined();
  });

  it.each([
    [
      'longer than the training',
      {},
      {},
      100_000,
      /`contextSize` is 100000 .* made for 8192: .*'yarn', ropeFrequencyScale: 8192 \/ 100000/,
    ],
    ['one token longer', {}, {}, 8193, /8193 tokens/],
    ['longer than the model file stretches it', STRETCHED, {}, 8193, /made for 8192.*2048 \/ 8193/],
    ['whose stretching is switched off', STRETCHED, { ropeScaling: 'none' }, 4096, /made for 2048/],
    ['not stretched far enough', {}, { ropeFrequencyScale: 0.5 }, 20_000, /made for 16384.*8192 \/ 20000/],
    ['with a method and no scale', {}, { ropeScaling: 'yarn' }, 16_384, /made for 8192/],
  ] as const)('gives a warning that says what to set: %s', (_, metadata, options, contextSize, message) => {
    expect(trainingLengthWarning(MODEL, metadata, { ...options, contextSize })).toMatch(message);
  });

  it('of a model without RoPE can only be made shorter', () => {
    const model = { architecture: 'mamba', trainContextSize: 2048, ropeType: -1 };
    const warning = trainingLengthWarning(model, {}, { contextSize: 4096, ropeFrequencyScale: 0.5 });
    expect(warning).toMatch(/Lower `contextSize`$/);
    expect(ropeAdvice(model, {}, 4096)).toBeUndefined();
  });

  it('of a model that learned each position is refused, as llama.cpp would abort', () => {
    const model = { architecture: 'gpt2', trainContextSize: 1024, ropeType: -1 };
    expect(trainingLengthWarning(model, {}, { contextSize: 1024 })).toBeUndefined();
    expect(() => trainingLengthWarning(model, {}, { contextSize: 1025, ropeFrequencyBase: 1e6 })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining('lower `contextSize`') }),
    );
  });

  it('of a model whose training length is unknown gives no warning', () => {
    expect(trainingLengthWarning({ ...MODEL, trainContextSize: 0 }, {}, { contextSize: 100_000 })).toBeUndefined();
  });
});
