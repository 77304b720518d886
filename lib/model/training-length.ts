// The training length of a model, and the RoPE options for longer contexts.
import { HeadstartError } from '../errors.js';
import type { RopeScaling } from '../native/context.js';
import type { ModelInfo } from '../native/model-info.js';

/** The options that determine how many positions a context can use. */
export interface ReachOptions {
  contextSize: number;
  ropeScaling?: RopeScaling | undefined;
  ropeFrequencyBase?: number | undefined;
  ropeFrequencyScale?: number | undefined;
}

type KnownModel = Pick<ModelInfo, 'architecture' | 'trainContextSize' | 'ropeType'>;

/**
 * Architectures that have a learned vector for each position. A position beyond the training length has no vector, and
 * llama.cpp ends the process.
 */
const LEARNED_POSITIONS = ['gpt2', 'starcoder'];

/**
 * Warns if a context is larger than the model's training length.
 *
 * @param metadata the metadata of the model file
 * @returns a warning that names the options to set, or undefined if the context is not too large
 * @throws HeadstartError `CONFIG_INVALID` if the model cannot use positions beyond its training length.
 */
export function trainingLengthWarning(
  model: KnownModel,
  metadata: Readonly<Record<string, string>>,
  options: ReachOptions,
): string | undefined {
  const { contextSize, ropeFrequencyBase } = options;
  const reach = reachOf(model, metadata, options);
  if (model.trainContextSize === 0 || contextSize <= reach) {
    return undefined;
  }
  const size = `\`contextSize\` is ${contextSize} tokens, and the model was trained for ${Math.floor(reach)}`;
  if (LEARNED_POSITIONS.includes(model.architecture)) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `${size}. The model has no positions beyond its training length. Lower \`contextSize\``,
    );
  }
  if (ropeFrequencyBase !== undefined) {
    return undefined; // the effect of another base cannot be computed
  }
  return `${size}. Replies to longer conversations may be nonsense. Lower \`contextSize\`${otherwise(model, metadata, contextSize)}`;
}

/** Names the options for a larger context. Undefined if the model's positions cannot be scaled. */
export function ropeAdvice(
  model: KnownModel,
  metadata: Readonly<Record<string, string>>,
  contextSize: number | 'contextSize',
): string | undefined {
  return model.ropeType === -1
    ? undefined
    : `ropeScaling: 'yarn', ropeFrequencyScale: ${originalLength(model, metadata)} / ${contextSize}`;
}

function otherwise(model: KnownModel, metadata: Readonly<Record<string, string>>, contextSize: number): string {
  const advice = ropeAdvice(model, metadata, contextSize);
  return advice === undefined ? '' : `, or set { ${advice} }`;
}

/**
 * The number of tokens that the model can handle. If RoPE scaling is on, this is more than the original training
 * length.
 */
function reachOf(
  model: KnownModel,
  metadata: Readonly<Record<string, string>>,
  { ropeScaling, ropeFrequencyScale }: ReachOptions,
): number {
  const original = originalLength(model, metadata);
  if (ropeScaling === 'none') {
    return original;
  }
  if (ropeFrequencyScale !== undefined && model.ropeType !== -1) {
    return Math.round(original / ropeFrequencyScale);
  }
  return Math.max(
    model.trainContextSize,
    original * positive(metadata[`${model.architecture}.rope.scaling.factor`], 1),
  );
}

/** The training length before RoPE scaling, in tokens. */
function originalLength(model: KnownModel, metadata: Readonly<Record<string, string>>): number {
  const scaling = `${model.architecture}.rope.scaling`;
  return positive(metadata[`${scaling}.original_context_length`], model.trainContextSize);
}

function positive(text: string | undefined, fallback: number): number {
  const value = Number(text);
  return Number.isFinite(value) && value > 0 ? value : fallback;
}
