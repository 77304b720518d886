// What an agent is made of: each part from its options.
import { keyComponents, reproducibleComponent } from './cache/key.js';
import { TemplateCache } from './cache/template-cache.js';
import { type ContextSizes, type ResolvedModelConfig, resolveContextSizes } from './config.js';
import { Engine } from './engine/engine.js';
import { fingerprintModel } from './model/fingerprint.js';
import type { OnModelProgress } from './model/progress.js';
import type { Logger } from './native/log.js';
import { Model } from './native/model.js';
import { systemInfo } from './native/system.js';

/** The model and its fingerprint. */
export async function loadModel(
  path: string,
  config: ResolvedModelConfig,
  options: { onProgress?: OnModelProgress; signal?: AbortSignal },
): Promise<[Model, string]> {
  const fingerprint = fingerprintModel(path, { signal: options.signal });
  fingerprint.catch(() => undefined); // a file that cannot be loaded is reported as that, first
  const model = await Model.load({
    path,
    gpuLayers: config.nGpuLayers,
    useMmap: config.useMmap,
    useMlock: config.useMlock,
    onProgress: (fraction) => options.onProgress?.({ phase: 'load', fraction }),
    ...(options.signal && { signal: options.signal }),
  });
  try {
    return [model, await fingerprint];
  } catch (error) {
    await model.close();
    throw error;
  }
}

/** A context for the model, in the sizes that were asked for, and its engine. */
export async function makeEngine(
  model: Model,
  config: ResolvedModelConfig,
): Promise<{ engine: Engine; sizes: ContextSizes }> {
  const sizes = resolveContextSizes(config, model.info.trainContextSize);
  const context = await model.createContext({
    kvCells: sizes.kvCells,
    maxSequences: sizes.maxSequences,
    maxOutputs: sizes.maxSequences,
    batchSize: config.batchSize,
    threads: config.nThreads,
    batchThreads: config.nThreadsBatch,
    unified: config.kvLayout === 'unified',
    keyType: config.keyType,
    valueType: config.valueType,
    flashAttention: config.flashAttention,
    fullSlidingWindow: config.fullSlidingWindow,
  });
  const engine = new Engine(context, {
    residentSequences: sizes.residentSequences,
    maxQueueSize: config.maxQueueSize,
    maxSavedBytes: config.maxSavedBytes,
    reproducible: config.reproducible ? await Engine.reproducible(context) : undefined,
  });
  return { engine, sizes };
}

/** The template cache of this engine; its key covers all that changes KV bytes. */
export function openCache(
  model: Model,
  fingerprint: string,
  engine: Engine,
  config: ResolvedModelConfig,
  logger: Logger | undefined,
): Promise<TemplateCache> {
  const components = keyComponents({
    llamaVersion: systemInfo().llamaVersion,
    fingerprint,
    model: model.info,
    metadata: model.metadata(),
    context: engine.context.info,
    reproducible: engine.exact
      ? reproducibleComponent({
          microBatchSize: engine.context.info.microBatchSize,
          pieceSize: Engine.pieceSize(engine.context),
          gpuLayers: systemInfo().supportsGpuOffload ? config.nGpuLayers : 0,
          features: systemInfo().features,
        })
      : undefined,
  });
  return TemplateCache.open({
    engine,
    components,
    directory: config.cacheDir ?? undefined,
    allowSharedDirectory: config.allowSharedDirectory,
    maxMemoryBytes: config.maxMemoryBytes,
    maxResidentCells: config.maxResidentCells,
    minFreeDiskBytes: config.minFreeDiskBytes,
    maxBytes: config.maxBytes,
    maxEntries: config.maxEntries,
    maxAgeMs: config.maxAgeMs,
    minTokens: config.minTokens,
    breakEven: config.breakEven,
    reuse: config.reuse,
    logger,
  });
}
