import { type AgentOptions, AgentServer, type CacheOptions, type ModelConfig, type Tool } from 'llama-headstart';
import {
  defaultMemoryBytes,
  group,
  parseOptions,
  resolveAgentOptions,
  resolveContextSizes,
  text,
} from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const SOURCE = 'model.gguf';

/** Resolves the options of an agent. The model source is always `SOURCE`, unless `model` has another one. */
const resolve = (model: Partial<ModelConfig> = {}, options: Omit<AgentOptions, 'model'> = {}) =>
  resolveAgentOptions({ model: { source: SOURCE, ...model }, ...options });

/** The invalid values to test for each option. `undefined` is not among them, because it counts as absent. */
const WRONG_IN_MODEL: Record<keyof ModelConfig, unknown[]> = {
  id: ['', 7, null, {}],
  source: ['', 7, null, {}, { type: 'elsewhere', path: 'a' }, []],
  modelsDir: ['', 7, null, {}],
  retryConfig: [7, 'often', null, true],
  useHfParams: ['yes', 1, null],
  cacheDir: ['', 7, false, {}],
  loras: [{}, [{}], [{ path: 'a' }], ['a.gguf'], [{ source: 'a', scale: '1' }], [{ source: 'a', scale: 1e9 }], null],
  batchSize: [0, -1, 1.5, '512', Number.NaN, Number.POSITIVE_INFINITY, 2 ** 21, null],
  nSeqMax: [0, 257, 1.5, '4', null],
  nThreads: [0, 513, '2', 'automatic', null],
  nThreadsBatch: [0, 513, '2', 'auto', null],
  ropeScaling: ['longrope', 'YARN', 1, null],
  ropeFrequencyBase: [0, -1, '1e6', Number.NaN, Number.POSITIVE_INFINITY, null],
  ropeFrequencyScale: [0, -0.5, 4, '0.25', Number.NaN, null],
  contextSize: [0, -4096, 0.5, '4096', null],
  kvLayout: ['shared', '', true, null],
  kvCells: [0, '8192', null],
  keyType: ['f64', 'F16', 16, null],
  valueType: ['f64', 'F16', 16, null],
  flashAttention: ['on', 1, null],
  fullSlidingWindow: ['on', 1, null],
  gpu: [true, 'nvidia', 0, null],
  nGpuLayers: [-2, '99', null],
  useMmap: ['yes', 1, null],
  useMlock: ['yes', 1, null],
  chatTemplate: ['', 7, null],
  debug: ['yes', 0, null],
};
const WRONG_IN_CACHE: Record<keyof CacheOptions, unknown[]> = {
  dir: ['', 7, false, {}],
  allowSharedDirectory: ['yes', 1, null],
  maxDiskBytes: [-1, 1.5, '1 GiB', null],
  maxEntries: [-1, 1.5, '9', null],
  maxAgeMs: [-1, 1.5, '1 day', null],
  minTokens: [-1, 1.5, '9', null],
  breakEven: ['yes', 1, null],
  reuse: ['none', '', true, null],
  breakpoints: ['yes', [16], null],
  stableTools: ['yes', 1, null],
  maxResidentCells: [-1, 1.5, '4', null],
  maxResidentTemplates: [-1, 256, '4', null],
  maxSavedBytes: [-1, 1.5, '1 GiB', null],
  maxMemoryBytes: [-1, 1.5, '1 GiB', null],
  minFreeDiskBytes: [-1, 1.5, '1 GiB', null],
  conversations: ['yes', 1, null],
};
const WRONG_IN_AGENT = {
  cache: [7, null, [], true],
  reproducible: ['yes', 1, null],
  maxQueueSize: [-1, 1.5, '4', null],
  debug: ['yes', 0, null],
  logger: [7, null, {}],
  onProgress: ['yes', null],
  signal: [{}, null, true],
  systemPrompt: [7, null],
  tools: [
    {},
    [null],
    [{}],
    [{ name: ' a' }],
    [{ name: 'a', execute: 5 }],
    [{ name: 'a', parameters: 'b' }],
    [{ name: 'a', exec: 1 }],
  ],
  mcpServers: [{}, 'a', null],
};

const invalid = (message: RegExp | string) =>
  expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringMatching(message) });

describe("an agent's options", () => {
  for (const [place, wrong] of Object.entries({ model: WRONG_IN_MODEL, cache: WRONG_IN_CACHE })) {
    for (const [name, values] of Object.entries(wrong)) {
      it(`refuse an invalid \`${name}\` in \`${place}\` with an error that contains name and received value`, () => {
        for (const value of values) {
          const options = { model: { source: SOURCE }, cache: {} };
          Object.assign(options[place as 'model' | 'cache'], { [name]: value });
          const message =
            name === 'loras' && Array.isArray(value)
              ? /^(Expected|Unknown option) .*`loras\[0\]` in `model`/
              : new RegExp(`^Expected \`${name}\` in \`${place}\` to be .+, got `);
          expect(() => resolveAgentOptions(options), String(value)).toThrow(invalid(message));
        }
      });
    }
  }

  for (const [name, values] of Object.entries(WRONG_IN_AGENT)) {
    it(`refuse an invalid \`${name}\` with an error that contains name and received value`, () => {
      for (const value of values) {
        expect(() => resolve({}, { [name]: value } as never), String(value)).toThrow(
          invalid(new RegExp(`^Expected \`${name}\` in the options to be .+, got `)),
        );
      }
    });
  }

  it.each<[tool: unknown, message: RegExp]>([
    [{ name: 'b', execute: 5 }, /the tool at index 1 to have `execute` that is a function/],
    [
      { name: 'b', parameters: 5 },
      /the tool at index 1 to have `parameters` that is a JSON Schema object or a zod schema/,
    ],
    [
      { name: 'b', handler: () => 1 },
      /the tool at index 1 to have known fields \(`handler`: did you mean `execute`\?\)/,
    ],
    [{ name: 'b', input_schema: {} }, /\(`input_schema`: did you mean `inputSchema`\?\)/],
    [
      { name: 'b', inputSchema: {}, parameters: {} },
      /the tool at index 1 to have `inputSchema` or its alias `parameters`, not both/,
    ],
    [{ name: 'a' }, /with different names \(two are called "a"\)/],
  ])('are refused with an error that names the invalid tool and its fault: %j', (tool, message) => {
    expect(() => resolve({}, { tools: [{ name: 'a' }, tool as Tool] })).toThrow(invalid(message));
  });

  it('contain the tool objects themselves, not copies, because a tool may be an instance of a class', () => {
    class Lamp {
      name = 'lamp';
      watts = 5;
      execute() {
        return this.watts;
      }
    }
    const lamp = new Lamp();
    expect(resolve({}, { tools: [lamp] }).tools?.[0]).toBe(lamp);
  });

  it('take the cache directory from the option first, then from the environment, then from the default', () => {
    const before = process.env.LLAMA_HEADSTART_CACHE_DIR;
    const directory = (...options: Parameters<typeof resolve>) => resolve(...options).cache.dir;
    try {
      delete process.env.LLAMA_HEADSTART_CACHE_DIR;
      expect(directory()).toBe('.cache/templates');
      process.env.LLAMA_HEADSTART_CACHE_DIR = '/var/cache/templates';
      expect(directory()).toBe('/var/cache/templates');
      expect(directory({}, { cache: { dir: 'mine' } })).toBe('mine');
      expect(directory({ cacheDir: 'mine' })).toBe('mine');
      expect(directory({}, { cache: { dir: null } })).toBeNull();
      expect(directory({ cacheDir: null })).toBeNull();
    } finally {
      process.env.LLAMA_HEADSTART_CACHE_DIR = before;
      if (before === undefined) {
        delete process.env.LLAMA_HEADSTART_CACHE_DIR;
      }
    }
  });

  it('accept the cache directory and `debug` in two places, and refuse different values in the two places', () => {
    expect(resolve({ cacheDir: 'a' }, { cache: { dir: 'a' } }).cache.dir).toBe('a');
    expect(() => resolve({ cacheDir: 'a' }, { cache: { dir: 'b' } })).toThrow(
      invalid('^Expected `dir` in `cache` or `cacheDir` in `model`, .*got both .*: "b" and "a"'),
    );
    expect(() => resolve({ cacheDir: null }, { cache: { dir: 'b' } })).toThrow(invalid('"b" and null'));
    expect(resolve({ debug: true }).debug).toBe(true);
    expect(resolve({}, { debug: true }).debug).toBe(true);
    expect(resolve().debug).toBe(false);
    expect(() => resolve({ debug: true }, { debug: false })).toThrow(
      invalid('`debug` or `debug` in `model`, .*got both'),
    );
  });

  it('require a model source', () => {
    expect(() => resolveAgentOptions({ model: {} as ModelConfig })).toThrow(invalid('Expected `source` in `model`'));
    for (const nothing of [undefined, [], null, 7]) {
      expect(() => resolveAgentOptions({ model: nothing as never })).toThrow(invalid('`model` .*to be an object'));
      expect(() => resolveAgentOptions(nothing as never)).toThrow(invalid('the options to be an object'));
    }
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
  ])('suggest the right name for the misspelled option `%s`', (typo, meant) => {
    expect(() => resolve({ [typo]: 1 })).toThrow(
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
    [{ model: { source: SOURCE, maxQueueSize: 1 } }, '`maxQueueSize` in `model`: it belongs beside `model`'],
    [{ model: { source: SOURCE, minTokens: 1 } }, '`minTokens` in `model`: it belongs in `cache`'],
    [{ model: { source: SOURCE, maxBytes: 1 } }, 'did you mean `maxDiskBytes`, which belongs in `cache`\\?'],
    [{ model: { source: SOURCE }, cache: { maxBytes: 1 } }, '`maxBytes` in `cache`: did you mean `maxDiskBytes`\\?'],
    [{ model: { source: SOURCE }, cache: { cacheDir: 'a' } }, '`cacheDir` in `cache`: did you mean `dir`\\?'],
    [{ model: { source: SOURCE }, cache: { kvCells: 1 } }, '`kvCells` in `cache`: it belongs in `model`'],
    [{ model: { source: SOURCE }, dir: 'a' }, '`dir` in the options: it belongs in `cache`'],
    [{ model: { source: SOURCE }, cache: { logger: 1 } }, '`logger` in `cache`: it belongs beside `cache`'],
    [
      { model: { source: SOURCE, retryConfig: { max_retries: 1 } } },
      '`max_retries` in `retryConfig` in `model`: did you mean',
    ],
  ])('name the right place for a misplaced option: %j', async (options, message) => {
    await expect(AgentServer.initialize(options as never)).rejects.toThrow(invalid(message));
  });

  it('suggest nothing for an unknown name that is not similar to any option', () => {
    expect(() => resolve({ zebra: 1 } as never)).toThrow(invalid('Unknown option `zebra` in `model`$'));
    const schema = group({ a: text().optional() });
    for (const name of ['constructor', 'toString', '__proto__']) {
      const options = JSON.parse(`{ "${name}": 1 }`);
      expect(() => parseOptions(schema, options, { where: 'x' })).toThrow(invalid(`Unknown option \`${name}\``));
    }
  });

  it('treat an option with the value `undefined` as absent', () => {
    const absent = (names: object) => Object.fromEntries(Object.keys(names).map((name) => [name, undefined]));
    const options = { ...absent(WRONG_IN_AGENT), cache: absent(WRONG_IN_CACHE) };
    expect(resolve({ ...absent(WRONG_IN_MODEL), source: SOURCE }, options)).toEqual(resolve());
  });

  it('have the documented defaults, and are frozen', () => {
    const config = resolve();
    expect(config).toMatchObject({
      model: {
        source: { type: 'local', path: SOURCE },
        batchSize: 512,
        nSeqMax: 8,
        kvLayout: 'unified',
        keyType: 'f16',
        valueType: 'f16',
        flashAttention: 'auto',
        adaptsThreads: false,
      },
      cache: { dir: '.cache/templates', maxResidentTemplates: 4, maxMemoryBytes: defaultMemoryBytes() },
      reproducible: false,
    });
    expect(config.model.nThreads).toBeGreaterThan(0);
    expect(config.model.nThreadsBatch).toBe(config.model.nThreads);
    for (const frozen of [config, config.model, config.cache, config.model.retryConfig, config.sampling]) {
      expect(Object.isFrozen(frozen)).toBe(true);
    }
  });

  it('reserve for states one eighth of the memory that the process may use, but at least 512 MiB', () => {
    const gibibyte = 1024 ** 3;
    expect(defaultMemoryBytes(64 * gibibyte, 0)).toBe(8 * gibibyte); // the limit is unknown
    expect(defaultMemoryBytes(64 * gibibyte, 2 ** 63)).toBe(8 * gibibyte); // there is no limit
    expect(defaultMemoryBytes(64 * gibibyte, 16 * gibibyte)).toBe(2 * gibibyte);
    expect(defaultMemoryBytes(64 * gibibyte, gibibyte)).toBe(gibibyte / 2);
  });

  it('get the values that `reproducible` requires, and refuse values that contradict `reproducible`', () => {
    expect(resolve({}, { reproducible: true })).toMatchObject({
      model: { kvLayout: 'split', flashAttention: false },
      cache: { reuse: 'exact', maxResidentTemplates: 0 },
    });
    const contradictions = [
      { model: { kvLayout: 'unified' } },
      { model: { flashAttention: true } },
      { model: { nThreads: 'auto' } },
      { cache: { reuse: 'nearest' } },
      { cache: { breakpoints: true } },
    ] as const;
    for (const options of contradictions) {
      const { model = {}, cache = {} } = options as { model?: object; cache?: object };
      const [name] = Object.keys({ ...model, ...cache });
      expect(() => resolve(model, { cache, reproducible: true })).toThrow(
        invalid(`^Expected \`${name}\` .*to be .+ with \`reproducible\``),
      );
    }
  });

  it('set `nThreadsBatch` to `nThreads` by default', () => {
    expect(resolve({ nThreads: 3 }).model.nThreadsBatch).toBe(3);
    expect(resolve({ nThreads: 3, nThreadsBatch: 5 }).model.nThreadsBatch).toBe(5);
  });

  it('take the number of cores as the highest number of threads with `nThreads: "auto"`', () => {
    const cores = resolve().model.nThreads;
    expect(resolve({ nThreads: 'auto' }).model).toMatchObject({
      nThreads: cores,
      nThreadsBatch: cores,
      adaptsThreads: true,
    });
    expect(() => resolve({ nThreads: 'auto', nThreadsBatch: 2 })).toThrow(invalid('`nThreadsBatch`.*absent'));
  });

  it('turn flash attention off with `reproducible`, also if it is "auto"', () => {
    const config = resolve({ flashAttention: 'auto' }, { reproducible: true });
    expect(config.model.flashAttention).toBe(false);
  });

  it('keep no resident templates with `kvLayout` "split", and refuse a `maxResidentTemplates` above 0', () => {
    expect(resolve({ kvLayout: 'split' }).cache.maxResidentTemplates).toBe(0);
    expect(() => resolve({ kvLayout: 'split' }, { cache: { maxResidentTemplates: 2 } })).toThrow(
      invalid('`maxResidentTemplates`.*"split"'),
    );
  });

  it('refuse a RoPE scale together with `ropeScaling` "none"', () => {
    const model = { ropeScaling: 'none', ropeFrequencyScale: 0.5 } as const;
    expect(() => resolve(model)).toThrow(invalid('`ropeFrequencyScale`.*`ropeScaling` "none"'));
    expect(resolve({ ropeScaling: 'none' }).model.ropeScaling).toBe('none');
  });

  it('refuse a quantized V cache without flash attention', () => {
    const model = { valueType: 'q8_0', flashAttention: false } as const;
    expect(() => resolve(model)).toThrow(invalid('`valueType`.*`flashAttention`'));
    expect(resolve({ ...model, flashAttention: true }).model.valueType).toBe('q8_0');
    expect(resolve({ keyType: 'q8_0', flashAttention: false }).model.keyType).toBe('q8_0');
    expect(resolve({ valueType: 'q8_0' }).model.valueType).toBe('q8_0');
    expect(() => resolve({ valueType: 'q8_0' }, { reproducible: true })).toThrow(invalid('`valueType`'));
  });
});

describe('the sizes of the context and of the KV cache', () => {
  type Sizes = Partial<ModelConfig> & Pick<CacheOptions, 'maxResidentTemplates'>;
  const sizes = ({ maxResidentTemplates, ...model }: Sizes, trainContextSize = 32_768) =>
    resolveContextSizes(resolve(model, { cache: { maxResidentTemplates } }), trainContextSize);

  it("are by default a `contextSize` of the model's training length, but of at most 8,192 tokens", () => {
    expect(sizes({}, 2048).contextSize).toBe(2048);
    expect(sizes({}, 131_072).contextSize).toBe(8192);
    expect(sizes({}, 0).contextSize).toBe(8192);
    expect(sizes({ contextSize: 20_000 }).contextSize).toBe(20_000);
  });

  it('are by default KV cells for two full sessions in the unified layout, or for all in the split layout', () => {
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

  it('must be KV cells for at least one full session, or for all sessions in the split layout', () => {
    expect(() => sizes({ contextSize: 1000, kvCells: 999 })).toThrow(invalid('`kvCells` \\(999\\).*`contextSize`'));
    expect(sizes({ contextSize: 1000, kvCells: 1000 }).kvCells).toBe(1000);
    expect(() => sizes({ contextSize: 1000, kvCells: 7999, kvLayout: 'split' })).toThrow(
      invalid('nSeqMax x contextSize \\(8 x 1000\\) with `kvLayout` "split"'),
    );
  });

  it.each([
    ['the limit of 256', { nSeqMax: 250, maxResidentTemplates: 7, contextSize: 4096 }, 'at most 256'],
    ['`batchSize`', { nSeqMax: 10, maxResidentTemplates: 7, batchSize: 16 }, '`batchSize` \\(16\\)'],
    ['`kvCells`', { nSeqMax: 10, maxResidentTemplates: 7, contextSize: 16, kvCells: 16 }, '`kvCells` \\(16\\)'],
  ])('are refused if there are more sequences than %s allows', (_, config, message) => {
    expect(() => sizes(config)).toThrow(invalid('nSeqMax \\+ maxResidentTemplates'));
    expect(() => sizes(config)).toThrow(invalid(message));
  });

  it('allow 256 sequences', () => {
    expect(sizes({ nSeqMax: 250, maxResidentTemplates: 6 }).maxSequences).toBe(256);
  });
});
