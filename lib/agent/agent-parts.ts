// What an agent is made of: each part from its options.

import { throwIfAborted } from '../abort.js';
import { Adapters } from '../cache/adapters.js';
import { keyComponents, reproducibleComponent } from '../cache/key.js';
import { PrefixCache } from '../cache/prefix-cache.js';
import { Engine } from '../engine/engine.js';
import { RwLock } from '../engine/rw-lock.js';
import { mergeSampling, requireSampling, samplingDefaults } from '../generate/sampling.js';
import type { Logger } from '../logger.js';
import { fingerprintModel } from '../model/fingerprint.js';
import { resolveLoras } from '../model/lora-files.js';
import { type ResolveModelOptions, resolveModel } from '../model/resolve.js';
import { type ReachOptions, trainingLengthWarning } from '../model/training-length.js';
import { Model } from '../native/model.js';
import { systemInfo } from '../native/system.js';
import { MessageEnds } from '../prompt/message-end.js';
import { Renderer } from '../prompt/renderer.js';
import { Templates } from '../prompt/templates.js';
import { LLAMA_CPP_SAMPLING, type SamplingOptions } from '../sampling-options.js';
import { Checkpoints } from '../session/checkpoints.js';
import { findTemplate, type SessionDefaults, type SessionHost } from '../session/open-session.js';
import { McpServers } from '../tools/mcp/mcp-servers.js';
import { ToolSet } from '../tools/tool.js';
import { type AgentConfig, type ContextSizes, resolveContextSizes } from './agent-config.js';

/** All parts, open. */
export interface AgentParts extends Omit<SessionHost, 'requireOpen' | 'onOpened' | 'onClosed'> {
  adapters: Adapters;
  /** The model's file. */
  path: string;
  /** Gets a line for each session, turn and tool call. */
  debugLogger: Logger | undefined;
  /** How what is not on this machine gets here. */
  fetching: Omit<ResolveModelOptions, 'signal'>;
}

/**
 * Opens all parts; where one fails, those before it are closed again.
 *
 * @throws HeadstartError as `AgentServer.initialize`.
 */
export async function openParts(config: AgentConfig): Promise<AgentParts> {
  const opened: (() => Promise<void>)[] = [];
  try {
    return await openEach(config, (close) => opened.unshift(close));
  } catch (error) {
    await closeAll(opened).catch(() => undefined); // what failed first is what is told
    throw error;
  }
}

/**
 * Closes all parts, one after another: one that fails leaves none of the others open.
 *
 * @throws what the first that failed threw
 */
export async function closeAll(closers: readonly (() => unknown)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const close of closers) {
    try {
      await close();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) {
    throw failures[0];
  }
}

async function openEach(config: AgentConfig, onOpened: (close: () => Promise<void>) => void): Promise<AgentParts> {
  const { signal, logger, onProgress } = config;
  const { modelsDir, retryConfig, useHfParams, source, chatTemplate } = config.model;
  const { stableTools, dir, breakpoints } = config.cache;
  const fetching = { modelsDir, retryConfig, onProgress, logger };
  // First: what is wrong with a tool or a server is not to be told behind a download of gigabytes.
  const tools = config.tools === undefined ? ToolSet.none : await ToolSet.prepare(config.tools);
  const mcp = await McpServers.connect(config.mcpServers, { signal, logger });
  onOpened(() => mcp.close());
  const { path, generationConfig } = await resolveModel(source, {
    ...fetching,
    generationConfig: useHfParams && 'with-model',
    signal,
  });
  const loras = await resolveLoras(config.model.loras, { ...fetching, signal });
  const [model, fingerprint] = await loadModel(path, config);
  onOpened(() => model.close()); // and with it the context
  const renderer = new Renderer(model, chatTemplate);
  if (chatTemplate !== undefined) {
    await renderer.requireMessages(); // the model's own is checked at the first prompt: completions do not need it
  }
  const templates = new Templates(model, renderer, fingerprint, dir ?? undefined, breakpoints);
  const recommended = useHfParams ? await recommendedSampling(model, generationConfig, logger) : {};
  const sampling = mergeSampling(LLAMA_CPP_SAMPLING, recommended, config.sampling);
  await requireSampling(model, sampling);
  const defaults: SessionDefaults = { systemPrompt: config.systemPrompt, tools, sampling };
  if (config.systemPrompt !== undefined || config.tools !== undefined) {
    // Rendered while the context is made; what is wrong with it, the first session says.
    const host = { defaults, stableTools, templates, contextSize: Number.POSITIVE_INFINITY, mcp };
    findTemplate(host, { signal }).catch(() => undefined);
  }
  const { engine, sizes } = await makeEngine(model, config);
  onOpened(() => engine.close());
  const cache = await openCache(model, fingerprint, engine, config);
  onOpened(() => cache.close());
  const lock = new RwLock();
  const checkpoints = new Checkpoints();
  const adapters = new Adapters({ model, engine, cache, lock, onApplied: () => checkpoints.clear() });
  if (loras.length > 0) {
    await adapters.set(loras, signal);
  }
  throwIfAborted(signal);
  const { contextSize } = sizes;
  const debugLogger = config.debug ? logger : undefined;
  const messageEnds = new MessageEnds(model, renderer);
  const services = { model, engine, cache, renderer, messageEnds, contextSize, lock, checkpoints };
  return { ...services, templates, defaults, stableTools, adapters, fetching, path, mcp, debugLogger };
}

/** Makers err too: an option that the sampler refuses is left out, with a warning. */
async function recommendedSampling(
  model: Model,
  generationConfig: unknown,
  logger: Logger | undefined,
): Promise<SamplingOptions> {
  let usable: SamplingOptions = {};
  for (const [name, value] of Object.entries(samplingDefaults(model.metadata(), generationConfig))) {
    try {
      const withIt = { ...usable, [name]: value }; // some go with others only
      await requireSampling(model, withIt);
      usable = withIt;
    } catch (error) {
      logger?.('warn', `Left out \`${name}\` of what the model's makers recommend: ${(error as Error).message}`);
    }
  }
  return usable;
}

/** The model and its fingerprint. */
async function loadModel(path: string, { model: config, onProgress, signal }: AgentConfig): Promise<[Model, string]> {
  const fingerprint = fingerprintModel(path, { signal });
  fingerprint.catch(() => undefined); // a file that cannot be loaded is reported as that, first
  const model = await Model.load({
    path,
    nGpuLayers: config.nGpuLayers,
    useMmap: config.useMmap,
    useMlock: config.useMlock,
    onProgress: (fraction) => onProgress?.({ phase: 'load', fraction }),
    ...(signal && { signal }),
  });
  try {
    return [model, await fingerprint];
  } catch (error) {
    await model.close();
    throw error;
  }
}

/** A context for the model, in the sizes that were asked for, and its engine. */
async function makeEngine(model: Model, config: AgentConfig): Promise<{ engine: Engine; sizes: ContextSizes }> {
  const { signal, maxQueueSize, reproducible } = config;
  const { batchSize, nThreads, nThreadsBatch, kvLayout, keyType, valueType, flashAttention, fullSlidingWindow } =
    config.model;
  const { ropeScaling, ropeFrequencyBase, ropeFrequencyScale } = config.model;
  const sizes = resolveContextSizes(config, model.info.trainContextSize);
  warnOfTrainingLength(model, { ...config.model, contextSize: sizes.contextSize }, config.logger);
  const context = await model.createContext({
    kvCells: sizes.kvCells,
    maxSequences: sizes.maxSequences,
    maxOutputs: sizes.maxSequences,
    batchSize,
    nThreads,
    nThreadsBatch,
    kvLayout,
    keyType,
    valueType,
    flashAttention,
    fullSlidingWindow,
    ropeScaling,
    ...(ropeFrequencyBase !== undefined && { ropeFrequencyBase }),
    ...(ropeFrequencyScale !== undefined && { ropeFrequencyScale }),
    signal,
  });
  const engine = new Engine(context, {
    residentSequences: sizes.residentSequences,
    maxQueueSize,
    maxSavedBytes: config.cache.maxSavedBytes,
    reproducible: reproducible ? await Engine.testReproducible(context, signal) : undefined,
  });
  return { engine, sizes };
}

/** To the logger; if there is none, as a warning of the process. */
function warnOfTrainingLength(model: Model, options: ReachOptions, logger: Logger | undefined): void {
  const warning = trainingLengthWarning(model.info, model.metadata(), options);
  if (warning !== undefined && logger !== undefined) {
    logger('warn', warning);
  } else if (warning !== undefined) {
    process.emitWarning(warning, { code: 'CONTEXT_OVER_TRAINING' });
  }
}

/** The template cache of this engine; its key covers all that changes KV bytes. */
function openCache(
  model: Model,
  fingerprint: string,
  engine: Engine,
  { model: { nGpuLayers }, cache, logger }: AgentConfig,
): Promise<PrefixCache> {
  const components = keyComponents({
    llamaVersion: systemInfo().llamaVersion,
    fingerprint,
    model: model.info,
    metadata: model.metadata(),
    context: engine.context.info,
    reproducible: engine.reproducible
      ? reproducibleComponent({
          microBatchSize: engine.context.info.microBatchSize,
          pieceSize: Engine.chunkSize(engine.context),
          gpuLayers: systemInfo().supportsGpuOffload ? nGpuLayers : 0,
          features: systemInfo().features,
        })
      : undefined,
  });
  return PrefixCache.open({ ...cache, engine, components, logger });
}
