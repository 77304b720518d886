// Tests the warnings about contexts that are longer than the model's training length.
import { ropeAdvice, trainingLengthWarning } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const MODEL = { architecture: 'llama', trainContextSize: 8192, ropeType: 0 };
const STRETCHED = { 'llama.rope.scaling.original_context_length': '2048', 'llama.rope.scaling.factor': '4' };

describe('a context', () => {
  it.each([
    ['as long as the training length', {}, {}, 8192],
    ['stretched by the model file', STRETCHED, {}, 8192],
    [
      'stretched by a model file whose training length is the length before the stretch',
      { 'llama.rope.scaling.factor': '4' },
      {},
      32_768,
    ],
    ['stretched by YaRN', {}, { ropeScaling: 'yarn', ropeFrequencyScale: 8192 / 100_000 }, 100_000],
    ['stretched by interpolation', {}, { ropeFrequencyScale: 0.5 }, 16_384],
    ['stretched further than by the model file', STRETCHED, { ropeFrequencyScale: 2048 / 50_000 }, 50_000],
    ['computed with another RoPE base, whose effect is unknown', {}, { ropeFrequencyBase: 1e6 }, 100_000],
  ] as const)('causes no warning if it is %s', (_, metadata, options, contextSize) => {
    expect(trainingLengthWarning(MODEL, metadata, { ...options, contextSize })).toBeUndefined();
  });

  it.each([
    [
      'longer than the training length',
      {},
      {},
      100_000,
      /`contextSize` is 100000 .* trained for 8192\. .*'yarn', ropeFrequencyScale: 8192 \/ 100000/,
    ],
    ['one token longer than the training length', {}, {}, 8193, /8193 tokens/],
    ['longer than the model file stretches the context', STRETCHED, {}, 8193, /trained for 8192.*2048 \/ 8193/],
    ['not stretched, because `ropeScaling` is "none"', STRETCHED, { ropeScaling: 'none' }, 4096, /trained for 2048/],
    ['stretched too little', {}, { ropeFrequencyScale: 0.5 }, 20_000, /trained for 16384.*8192 \/ 20000/],
    ['configured with a scaling method but no scale', {}, { ropeScaling: 'yarn' }, 16_384, /trained for 8192/],
  ] as const)('causes a warning with the options to set if it is %s', (_, metadata, options, contextSize, message) => {
    expect(trainingLengthWarning(MODEL, metadata, { ...options, contextSize })).toMatch(message);
  });

  it('that is too long for a model without RoPE causes the advice to lower `contextSize`', () => {
    const model = { architecture: 'mamba', trainContextSize: 2048, ropeType: -1 };
    const warning = trainingLengthWarning(model, {}, { contextSize: 4096, ropeFrequencyScale: 0.5 });
    expect(warning).toMatch(/Lower `contextSize`$/);
    expect(ropeAdvice(model, {}, 4096)).toBeUndefined();
  });

  it('that exceeds the learned positions of a model is refused, because llama.cpp would abort', () => {
    const model = { architecture: 'gpt2', trainContextSize: 1024, ropeType: -1 };
    expect(trainingLengthWarning(model, {}, { contextSize: 1024 })).toBeUndefined();
    expect(() => trainingLengthWarning(model, {}, { contextSize: 1025, ropeFrequencyBase: 1e6 })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining('Lower `contextSize`') }),
    );
  });

  it('causes no warning if the training length of the model is unknown', () => {
    expect(trainingLengthWarning({ ...MODEL, trainContextSize: 0 }, {}, { contextSize: 100_000 })).toBeUndefined();
  });
});
