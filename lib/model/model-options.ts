// The options of a model and its context.

import type { CacheType, KvLayout, RopeScaling } from '../native/context.js';
import type { Gpu } from '../native/loader.js';
import {
  boolean,
  type Group,
  group,
  integer,
  number,
  type OptionsOf,
  oneOf,
  orAuto,
  type ResolvedOf,
  text,
  value,
} from '../option-types.js';
import { LORAS } from './lora-files.js';
import { RETRY_CONFIG } from './retry.js';
import type { ModelSourceInput } from './source.js';

const GPUS: readonly unknown[] = ['auto', 'cuda', 'metal', 'vulkan', false] satisfies Gpu[];

const cacheType = () =>
  (oneOf('f32', 'f16', 'bf16', 'q8_0', 'q5_1', 'q5_0', 'q4_1', 'q4_0', 'iq4_nl') as Group<CacheType>).default('f16');

export const MODEL = {
  /**
   * The source of the model: the path of a GGUF file or of a folder, `hf:owner/name:QUANTIZATION`, an address, or a
   * {@link ModelSource}.
   */
  source: value<ModelSourceInput>(
    (input) => input !== undefined, // parseModelSource checks the rest
    'a path, "hf:owner/name", or an address',
  ),
  /**
   * The name of the model for clients, for example of an HTTP server. @default the name of the file, without `.gguf`
   * and without the number of its part
   */
  id: text().optional(),
  /** Directory for downloaded models. @default `llama-headstart/models` in the user's cache directory */
  modelsDir: text().optional(),
  /** Retries of failed downloads. @default 3 times, after 1, 2 and 4 seconds */
  retryConfig: RETRY_CONFIG.prefault({}),
  /**
   * Use the sampling options that the model's makers recommend, unless a request sets them. The recommendations come
   * from the GGUF file's metadata and from a `generation_config.json` in the same directory. That file is downloaded
   * together with a Hub model, never alone. `false` uses the defaults of llama.cpp. @default true
   */
  useHfParams: boolean().default(true),
  /**
   * A chat template that replaces the model's own: the text of a Jinja template, not its path or name. Use only
   * templates that you trust, because a template is a program and nothing limits its time or memory. @default the
   * model's own
   */
  chatTemplate: text().optional(),
  /** LoRA adapters, applied in this order. @default none */
  loras: LORAS.default([]),
  /**
   * Maximum number of tokens that one session may hold. A value above the model's training length causes a warning
   * (`CONTEXT_OVER_TRAINING`): see `ropeScaling`. @default the smaller of the model's training length and 8,192 (split:
   * 4,096)
   */
  contextSize: integer(1).optional(),
  /**
   * How positions beyond the training length are computed. `yarn` and `linear` interpolate and need
   * `ropeFrequencyScale`. `none` ignores the scaling that the model file asks for. `model` follows the model file.
   * @default 'model'
   */
  ropeScaling: (oneOf('model', 'none', 'linear', 'yarn') as Group<RopeScaling>).default('model'),
  /** RoPE frequency scale: the training length divided by the wanted length. @default the model's own */
  ropeFrequencyScale: number(1e-6, 1).optional(),
  /** RoPE base frequency. @default the model's own */
  ropeFrequencyBase: number(1, 1e12).optional(),
  /**
   * Number of cells in the KV cache for all sessions together. Each token needs one cell.
   * @default 2 x contextSize when unified, nSeqMax x contextSize when split
   */
  kvCells: integer(1).optional(),
  /** Maximum number of sessions that decode at the same time. Any number of sessions may be open. @default 8 */
  nSeqMax: integer(1, 256).default(8),
  /** Maximum number of tokens in one decode. @default 512 */
  batchSize: integer(1, 2 ** 20).default(512),
  /**
   * Threads for batches of one token. `'auto'` adapts the threads for all batches to the load of the machine, from one
   * thread to the number of cores. With flash attention, the number of threads changes the last digits of logits.
   * `'auto'` cannot be combined with `nThreadsBatch` or `reproducible`. @default the number of cores
   */
  nThreads: orAuto(integer(1, 512)).optional(),
  /** Threads for larger batches, such as prompts. @default nThreads */
  nThreadsBatch: integer(1, 512).optional(),
  /**
   * `unified`: all sessions share one KV cache. `split`: each session has a separate part (stream) of the KV cache.
   * @default 'unified', with `reproducible` 'split'
   */
  kvLayout: (oneOf('unified', 'split') as Group<KvLayout>).optional(),
  /** Element type of the K cache. @default 'f16' */
  keyType: cacheType(),
  /** Element type of the V cache. Quantized types need flash attention. @default 'f16' */
  valueType: cacheType(),
  /**
   * Compute attention without storing the whole attention matrix. Cached templates can be used only with the setting
   * that they were computed with. `'auto'` is true with a GPU, with a hybrid model, with a quantized V cache, and if
   * the matrix would need too much memory. Otherwise it is false, because flash attention slows down short messages on
   * the CPU.
   * @default 'auto', with `reproducible` false
   */
  flashAttention: orAuto(boolean()).optional(),
  /**
   * Keep all cells of sliding-window layers, so that conversations can be trimmed as long as they stay in the KV cache.
   * Cannot be combined with `reproducible`. @default false
   */
  fullSlidingWindow: boolean().default(false),
  /**
   * The processor to compute on. `'auto'` is the GPU that a build or an installed package supports, else the CPU.
   * `false` is the CPU. All agents of a process use the same processor. The environment variable
   * `LLAMA_HEADSTART_VARIANT` overrides this option. @default 'auto'
   */
  gpu: value<Gpu>((input) => GPUS.includes(input), "one of 'auto', 'cuda', 'metal', 'vulkan', or false").default(
    'auto',
  ),
  /** Number of layers on the GPU, if there is a GPU. -1 means all layers. @default -1 */
  nGpuLayers: integer(-1).default(-1),
  /** Map the model file into memory instead of reading it. @default true */
  useMmap: boolean().default(true),
  /** Lock the model in memory, so that the system cannot swap it out. @default false */
  useMlock: boolean().default(false),
  /** The specification's name for `dir` of `cache`. @default `dir` of `cache` */
  cacheDir: value<string | null>(
    (input) => input === null || (typeof input === 'string' && input !== ''),
    'a path or null',
  ).optional(),
  /** The specification's name for `debug` of the agent. @default `debug` of the agent */
  debug: boolean().optional(),
};

/** A model and its context. */
export interface ModelConfig extends OptionsOf<typeof MODEL> {}
export type ParsedModelConfig = ResolvedOf<typeof MODEL>;

export const MODEL_OPTIONS = group(MODEL);
