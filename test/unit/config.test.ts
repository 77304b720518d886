import { AgentServer } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type ModelConfig, resolveContextSizes, resolveModelConfig } from '../../lib/config.js';
import { checkOptions } from '../../lib/options.js';

const SOURCE = 'model.gguf';

/** Values that no caller may pass, for each option; `undefined` is as good as absent, and so not among them. */
const WRONG: Record<keyof ModelConfig, unknown[]> = {
  source: ['', 7, null, {}, { type: 'elsewhere', path: 'a' }, []],
  modelsDir: ['', 7, null, {}],
  retryConfig: [7, 'often', null, true],
  useHfParams: ['yes', 1, null],
  cacheDir: ['', 7, false, {}],
  allowSharedDirectory: ['yes', 1, null],
  maxBytes: [-1, 1.5, '1 GiB', null],
  maxEntries: [-1, 1.5, '9', null],
  maxAgeMs: [-1, 1.5, '1 day', null],
  minTokens: [-1, 1.5, '9', null],
  breakEven: ['yes', 1, null],
  reuse: ['none', '', true, null],
  breakpoints: ['yes', [16], null],
  stableTools: ['yes', 1, null],
  loras: [{}, [{}], [{ path: 'a' }], ['a.gguf'], [{ source: 'a', scale: '1' }], [{ source: 'a', scale: 1e9 }], null],
  batchSize: [0, -1, 1.5, '512', Number.NaN, Number.POSITIVE_INFINITY, 2 ** 21, null],
  nSeqMax: [0, 257, 1.5, '4', null],
  maxQueueSize: [-1, 1.5, '4', null],
  maxSavedBytes: [-1, 1.5, '1 GiB', null],
  reproducible: ['yes', 1, null],
  nThreads: [0, 513, '2', null],
  nThreadsBatch: [0, 513, '2', null],
  contextSize: [0, -4096, 0.5, '4096', null],
  kvLayout: ['shared', '', true, null],
  kvCells: [0, '8192', null],
  maxResidentCells: [-1, 1.5, '4', null],
  maxResidentTemplates: [-1, 256, '4', null],
  keyType: ['f64', 'F16', 16, null],
  valueType: ['f64', 'F16', 16, null],
  flashAttention: ['on', 1, null],
  fullSlidingWindow: ['on', 1, null],
  gpu: [true, 'nvidia', 0, null],
  nGpuLayers: [-2, '99', null],
  useMmap: ['yes', 1, null],
  useMlock: ['yes', 1, null],
  chatTemplate: ['', 7, null],
  maxMemoryBytes: [-1, 1.5, '1 GiB', null],
  minFreeDiskBytes: [-1, 1.5, '1 GiB', null],
  debug: ['yes', 0, null],
};

const invalid = (message: RegExp | string) =>
  expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringMatching(message) });

describe('a model configuration', () => {
  for (const [name, values] of Object.entries(WRONG)) {
    it(`refuses a wrong \`${name}\` by its name, with what was got`, () => {
      for (const value of values) {
        const config = { source: SOURCE, [name]: value } as ModelConfig;
        expect(() => resolveModelConfig(config), String(value)).toThrow(
          invalid(new RegExp(`^Expected \`${name}\` in \`model\` to be .+, got `)),
        );
      }
    });
  }

  it('takes the cache directory from the option, else from the environment, else from the default', () => {
    const before = process.env.LLAMA_HEADSTART_CACHE_DIR;
    try {
      delete process.env.LLAMA_HEADSTART_CACHE_DIR;
      expect(resolveModelConfig({ source: SOURCE }).cacheDir).toBe('.cache/templates');
      process.env.LLAMA_HEADSTART_CACHE_DIR = '/var/cache/templates';
      expect(resolveModelConfig({ source: SOURCE }).cacheDir).toBe('/var/cache/templates');
      expect(resolveModelConfig({ source: SOURCE, cacheDir: 'mine' }).cacheDir).toBe('mine');
      expect(resolveModelConfig({ source: SOURCE, cacheDir: null }).cacheDir).toBeNull();
    } finally {
      process.env.LLAMA_HEADSTART_CACHE_DIR = before;
      if (before === undefined) {
        delete process.env.LLAMA_HEADSTART_CACHE_DIR;
      }
    }
  });

  it('asks for a source', () => {
    expect(() => resolveModelConfig({} as ModelConfig)).toThrow(invalid('Expected `source`'));
    expect(() => resolveModelConfig(undefined as unknown as ModelConfig)).toThrow(invalid('to be an object'));
    expect(() => resolveModelConfig([] as unknown as ModelConfig)).toThrow(invalid('to be an object'));
  });

  it.each([
    ['nSeqmax', 'nSeqMax'],
    ['n_seq_max', 'nSeqMax'],
    ['cachedir', 'cacheDir'],
    ['cache_dir', 'cacheDir'],
    ['contextsize', 'contextSize'],
    ['threads', 'nThreads'],
    ['flashAtention', 'flashAttention'],
    ['batch_size', 'batchSize'],
    ['n_threads', 'nThreads'],
    ['n_threads_batch', 'nThreadsBatch'],
    ['use_hf_params', 'useHfParams'],
    ['retry_config', 'retryConfig'],
    ['models_dir', 'modelsDir'],
  ])('suggests the option that `%s` was meant to be', (typo, meant) => {
    const config = { source: SOURCE, [typo]: 1 } as unknown as ModelConfig;
    expect(() => resolveModelConfig(config)).toThrow(
      invalid(`Unknown option \`${typo}\` in \`model\`: did you mean \`${meant}\`\\?`),
    );
  });

  it.each<[object, string]>([
    [{ model: { source: SOURCE }, contextSize: 512 }, '`contextSize` in the options: it belongs in `model`'],
    [{ source: SOURCE }, '`source` in the options: it belongs in `model`'],
    [{ model: { source: SOURCE }, n_seq_max: 4 }, 'did you mean `nSeqMax`, which belongs in `model`\\?'],
    [{ model: { source: SOURCE }, temperature: 1 }, 'it belongs in `sampling`'],
    [{ model: { source: SOURCE }, compaction: true }, 'it belongs in `createSession`'],
    [{ model: { source: SOURCE }, maxTokens: 9 }, 'it belongs in `send` and `stream`'],
    [{ model: { source: SOURCE, systemPrompt: 'Hi' } }, '`systemPrompt` in `model`: it belongs beside `model`'],
    [{ model: { source: SOURCE, seed: 1 } }, 'it belongs in `sampling`, beside `model`'],
  ])('of %j names the place where an option belongs', async (options, message) => {
    await expect(AgentServer.initialize(options as never)).rejects.toThrow(invalid(message));
  });

  it('suggests nothing for a name that is like no other', () => {
    const config = { source: SOURCE, zebra: 1 } as unknown as ModelConfig;
    expect(() => resolveModelConfig(config)).toThrow(invalid('Unknown option `zebra` in `model`$'));
    expect(() => checkOptions({ constructor: 1 }, { a: () => undefined }, 'x')).toThrow(invalid('Unknown option'));
  });

  it('takes `undefined` for absent', () => {
    const config = Object.fromEntries(Object.keys(WRONG).map((name) => [name, undefined]));
    const absent = resolveModelConfig({ source: SOURCE });
    expect(resolveModelConfig({ ...config, source: SOURCE } as unknown as ModelConfig)).toEqual(absent);
  });

  it('has the defaults that the documentation names, and cannot be changed', () => {
    const config = resolveModelConfig({ source: SOURCE });
    expect(config).toMatchObject({
      source: { type: 'local', path: SOURCE },
      cacheDir: '.cache/templates',
      batchSize: 512,
      nSeqMax: 8,
      reproducible: false,
      kvLayout: 'unified',
      maxResidentTemplates: 4,
      keyType: 'f16',
      valueType: 'f16',
      flashAttention: true,
      maxMemoryBytes: 268_435_456,
    });
    expect(config.nThreads).toBeGreaterThan(0);
    expect(config.nThreadsBatch).toBe(config.nThreads);
    expect(Object.isFrozen(config)).toBe(true);
  });

  it('takes what reproducible replies need, and refuses what they cannot go together with', () => {
    expect(resolveModelConfig({ source: SOURCE, reproducible: true })).toMatchObject({
      kvLayout: 'split',
      flashAttention: false,
      reuse: 'exact',
      maxResidentTemplates: 0,
    });
    const contradictions = {
      kvLayout: 'unified',
      flashAttention: true,
      reuse: 'nearest',
      breakpoints: true,
    } as const;
    for (const [name, value] of Object.entries(contradictions)) {
      expect(() => resolveModelConfig({ source: SOURCE, reproducible: true, [name]: value })).toThrow(
        invalid(`^Expected \`${name}\` to be .+ with \`reproducible\``),
      );
    }
  });

  it('gives prompts as many threads as single tokens, if not told otherwise', () => {
    expect(resolveModelConfig({ source: SOURCE, nThreads: 3 }).nThreadsBatch).toBe(3);
    expect(resolveModelConfig({ source: SOURCE, nThreads: 3, nThreadsBatch: 5 }).nThreadsBatch).toBe(5);
  });

  it('keeps no resident templates in split streams, and refuses to be asked for some', () => {
    expect(resolveModelConfig({ source: SOURCE, kvLayout: 'split' }).maxResidentTemplates).toBe(0);
    expect(() => resolveModelConfig({ source: SOURCE, kvLayout: 'split', maxResidentTemplates: 2 })).toThrow(
      invalid('`maxResidentTemplates`.*"split"'),
    );
  });

  it('refuses a quantised V cache without flash attention', () => {
    const config: ModelConfig = { source: SOURCE, valueType: 'q8_0', flashAttention: false };
    expect(() => resolveModelConfig(config)).toThrow(invalid('`valueType`.*`flashAttention`'));
    expect(resolveModelConfig({ ...config, flashAttention: true }).valueType).toBe('q8_0');
    expect(resolveModelConfig({ source: SOURCE, keyType: 'q8_0', flashAttention: false }).keyType).toBe('q8_0');
  });
});

describe("the context's sizes", () => {
  const sizes = (config: Partial<ModelConfig>, trainContextSize = 32_768) =>
    resolveContextSizes(resolveModelConfig({ source: SOURCE, ...config }), trainContextSize);

  it("default to the model's training length, but to no more than 8,192 tokens", () => {
    expect(sizes({}, 2048).contextSize).toBe(2048);
    expect(sizes({}, 131_072).contextSize).toBe(8192);
    expect(sizes({}, 0).contextSize).toBe(8192);
    expect(sizes({ contextSize: 20_000 }).contextSize).toBe(20_000);
  });

  it('default to cells for two full sessions when shared, and for each session when split', () => {
    expect(sizes({ contextSize: 1000 })).toEqual({
      contextSize: 1000,
      kvCells: 2000,
      maxSequences: 12,
      residentSequences: 4,
    });
    expect(sizes({ contextSize: 1000, kvLayout: 'split' })).toEqual({
      contextSize: 1000,
      kvCells: 8000,
      maxSequences: 8,
      residentSequences: 0,
    });
  });

  it('refuse fewer cells than a session may fill', () => {
    expect(() => sizes({ contextSize: 1000, kvCells: 999 })).toThrow(invalid('`kvCells` \\(999\\).*`contextSize`'));
    expect(sizes({ contextSize: 1000, kvCells: 1000 }).kvCells).toBe(1000);
    expect(() => sizes({ contextSize: 1000, kvCells: 7999, kvLayout: 'split' })).toThrow(
      invalid('nSeqMax x contextSize \\(8 x 1000\\) in split'),
    );
  });

  it.each([
    ['256 sequences', { nSeqMax: 250, maxResidentTemplates: 7, contextSize: 4096 }, 'at most 256'],
    ['`batchSize`', { nSeqMax: 10, maxResidentTemplates: 7, batchSize: 16 }, '`batchSize` \\(16\\)'],
    ['`kvCells`', { nSeqMax: 10, maxResidentTemplates: 7, contextSize: 16, kvCells: 16 }, '`kvCells` \\(16\\)'],
  ])('refuse more sequences than %s allow', (_, config, message) => {
    expect(() => sizes(config)).toThrow(invalid('nSeqMax \\+ maxResidentTemplates'));
    expect(() => sizes(config)).toThrow(invalid(message));
  });

  it('allow 256 sequences', () => {
    expect(sizes({ nSeqMax: 250, maxResidentTemplates: 6 }).maxSequences).toBe(256);
  });
});
