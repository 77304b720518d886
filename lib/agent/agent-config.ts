// Fills in the defaults of an agent's options, and checks the options against each other.
import { availableParallelism } from 'node:os';
import { defaultMemoryBytes, type ResolvedCacheOptions } from '../cache/cache-options.js';
import { HeadstartError } from '../errors.js';
import type { ParsedModelConfig } from '../model/model-options.js';
import { type ModelSource, parseModelSource } from '../model/source.js';
import type { KvLayout } from '../native/context.js';
import { describe } from '../options.js';
import { type ResolvedMcpServer, resolveMcpServers } from '../tools/mcp/mcp-config.js';
import { type AgentOptions, type ParsedAgentOptions, parseAgentOptions } from './agent-options.js';

/** The options of a model, with the defaults that depend on other options. */
export interface ResolvedModelConfig extends Omit<ParsedModelConfig, 'source' | 'cacheDir' | 'debug'> {
  source: ModelSource;
  nThreads: number;
  nThreadsBatch: number;
  /** Whether `nThreads` is `'auto'`. The numbers of threads are then the first and largest ones. */
  adaptsThreads: boolean;
  kvLayout: KvLayout;
  flashAttention: boolean | 'auto';
}

export interface ResolvedCacheConfig extends ResolvedCacheOptions {
  dir: string | null;
  maxMemoryBytes: number;
  reuse: 'exact' | 'nearest';
  maxResidentTemplates: number;
}

/** An agent's options with all defaults, except those that depend on the model. */
export interface AgentConfig extends Omit<ParsedAgentOptions, 'model' | 'cache' | 'mcpServers' | 'debug'> {
  model: Readonly<ResolvedModelConfig>;
  cache: Readonly<ResolvedCacheConfig>;
  mcpServers: readonly ResolvedMcpServer[];
  debug: boolean;
}

/** The sizes of the context, which depend on the model. */
export interface ContextSizes {
  contextSize: number;
  kvCells: number;
  maxSequences: number;
  residentSequences: number;
}

const MAX_DEFAULT_CONTEXT = 8192;
const MAX_SEQUENCES = 256;
const DEFAULT_RESIDENT_TEMPLATES = 4;
const DEFAULT_DIRECTORY = '.cache/templates';

/**
 * Fills in defaults, and checks everything that does not depend on the model. Checks come first because a download of
 * gigabytes may follow.
 *
 * @throws HeadstartError `CONFIG_INVALID`, `INVALID_ARGUMENT` (in `sampling`).
 */
export function resolveAgentOptions(options: AgentOptions): Readonly<AgentConfig> {
  const parsed = parseAgentOptions(options);
  const mcpServers = resolveMcpServers(parsed.mcpServers ?? []);
  requireNoContradiction(parsed);
  const { cacheDir, debug, ...model } = parsed.model;
  const config: AgentConfig = {
    ...parsed,
    model: resolveModel(model, parsed.reproducible),
    cache: resolveCache(parsed),
    mcpServers,
    debug: oneValue(['debug', parsed.debug], ['debug` in `model', debug]) ?? false,
  };
  requireSizes(config);
  return Object.freeze(config);
}

function resolveModel(
  model: Omit<ParsedModelConfig, 'cacheDir' | 'debug'>,
  reproducible: boolean,
): ResolvedModelConfig {
  const { kvLayout = reproducible ? 'split' : 'unified' } = model;
  const adaptsThreads = model.nThreads === 'auto';
  const nThreads = typeof model.nThreads === 'number' ? model.nThreads : availableParallelism();
  for (const [index, { source }] of model.loras.entries()) {
    parseModelSource(source, `\`source\` in \`loras[${index}]\``);
  }
  return Object.freeze({
    ...model,
    nThreads,
    nThreadsBatch: model.nThreadsBatch ?? nThreads,
    adaptsThreads,
    kvLayout,
    flashAttention: flashAttentionOf(model.flashAttention, reproducible),
    source: parseModelSource(model.source, '`source` in `model`'),
  });
}

/** `reproducible` needs flash attention to be off. */
function flashAttentionOf(option: boolean | 'auto' | undefined, reproducible: boolean): boolean | 'auto' {
  return reproducible ? false : (option ?? 'auto');
}

function resolveCache({ model, cache, reproducible }: ParsedAgentOptions): ResolvedCacheConfig {
  const isSplit = (model.kvLayout ?? (reproducible ? 'split' : 'unified')) === 'split';
  const dir = oneValue(['dir` in `cache', cache.dir], ['cacheDir` in `model', model.cacheDir]);
  return Object.freeze({
    ...cache,
    maxMemoryBytes: cache.maxMemoryBytes ?? defaultMemoryBytes(),
    reuse: cache.reuse ?? (reproducible ? 'exact' : 'nearest'),
    maxResidentTemplates: isSplit ? 0 : (cache.maxResidentTemplates ?? DEFAULT_RESIDENT_TEMPLATES),
    dir: dir === undefined ? process.env.LLAMA_HEADSTART_CACHE_DIR || DEFAULT_DIRECTORY : dir,
  });
}

/** Returns the value of an option that has two names. */
function oneValue<Value>(...[[name, value], [alias, other]]: [[string, Value], [string, Value]]): Value {
  if (value !== undefined && other !== undefined && value !== other) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected \`${name}\` or \`${alias}\`, which are two names of one option, got both with different values: ` +
        `${describe(value)} and ${describe(other)}`,
    );
  }
  return value === undefined ? other : value; // not `??`, because null is a value
}

/** Option values that contradict `reproducible`, each with the value that `reproducible` needs. */
const NOT_REPRODUCIBLE: readonly [group: 'model' | 'cache', name: string, value: unknown, instead: string][] = [
  ['model', 'kvLayout', 'unified', '"split"'],
  ['model', 'flashAttention', true, 'false'],
  ['model', 'nThreads', 'auto', 'a number'],
  ['cache', 'reuse', 'nearest', '"exact"'],
  ['cache', 'breakpoints', true, 'false'],
];

function requireReproducible(options: ParsedAgentOptions): void {
  for (const [group, name, value, instead] of NOT_REPRODUCIBLE) {
    if ((options[group] as Record<string, unknown>)[name] === value) {
      throw new HeadstartError(
        'CONFIG_INVALID',
        `Expected \`${name}\` in \`${group}\` to be ${instead} or absent with \`reproducible\`, got ${describe(value)}`,
      );
    }
  }
}

/** Checks the combinations of options that do not depend on the model. */
function requireNoContradiction(options: ParsedAgentOptions): void {
  const { model, cache, reproducible } = options;
  if (reproducible) {
    requireReproducible(options);
  }
  const dir = cache.dir === undefined ? model.cacheDir : cache.dir;
  if (cache.conversations && dir === null) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      'Expected `conversations` in `cache` to be false or absent without a cache directory, got `dir: null`',
    );
  }
  if (model.ropeScaling === 'none' && model.ropeFrequencyScale !== undefined) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      'Expected `ropeFrequencyScale` in `model` to be absent with `ropeScaling` "none". To scale, choose "yarn" or "linear"',
    );
  }
  const { kvLayout, valueType } = model;
  if (model.nThreads === 'auto' && model.nThreadsBatch !== undefined) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      'Expected `nThreadsBatch` in `model` to be absent with `nThreads` "auto", which also adapts the threads for ' +
        `prompts, got ${model.nThreadsBatch}`,
    );
  }
  if (kvLayout === 'split' && cache.maxResidentTemplates) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected \`maxResidentTemplates\` in \`cache\` to be 0 or absent with \`kvLayout\` "split", ` +
        `got ${cache.maxResidentTemplates}: sessions fork templates only in a unified KV cache`,
    );
  }
  if (!flashAttentionOf(model.flashAttention, reproducible) && !['f32', 'f16', 'bf16'].includes(valueType)) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected \`valueType\` in \`model\` to be f32, f16 or bf16 with \`flashAttention\` off, got "${valueType}"`,
    );
  }
}

/** Checks the sizes that are known without the model. */
function requireSizes(config: AgentConfig): void {
  const { contextSize, kvCells } = config.model;
  if (contextSize !== undefined) {
    resolveContextSizes(config, contextSize);
  } else {
    requireSequences(config, kvCells);
  }
}

/**
 * Chooses the sizes of the context for a model, and checks them against each other.
 *
 * @throws HeadstartError `CONFIG_INVALID`. The message names the options to change.
 */
export function resolveContextSizes(config: AgentConfig, trainContextSize: number): ContextSizes {
  const { kvLayout, nSeqMax, ...model } = config.model;
  const unified = kvLayout === 'unified';
  const largest = unified ? MAX_DEFAULT_CONTEXT : MAX_DEFAULT_CONTEXT / 2;
  const contextSize = model.contextSize ?? Math.min(trainContextSize || largest, largest);
  const needed = unified ? contextSize : contextSize * nSeqMax;
  const kvCells = model.kvCells ?? (unified ? 2 * contextSize : needed);
  if (kvCells < needed) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      unified
        ? `Expected \`kvCells\` (${kvCells}) to be at least \`contextSize\` (${contextSize}): one session must fit`
        : `Expected \`kvCells\` (${kvCells}) to be at least nSeqMax x contextSize (${nSeqMax} x ${contextSize}) with \`kvLayout\` "split"`,
    );
  }
  requireSequences(config, kvCells);
  const residentSequences = config.cache.maxResidentTemplates;
  return { contextSize, kvCells, maxSequences: nSeqMax + residentSequences, residentSequences };
}

/** @param kvCells undefined if the number depends on the model */
function requireSequences({ model, cache }: AgentConfig, kvCells?: number): void {
  const { nSeqMax, batchSize } = model;
  const { maxResidentTemplates } = cache;
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
