import fc from 'fast-check';
import { type KeyComponents, type KeyInputs, keyComponents, templateKey } from 'llama-headstart/internal';
import type { KvLayout } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';

const COMPONENTS: KeyComponents = {
  format: 1,
  llamaVersion: 'v0.5.0',
  fingerprint: 'ab12',
  keyType: 'f16',
  valueType: 'f16',
  rotationDisabled: '',
  layout: 'unified',
  streams: 1,
  flashAttention: true,
  ropeScaling: 'model',
  ropeFrequencyBase: 10_000,
  ropeFrequencyScale: 1,
  ropeFactors: 'none',
  fullSlidingWindow: false,
  reproducible: '',
  lora: [],
  tenant: '',
};

const OTHER: { [Name in keyof KeyComponents]: KeyComponents[Name] } = {
  format: 2,
  llamaVersion: 'v0.5.1',
  fingerprint: 'ab13',
  keyType: 'q8_0',
  valueType: 'q8_0',
  rotationDisabled: '1',
  layout: 'split',
  streams: 4,
  flashAttention: false,
  ropeScaling: 'yarn',
  ropeFrequencyBase: 500_000,
  ropeFrequencyScale: 0.5,
  ropeFactors: 'long',
  fullSlidingWindow: true,
  reproducible: 'ubatch 512, cut 128, GPU layers 0, CPU',
  lora: ['cd34@1'],
  tenant: 'someone',
};

const TOKENS = Int32Array.of(1, 2, 3);

describe('the key of a template', () => {
  it.each(Object.keys(COMPONENTS) as (keyof KeyComponents)[])('changes with the component `%s`', (name) => {
    const other = { ...COMPONENTS, [name]: OTHER[name] };
    expect(templateKey(other, TOKENS)).not.toBe(templateKey(COMPONENTS, TOKENS));
  });

  it('changes with every token and its position', () => {
    const id = fc.integer({ min: 0, max: 2 ** 31 - 1 });
    const list = fc.array(id, { maxLength: 8 });
    fc.assert(
      fc.property(list, list, (a, b) => {
        const same = JSON.stringify(a) === JSON.stringify(b);
        expect(templateKey(COMPONENTS, Int32Array.from(a)) === templateKey(COMPONENTS, Int32Array.from(b))).toBe(same);
      }),
    );
    expect(templateKey(COMPONENTS, Int32Array.of(1, 2))).not.toBe(templateKey(COMPONENTS, TOKENS));
    expect(templateKey(COMPONENTS, Int32Array.of(3, 2, 1))).not.toBe(templateKey(COMPONENTS, TOKENS));
  });

  it('does not depend on the order of its components', () => {
    const entries = Object.entries(COMPONENTS);
    fc.assert(
      fc.property(fc.shuffledSubarray(entries, { minLength: entries.length }), (shuffled) => {
        const components = Object.fromEntries(shuffled) as unknown as KeyComponents;
        expect(templateKey(components, TOKENS)).toBe(templateKey(COMPONENTS, TOKENS));
      }),
    );
  });

  it('depends only on the tokens of a view and not on the buffer around it', () => {
    const view = Int32Array.of(9, 1, 2, 3, 9).subarray(1, 4);
    expect(templateKey(COMPONENTS, view)).toBe(templateKey(COMPONENTS, TOKENS));
  });

  it('is the same in every release with the same entry format', () => {
    expect(templateKey(COMPONENTS, TOKENS)).toBe('03572c810b8267a14ecb4e19a0aa8bb7d3ad489efb1a3a07122e173a93ec9798');
  });
});

describe('the components of a key', () => {
  const inputs = (metadata: Record<string, string>, kvCellsPerSequence: number, kvLayout: KvLayout = 'unified') =>
    ({
      llamaVersion: 'v0.5.0',
      fingerprint: 'ab12',
      metadata,
      model: { architecture: 'phi3' },
      context: { kvLayout, maxSequences: 6, kvCellsPerSequence },
    }) as unknown as KeyInputs;

  it('contain the RoPE factors that the size of the context selects', () => {
    const scaled = { 'phi3.rope.scaling.original_context_length': '4096' };
    expect(keyComponents(inputs({}, 8192)).ropeFactors).toBe('none');
    expect(keyComponents(inputs(scaled, 4096)).ropeFactors).toBe('short');
    expect(keyComponents(inputs(scaled, 4352)).ropeFactors).toBe('long');
  });

  it('contain one stream for a unified cache, and one stream for each sequence of a split cache', () => {
    expect(keyComponents(inputs({}, 256))).toMatchObject({ layout: 'unified', streams: 1 });
    expect(keyComponents(inputs({}, 256, 'split'))).toMatchObject({ layout: 'split', streams: 6 });
  });
});
