// Creates the parts of an agent from its options, and closes them.

import { basename } from 'node:path';
import { throwIfAborted } from '../abort.js';
import { Adapters } from '../cache/adapters.js';
import { keyComponents, reproducibleComponent } from '../cache/key.js';
import { PrefixCache } from '../cache/prefix-cache.js';
import { type ChatDefaults, type ChatHost, templateSource } from '../chat/chat-host.js';
import { Engine } from '../engine/engine.js';
import { chunkSize } from '../engine/reproducible/reproducibility.js';
import { RwLock } from '../engine/rw-lock.js';
import { StateStore } from '../engine/state-store.js';
import { SampledReplies } from '../generate/sampled-replies.js';
import { mergeSampling, requireSampling, samplingDefaults } from '../generate/sampling.js';
import type { Logger } from '../logger.js';
import { fingerprintModel } from '../model/fingerprint.js';
import { type AttentionChoice, chooseAttention } from '../model/flash-attention.js';
import { resolveLoras } from '../model/lora-files.js';
import { type ResolveModelOptions, resolveModel } from '../model/resolve-model.js';
import { type ReachOptions, trainingLengthWarning } from '../model/training-length.js';
import { Model } from '../native/model.js';
import { systemInfo } from '../native/system.js';
import { MessageEnds } from '../prompt/message-end.js';
import { Renderer } from '../prompt/renderer.js';
import { Templates } from '../prompt/templates.js';
import { LLAMA_CPP_SAMPLING, type SamplingOptions } from '../sampling-options.js';
import { McpServers } from '../tools/mcp/mcp-servers.js';
import { ToolSet } from '../tools/tool.js';
import { type AgentConfig, type ContextSizes, resolveContextSizes } from './agent-config.js';

/** All parts, open. */
export interface AgentParts extends Omit<ChatHost, 'requireOpen'> {
  adapters: Adapters;
  /** The name of the model for clients. */
  id: string;
  /** The model's file. */
  path: string;
  /** Receives a line for each session, turn and tool call. */
  debugLogger: Logger | undefined;
  /** Options for downloads of missing files. */
  downloads: Omit<ResolveModelOptions, 'signal'>;
}

/**
 * Opens all parts. If one fails, the parts opened so far are closed.
 *
 * @throws HeadstartError as `AgentServer.initialize`.
 */
export async function openParts(config: AgentConfig): Promise<AgentParts> {
  const opened: (() => Promise<void>)[] = [];
  try {
    return await openEach(config, (close) => opened.unshift(close));
  } catch (error) {
    await closeAll(opened).catch(() => undefined); // the first error is reported
    throw error;
  }
}

/**
 * Closes all parts, one after another, even if some of them fail.
 *
 * @throws the first error
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
  const { modelsDir, retryConfig } = config.model;
  const { stableTools } = config.cache;
  const downloads = { modelsDir, retryConfig, onProgress, logger };
  // Tools and servers are checked first, because a download of gigabytes may follow.
  const tools = config.tools === undefined ? ToolSet.none : await ToolSet.prepare(config.tools);
  const mcp = await McpServers.connect(config.mcpServers, { signal, logger });
  onOpened(() => mcp.close());
  const { path, generationConfig, loras } = await fetchFiles(config, downloads);
  const [model, fingerprint] = await loadModel(path, config);
  onOpened(() => model.close()); // also closes the context
  const { renderer, templates } = await openTemplates(model, fingerprint, config);
  const sampling = await defaultSampling(model, generationConfig, config);
  const defaults: ChatDefaults = { systemPrompt: config.systemPrompt, tools, sampling };
  if (config.systemPrompt !== undefined || config.tools !== undefined) {
    // The template is rendered while the context is created. The first session reports an error in it.
    const finding = templateSource({ defaults, stableTools, mcp }, { signal });
    finding.then(({ source }) => templates.find(source)).catch(() => undefined);
  }
  const { engine, sizes } = await makeEngine(model, config);
  onOpened(() => engine.close());
  const cache = await openCache(model, fingerprint, engine, config);
  onOpened(() => cache.close());
  const lock = new RwLock();
  const adapters = new Adapters({ model, engine, cache, lock });
  if (loras.length > 0) {
    await adapters.set(loras, signal);
  }
  throwIfAborted(signal);
  const { contextSize } = sizes;
  const debugLogger = config.debug ? logger : undefined;
  const messageEnds = new MessageEnds(model, renderer);
  const sampledReplies = new SampledReplies(model, renderer, cache.conversations);
  cache.onForgotten = (isForgotten) => sampledReplies.forget(isForgotten);
  if (cache.conversations !== undefined) {
    cache.conversations.replies = sampledReplies;
  }
  const services = { model, engine, cache, renderer, messageEnds, sampledReplies, contextSize, lock };
  const id = config.model.id ?? basename(path, '.gguf').replace(/-\d{5}-of-\d{5}$/, '');
  return { ...services, templates, defaults, stableTools, adapters, downloads, id, path, mcp, debugLogger };
}

/** Downloads the files of the model and of its adapters that are not on this machine. */
async function fetchFiles({ model, signal }: AgentConfig, downloads: AgentParts['downloads']) {
  const generationConfig = model.useHfParams && 'with-model';
  const resolved = await resolveModel(model.source, { ...downloads, generationConfig, signal });
  return { ...resolved, loras: await resolveLoras(model.loras, { ...downloads, signal }) };
}

async function openTemplates(model: Model, fingerprint: string, { model: { chatTemplate }, cache }: AgentConfig) {
  const renderer = new Renderer(model, chatTemplate);
  if (chatTemplate !== undefined) {
    // The model's own chat template is checked at the first prompt, because completions do not need it.
    await renderer.requireMessages();
  }
  return {
    renderer,
    templates: new Templates(model, renderer, fingerprint, cache.dir ?? undefined, cache.breakpoints),
  };
}

/**
 * The sampling options of all requests: llama.cpp's defaults, overridden by the recommended options and then by the
 * agent's options.
 */
async function defaultSampling(
  model: Model,
  generationConfig: unknown,
  { model: { useHfParams }, sampling, logger }: AgentConfig,
): Promise<SamplingOptions> {
  const recommended = useHfParams ? await recommendedSampling(model, generationConfig, logger) : {};
  const merged = mergeSampling(LLAMA_CPP_SAMPLING, recommended, sampling);
  await requireSampling(model, merged);
  return merged;
}

/** Recommended options may be invalid: an option that the sampler refuses is left out, with a warning. */
async function recommendedSampling(
  model: Model,
  generationConfig: unknown,
  logger: Logger | undefined,
): Promise<SamplingOptions> {
  let usable: SamplingOptions = {};
  for (const [name, value] of Object.entries(samplingDefaults(model.metadata(), generationConfig))) {
    try {
      const withIt = { ...usable, [name]: value }; // some options are valid only together with other options
      await requireSampling(model, withIt);
      usable = withIt;
    } catch (error) {
      logger?.('warn', `Ignored the recommended sampling option \`${name}\`: ${(error as Error).message}`);
    }
  }
  return usable;
}

/** The model and its fingerprint. */
async function loadModel(path: string, { model: config, onProgress, signal }: AgentConfig): Promise<[Model, string]> {
  const fingerprint = fingerprintModel(path, { signal });
  fingerprint.catch(() => undefined); // loading the model reports an invalid file
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

/** Creates a context in the configured sizes, and its engine. */
async function makeEngine(model: Model, config: AgentConfig): Promise<{ engine: Engine; sizes: ContextSizes }> {
  const { signal, maxQueueSize, reproducible } = config;
  const { batchSize, nThreads, nThreadsBatch, adaptsThreads, kvLayout, keyType, valueType, fullSlidingWindow } =
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
    ...attentionOf(model, config, sizes),
    fullSlidingWindow,
    ropeScaling,
    ...(ropeFrequencyBase !== undefined && { ropeFrequencyBase }),
    ...(ropeFrequencyScale !== undefined && { ropeFrequencyScale }),
    signal,
  });
  const engine = new Engine(context, {
    residentSequences: sizes.residentSequences,
    maxQueueSize,
    states: new StateStore(config.cache.maxMemoryBytes),
    adaptsThreads,
    reproducible: reproducible ? await Engine.testReproducible(context, signal) : undefined,
  });
  return { engine, sizes };
}

/** Resolves `flashAttention` before the context is created, because the key of cached states contains the choice. */
function attentionOf(model: Model, { model: config }: AgentConfig, { kvCells }: ContextSizes): AttentionChoice {
  const { flashAttention, valueType, kvLayout, nSeqMax, batchSize } = config;
  if (flashAttention !== 'auto') {
    return { flashAttention };
  }
  return chooseAttention({
    usesGpu: usedGpuLayers(config.nGpuLayers) !== 0,
    hybrid: model.info.hybrid,
    valueType,
    kvLayout,
    cells: kvLayout === 'unified' ? kvCells : Math.ceil(kvCells / nSeqMax),
    sequences: nSeqMax,
    heads: model.info.heads,
    batchSize,
  });
}

/** The number of layers on a GPU; -1 means all layers. */
function usedGpuLayers(nGpuLayers: number): number {
  return systemInfo().supportsGpuOffload ? nGpuLayers : 0;
}

/** Warns the logger or, if there is none, emits a process warning. */
function warnOfTrainingLength(model: Model, options: ReachOptions, logger: Logger | undefined): void {
  const warning = trainingLengthWarning(model.info, model.metadata(), options);
  if (warning !== undefined && logger !== undefined) {
    logger('warn', warning);
  } else if (warning !== undefined) {
    process.emitWarning(warning, { code: 'CONTEXT_OVER_TRAINING' });
  }
}

/** Opens the template cache of this engine. The keys of its entries cover everything that changes KV bytes. */
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
          chunkSize: chunkSize(engine.context),
          gpuLayers: usedGpuLayers(nGpuLayers),
          features: systemInfo().features,
        })
      : undefined,
  });
  return PrefixCache.open({ ...cache, engine, components, logger });
}
