import { readFileSync } from 'node:fs';
import { LLAMA_CPP_SAMPLING, mergeSampling, samplingDefaults } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

describe("a model's sampling defaults", () => {
  it('are empty if neither the GGUF file nor the repository contains any', () => {
    expect(samplingDefaults({})).toEqual({});
    expect(samplingDefaults({ 'general.name': 'x' }, { transformers_version: '4.40' })).toEqual({});
    for (const odd of [null, 7, 'text', [], { temperature: 'hot', top_k: Number.NaN }]) {
      expect(samplingDefaults({}, odd)).toEqual({});
    }
  });

  it('come from the GGUF file', () => {
    const metadata = {
      'general.sampling.temp': '0.6',
      'general.sampling.top_k': '20',
      'general.sampling.top_p': '0.95',
      'general.sampling.min_p': '0',
      'general.sampling.penalty_repeat': '1.05',
      'general.sampling.penalty_last_n': '128',
      'general.sampling.xtc_probability': '0.5',
      'general.sampling.xtc_threshold': '0.2',
      'general.sampling.sequence': 'kp',
    };
    expect(samplingDefaults(metadata)).toEqual({
      temperature: 0.6,
      topK: 20,
      topP: 0.95,
      minP: 0,
      repeatPenalty: 1.05,
      penaltyLastTokens: 128,
      xtc: { probability: 0.5, threshold: 0.2 },
    });
    expect(samplingDefaults({ 'general.sampling.mirostat': '2', 'general.sampling.mirostat_tau': '4' })).toEqual({
      mirostat: { version: 2, tau: 4 },
    });
  });

  it('come from generation_config.json of the repository, which overrides the GGUF file', () => {
    const config = {
      do_sample: true,
      temperature: 0.7,
      top_p: 0.8,
      top_k: 20,
      repetition_penalty: 1.1,
      eos_token_id: 2,
    };
    expect(samplingDefaults({ 'general.sampling.temp': '0.2', 'general.sampling.min_p': '0.05' }, config)).toEqual({
      temperature: 0.7,
      topP: 0.8,
      topK: 20,
      repeatPenalty: 1.1,
      minP: 0.05,
    });
  });

  it('are greedy if the repository sets `do_sample` to false', () => {
    expect(samplingDefaults({}, { do_sample: false, top_p: 0.5 })).toEqual({ temperature: 0 });
    expect(samplingDefaults({}, { do_sample: true })).toEqual({ temperature: 1 });
  });
});

describe("llama.cpp's sampling defaults", () => {
  it('equal the defaults of the vendored llama.cpp', () => {
    const header = readFileSync(new URL('../../vendor/llama.cpp/common/common.h', import.meta.url), 'utf8');
    const defaultOf = (name: string) =>
      Number(new RegExp(`\\b(?:float|int32_t) +${name} += (-?[\\d.]+)f?;`).exec(header)?.[1]);
    const { temperature, topK, topP, minP, ...others } = LLAMA_CPP_SAMPLING;
    expect({ temperature, topK, topP, minP }).toEqual({
      temperature: defaultOf('temp'),
      topK: defaultOf('top_k'),
      topP: defaultOf('top_p'),
      minP: defaultOf('min_p'),
    });
    expect(others).toEqual({});
    // Every other option is off by default, as in a sampler without options.
    expect([defaultOf('typ_p'), defaultOf('penalty_repeat')]).toEqual([1, 1]);
    expect(
      ['xtc_probability', 'dynatemp_range', 'penalty_freq', 'penalty_present', 'dry_multiplier'].map(defaultOf),
    ).toEqual([0, 0, 0, 0, 0]);
  });
});

describe('sampling options', () => {
  it('of a later layer override earlier ones, and undefined options override nothing', () => {
    const merged = mergeSampling({ temperature: 1, topK: 5 }, undefined, { topK: 7 }, {
      temperature: undefined,
    } as never);
    expect(merged).toEqual({ temperature: 1, topK: 7 });
  });

  it('that need a temperature are removed if a later layer sets the temperature to 0', () => {
    const warm = {
      temperature: 1,
      mirostat: { version: 2 },
      dynamicTemperatureRange: 0.5,
      dynamicTemperatureExponent: 2,
    } as const;
    expect(mergeSampling(warm, { topK: 7 }, { temperature: 0 })).toEqual({ temperature: 0, topK: 7 });
    expect(mergeSampling(warm, { temperature: 0.9 })).toEqual({ ...warm, temperature: 0.9 });
    expect(mergeSampling({ temperature: 0 }, warm)).toEqual(warm);
    // Options of the same layer stay, so that the sampler refuses the contradiction.
    const wrong = { temperature: 0, mirostat: { version: 1 } } as const;
    expect(mergeSampling(warm, wrong)).toEqual(wrong);
  });
});
