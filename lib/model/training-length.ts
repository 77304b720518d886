// How many tokens a model was made for, and what to set for more.
import { HeadstartError } from '../errors.js';
import type { RopeScaling } from '../native/context.js';
import type { ModelInfo } from '../native/model.js';

/** The options that decide how far a context reaches. */
export interface ReachOptions {
  contextSize: number;
  ropeScaling?: RopeScaling | undefined;
  ropeFrequencyBase?: number | undefined;
  ropeFrequencyScale?: number | undefined;
}

type KnownModel = Pick<ModelInfo, 'architecture' | 'trainContextSize' | 'ropeType'>;

/** Architectures that look up a learned vector for each position: none exists beyond the training length, and llama.cpp aborts. */
const LEARNED_POSITIONS = ['gpt2', 'starcoder'];

/**
 * Whether a context is larger than the model was made for.
 *
 * @param metadata of the model file
 * @returns a warning that says what to set
 * @throws HeadstartError `CONFIG_INVALID` for a model that has no positions beyond its training length.
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
  const size = `\`contextSize\` is ${contextSize} tokens, and the model was made for ${Math.floor(reach)}`;
  if (LEARNED_POSITIONS.includes(model.architecture)) {
    throw new HeadstartError('CONFIG_INVALID', `${size}, beyond which it has no positions: lower \`contextSize\``);
  }
  if (ropeFrequencyBase !== undefined) {
    return undefined; // how far another base reaches, only a test of the model can tell
  }
  return `${size}: replies beyond that may turn to noise. Lower \`contextSize\`${otherwise(model, metadata, contextSize)}`;
}

/** What to set for a larger context; undefined if the model's positions cannot be scaled. */
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

/** Tokens that the model handles: its training length, or as far as RoPE scaling stretches the original one. */
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

/** Tokens that the model was trained with before its RoPE was scaled. */
function originalLength(model: KnownModel, metadata: Readonly<Record<string, string>>): number {
  const scaling = `${model.architecture}.rope.scaling`;
  return positive(metadata[`${scaling}.original_context_length`], model.trainContextSize);
}

function positive(text: string | undefined, fallback: number): number {
  const value = Number(text);
  return Number.isFinite(value) && value > 0 ? value : fallback;
}
