// A model's options: their types, their defaults, and the one place where they are checked.
import { availableParallelism } from 'node:os';
import { HeadstartError } from './errors.js';
import type { LoraConfig } from './model/lora-files.js';
import { type RetryConfig, resolveRetryConfig } from './model/retry.js';
import { type ModelSource, type ModelSourceInput, parseModelSource } from './model/source.js';
import type { Gpu } from './native/loader.js';
import { boolean, type Check, checkOptions, given, integer, oneOf, type Place, text } from './options.js';

/** How the KV cache is laid out. */
export type KvLayout =
  /** One cache that all sequences share: a session forks its template without copying a byte. */
  | 'unified'
  /** A stream for each sequence: no sharing, templates are copied in from memory. */
  | 'split';

/** A model, its context and its template cache. */
export interface ModelConfig {
  /**
   * Where the model comes from: a GGUF file's path or a folder, `hf:owner/name:QUANTISATION`, an address, or a
   * {@link ModelSource}.
   */
  source: ModelSourceInput;
  /** Where downloaded models are kept. @default `llama-headstart/models` in the user's cache directory */
  modelsDir?: string;
  /** How downloads that fail in passing are tried again. @default 3 times, after 1, 2 and 4 seconds */
  retryConfig?: RetryConfig;
  /**
   * Sample as the model's makers recommend, where a request does not say: by the repository's `generation_config.json`, or
   * the one beside a local model, and by the GGUF file's own metadata. @default false
   */
  useHfParams?: boolean;
  /**
   * The template cache's directory. `null` keeps templates in this process only.
   *
   * @default the environment variable `LLAMA_HEADSTART_CACHE_DIR`, else '.cache/templates'
   */
  cacheDir?: string | null;
  /** Take a cache directory that other users can write to: they could change replies. @default false */
  allowSharedDirectory?: boolean;
  /** Budget of the cache directory, in bytes of entries; least recently used ones are deleted. @default none */
  maxBytes?: number;
  /** Most entries in the cache directory; least recently used ones are deleted. @default none */
  maxEntries?: number;
  /** Entries that no session started from for so long are deleted, ms. @default none */
  maxAgeMs?: number;
  /** Templates of fewer tokens leave the cache alone. @default 0 */
  minTokens?: number;
  /** Leave the cache alone where prefills were measured to be no slower than restores. @default false */
  breakEven?: boolean;
  /** `nearest` starts a template that has no entry from the cached one that shares its head; `exact` never. @default 'nearest' */
  reuse?: 'exact' | 'nearest';
  /**
   * Keep states after the system prompt and after each block of tools (those of one server) as entries of their own: for models
   * whose state cannot be trimmed, a changed tool then costs only what follows it. @default false
   */
  breakpoints?: boolean;
  /** Sort tools that came from servers (MCP) by server and name, so that an unordered listing hits. @default true */
  stableTools?: boolean;
  /** LoRA adapters, applied in this order. @default none */
  loras?: readonly LoraConfig[];
  /** Most tokens in one decode. @default 512 */
  batchSize?: number;
  /** Sessions that decode together; more may be open than that. @default 8 */
  nSeqMax?: number;
  /** Most sessions that wait for others' turns to end; one more is refused with `QUEUE_FULL`. @default any number */
  maxQueueSize?: number;
  /** Budget of the states from which sessions without KV cells of their own come back (evicted, forked, restored), in bytes. @default 268435456 (256 MiB) */
  maxSavedBytes?: number;
  /**
   * A greedy or seeded reply is the same to the bit alone, in company, cold, from disk, from memory, after its KV cells were
   * needed by others, and in another process. Takes split streams, `flashAttention` off and exact template reuse, and tests
   * the model at load (seconds): one that cannot keep the promise is refused with `NOT_REPRODUCIBLE`. @default false
   */
  reproducible?: boolean;
  /** Threads for single tokens. @default the number of cores */
  nThreads?: number;
  /** Threads for prompts. @default nThreads */
  nThreadsBatch?: number;
  /** Tokens that one session may hold. @default the smaller of the model's training length and 8,192 (split: 4,096) */
  contextSize?: number;
  /** @default 'unified' */
  kvLayout?: KvLayout;
  /** Cells of the KV cache in all. @default 2 x contextSize when unified, nSeqMax x contextSize when split */
  kvCells?: number;
  /** Templates that stay in the KV cache for sessions to fork; 0 in split streams. @default 4 */
  maxResidentTemplates?: number;
  /** KV cells that those templates may fill, one a token. @default half of kvCells */
  maxResidentCells?: number;
  /** Element type of the K cache. @default 'f16' */
  keyType?: CacheTypeName;
  /** Element type of the V cache. @default 'f16' */
  valueType?: CacheTypeName;
  /** @default true */
  flashAttention?: boolean;
  /** Keep all cells of sliding-window layers, so that conversations can be trimmed; not with `reproducible`. @default false */
  fullSlidingWindow?: boolean;
  /**
   * What to compute on: `'auto'` is the GPU that a build or an installed package offers, else the CPU; `false` is the CPU. One for
   * all agents of a process; the environment variable `LLAMA_HEADSTART_VARIANT` wins. @default 'auto'
   */
  gpu?: Gpu;
  /** Layers on the GPU, where there is one; -1 is all. @default -1 */
  nGpuLayers?: number;
  /** Map the model file instead of reading it. @default true */
  useMmap?: boolean;
  /** Lock the model in memory. @default false */
  useMlock?: boolean;
  /** A chat template (Jinja) instead of the model's own: a program that nothing bounds, as the model's own is. */
  chatTemplate?: string;
  /** Budget of the template cache's memory tier, in bytes. @default 268435456 (256 MiB) */
  maxMemoryBytes?: number;
  /** No template is saved that would leave less disk free, in bytes. @default the larger of 5 % and 2 GiB */
  minFreeDiskBytes?: number;
  /**
   * Log llama.cpp's lines of level `info` too, what MCP servers write to their standard error, and a line for each session, turn
   * and tool call: to the `logger`, where there is none to standard error. @default false
   */
  debug?: boolean;
}

/** Element types of the KV cache, by their names in llama.cpp. */
export type CacheTypeName = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q5_1' | 'q5_0' | 'q4_1' | 'q4_0' | 'iq4_nl';

/** Options that have another form once they are resolved. */
type Changed = 'source' | 'retryConfig';
/** Options that the model itself decides where they are not given. */
type Open =
  | 'modelsDir'
  | 'contextSize'
  | 'kvCells'
  | 'chatTemplate'
  | 'minFreeDiskBytes'
  | 'maxBytes'
  | 'maxEntries'
  | 'maxAgeMs'
  | 'maxQueueSize'
  | 'maxResidentCells';

/** A model's configuration with every default in place, but for what the model itself decides. */
export type ResolvedModelConfig = Readonly<
  Required<Omit<ModelConfig, Changed | Open>> &
    Pick<ModelConfig, Open> & { source: ModelSource; retryConfig: Required<RetryConfig> }
>;

/** Sizes of the context, once the model is known. */
export interface ContextSizes {
  contextSize: number;
  kvCells: number;
  maxSequences: number;
  residentSequences: number;
}

const MAX_DEFAULT_CONTEXT = 8192;
const MAX_SEQUENCES = 256;
const MAX_LORA_SCALE = 10_000;

const cacheType = oneOf('f32', 'f16', 'bf16', 'q8_0', 'q5_1', 'q5_0', 'q4_1', 'q4_0', 'iq4_nl');

const MODEL_CHECKS: Record<keyof ModelConfig, Check> = {
  source: () => undefined, // parseModelSource checks it
  modelsDir: text,
  retryConfig: (value) => (typeof value === 'object' && value !== null ? undefined : 'an object'),
  useHfParams: boolean,
  cacheDir: (value) => (value === null ? undefined : text(value) && 'a path or null'),
  allowSharedDirectory: boolean,
  maxBytes: integer(0, Number.MAX_SAFE_INTEGER),
  maxEntries: integer(0, Number.MAX_SAFE_INTEGER),
  maxAgeMs: integer(0, Number.MAX_SAFE_INTEGER),
  minTokens: integer(0),
  breakEven: boolean,
  reuse: oneOf('exact', 'nearest'),
  breakpoints: boolean,
  stableTools: boolean,
  loras: checkLoras,
  batchSize: integer(1, 2 ** 20),
  nSeqMax: integer(1, MAX_SEQUENCES),
  maxQueueSize: integer(0),
  maxSavedBytes: integer(0, Number.MAX_SAFE_INTEGER),
  reproducible: boolean,
  nThreads: integer(1, 512),
  nThreadsBatch: integer(1, 512),
  contextSize: integer(1),
  kvLayout: oneOf('unified', 'split'),
  kvCells: integer(1),
  maxResidentTemplates: integer(0, MAX_SEQUENCES - 1),
  maxResidentCells: integer(0),
  keyType: cacheType,
  valueType: cacheType,
  flashAttention: boolean,
  fullSlidingWindow: boolean,
  gpu: (value) =>
    value === false || ['auto', 'cuda', 'metal', 'vulkan'].includes(value as string)
      ? undefined
      : "one of 'auto', 'cuda', 'metal', 'vulkan', or false",
  nGpuLayers: integer(-1),
  useMmap: boolean,
  useMlock: boolean,
  chatTemplate: text,
  maxMemoryBytes: integer(0, Number.MAX_SAFE_INTEGER),
  minFreeDiskBytes: integer(0, Number.MAX_SAFE_INTEGER),
  debug: boolean,
};

/** For those who look for them elsewhere. */
export const MODEL_OPTION_NAMES: readonly string[] = Object.keys(MODEL_CHECKS);

/**
 * @param places where what is no option of a model may belong
 * @throws HeadstartError `CONFIG_INVALID`.
 */
export function resolveModelConfig(config: ModelConfig, places: readonly Place[] = []): ResolvedModelConfig {
  checkOptions(config, MODEL_CHECKS, '`model`', 'CONFIG_INVALID', places);
  if (config.source === undefined) {
    throw new HeadstartError('CONFIG_INVALID', 'Expected `source` in `model`: a path, "hf:owner/name", or an address');
  }
  const set = given(config);
  requireNoContradiction(set);
  const nThreads = set.nThreads ?? availableParallelism();
  const reproducible = set.reproducible ?? false;
  const kvLayout = set.kvLayout ?? (reproducible ? 'split' : 'unified');
  const resolved: ResolvedModelConfig = Object.freeze({
    cacheDir: process.env.LLAMA_HEADSTART_CACHE_DIR || '.cache/templates',
    allowSharedDirectory: false,
    minTokens: 0,
    breakEven: false,
    reuse: reproducible ? ('exact' as const) : ('nearest' as const),
    breakpoints: false,
    stableTools: true,
    loras: [],
    batchSize: 512,
    nSeqMax: 8,
    maxSavedBytes: 256 * 1024 ** 2,
    reproducible,
    nThreads,
    nThreadsBatch: nThreads,
    kvLayout,
    keyType: 'f16' as const,
    valueType: 'f16' as const,
    flashAttention: !reproducible,
    fullSlidingWindow: false,
    gpu: 'auto' as const,
    nGpuLayers: -1,
    useMmap: true,
    useMlock: false,
    maxMemoryBytes: 256 * 1024 ** 2,
    useHfParams: false,
    debug: false,
    ...set,
    maxResidentTemplates: kvLayout === 'split' ? 0 : (set.maxResidentTemplates ?? 4),
    source: parseModelSource(set.source, '`source` in `model`'),
    retryConfig: resolveRetryConfig(set.retryConfig),
  });
  for (const [index, { source }] of resolved.loras.entries()) {
    parseModelSource(source, `\`source\` in \`loras[${index}]\``);
  }
  requireSizes(resolved);
  return resolved;
}

/** What `reproducible` cannot go together with, and what it takes instead. */
const NOT_REPRODUCIBLE: readonly [name: keyof ModelConfig, value: unknown, instead: string][] = [
  ['kvLayout', 'unified', '"split"'],
  ['flashAttention', true, 'false'],
  ['reuse', 'nearest', '"exact"'],
  ['breakpoints', true, 'false'],
];

function requireReproducible(config: ModelConfig): void {
  for (const [name, value, instead] of NOT_REPRODUCIBLE) {
    if (config[name] === value) {
      throw new HeadstartError(
        'CONFIG_INVALID',
        `Expected \`${name}\` to be ${instead} or absent with \`reproducible\`, got ${JSON.stringify(value)}`,
      );
    }
  }
}

/** What can be told without the model. */
function requireNoContradiction(config: ModelConfig): void {
  if (config.reproducible) {
    requireReproducible(config);
  }
  const { kvLayout, maxResidentTemplates, valueType = 'f16', flashAttention = !config.reproducible } = config;
  if (kvLayout === 'split' && maxResidentTemplates) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected \`maxResidentTemplates\` to be 0 or absent with \`kvLayout\` "split", got ${maxResidentTemplates}: sessions fork templates only in a unified KV cache`,
    );
  }
  if (flashAttention === false && !['f32', 'f16', 'bf16'].includes(valueType)) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected \`valueType\` to be f32, f16 or bf16 with \`flashAttention\` off, got "${valueType}"`,
    );
  }
}

/** As far as they can be told without the model. */
function requireSizes(config: ResolvedModelConfig): void {
  if (config.contextSize !== undefined) {
    resolveContextSizes(config, config.contextSize);
  } else {
    requireSequences(config, config.kvCells);
  }
}

/**
 * The context's sizes for a model, checked against each other.
 *
 * @throws HeadstartError `CONFIG_INVALID` that names the options to change.
 */
export function resolveContextSizes(config: ResolvedModelConfig, trainContextSize: number): ContextSizes {
  const unified = config.kvLayout === 'unified';
  const largest = unified ? MAX_DEFAULT_CONTEXT : MAX_DEFAULT_CONTEXT / 2;
  const contextSize = config.contextSize ?? Math.min(trainContextSize || largest, largest);
  const needed = unified ? contextSize : contextSize * config.nSeqMax;
  const kvCells = config.kvCells ?? (unified ? 2 * contextSize : needed);
  if (kvCells < needed) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      unified
        ? `Expected \`kvCells\` (${kvCells}) to be at least \`contextSize\` (${contextSize}): one session must fit`
        : `Expected \`kvCells\` (${kvCells}) to be at least nSeqMax x contextSize (${config.nSeqMax} x ${contextSize}) in split streams`,
    );
  }
  requireSequences(config, kvCells);
  const residentSequences = config.maxResidentTemplates;
  return { contextSize, kvCells, maxSequences: config.nSeqMax + residentSequences, residentSequences };
}

/** @param kvCells undefined where the model decides */
function requireSequences({ nSeqMax, maxResidentTemplates, batchSize }: ResolvedModelConfig, kvCells?: number): void {
  const most = Math.min(MAX_SEQUENCES, batchSize, kvCells ?? Number.POSITIVE_INFINITY);
  if (nSeqMax + maxResidentTemplates > most) {
    const limits = [
      `${MAX_SEQUENCES}`,
      `\`batchSize\` (${batchSize})`,
      ...(kvCells ? [`\`kvCells\` (${kvCells})`] : []),
    ];
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected nSeqMax + maxResidentTemplates (${nSeqMax} + ${maxResidentTemplates}) to be at most ${most}, ` +
        `the smallest of ${limits.slice(0, -1).join(', ')} and ${limits.at(-1)}`,
    );
  }
}

/** Also of `setLoras`. */
export function checkLoras(value: unknown): string | undefined {
  const isLora = (each: Partial<LoraConfig> | null) =>
    each?.source !== undefined &&
    Object.keys(each).every((name) => name === 'source' || name === 'scale') &&
    (each.scale === undefined || (Number.isFinite(each.scale) && Math.abs(each.scale) <= MAX_LORA_SCALE));
  return Array.isArray(value) && value.every(isLora)
    ? undefined
    : `an array of { source, scale? } with a scale from -${MAX_LORA_SCALE} to ${MAX_LORA_SCALE}`;
}
