import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { ReplyFormat } from '../native/reply.js';
import type { Sampler, SamplerOptions } from '../native/sampler.js';
import { type Check, checkOptions, type Place } from '../options.js';

/** How tokens are chosen: all that the sampler offers, but for grammars, which tools and `responseFormat` make. */
export type SamplingOptions = Omit<
  SamplerOptions,
  'grammar' | 'grammarLazy' | 'grammarTriggers' | 'preservedTokens' | 'generationPrompt'
>;

const NAMES: Record<keyof SamplingOptions, true> = {
  temperature: true,
  dynamicTemperatureRange: true,
  dynamicTemperatureExponent: true,
  topK: true,
  topP: true,
  minP: true,
  typicalP: true,
  topNSigma: true,
  minKeep: true,
  repeatPenalty: true,
  frequencyPenalty: true,
  presencePenalty: true,
  penaltyLastTokens: true,
  dry: true,
  xtc: true,
  mirostat: true,
  logitBias: true,
  ignoreEos: true,
  seed: true,
};
/** Options of `sampling`, for those who give them beside it. */
export const IN_SAMPLING: Place = { names: Object.keys(NAMES), where: 'in `sampling`' };

const ANYTHING: Check = () => undefined; // values are the sampler's to check: it knows their bounds
const anything = (...names: string[]) => Object.fromEntries(names.map((name) => [name, ANYTHING]));
const CHECKS = anything(...Object.keys(NAMES));
/** Of the options that are objects. */
const NESTED: Readonly<Record<string, Record<string, Check>>> = {
  dry: anything('multiplier', 'base', 'allowedLength', 'penaltyLastTokens', 'sequenceBreakers'),
  xtc: anything('probability', 'threshold'),
  mirostat: anything('version', 'tau', 'eta'),
};

/**
 * Names the nearest option for one that is not known.
 *
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function checkSamplingNames(sampling: unknown): void {
  checkOptions(sampling, CHECKS, '`sampling`', 'INVALID_ARGUMENT');
  for (const [name, checks] of Object.entries(NESTED)) {
    const value = (sampling as Record<string, unknown>)[name];
    if (typeof value === 'object' && value !== null) {
      checkOptions(value, checks, `\`${name}\` in \`sampling\``, 'INVALID_ARGUMENT');
    }
  }
}

/**
 * Tries options at the door, not at the first reply.
 *
 * @throws HeadstartError as {@link Model.createSampler}.
 */
export async function requireSampling(model: Model, sampling: SamplingOptions): Promise<void> {
  checkSamplingNames(sampling);
  if (model.info.vocabulary.type !== 'none') {
    (await model.createSampler(sampling)).close();
  }
}

/** For `checkOptions`. */
export const checkSampling: Check = (value) =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? undefined : 'an object';

const NEED_TEMPERATURE = ['mirostat', 'dynamicTemperatureRange', 'dynamicTemperatureExponent'] as const;

/** What is set later wins, option by option; a temperature of 0 also over what needs one above it. */
export function mergeSampling(...layers: readonly (SamplingOptions | undefined)[]): SamplingOptions {
  const merged: Record<string, unknown> = {};
  for (const layer of layers) {
    if (layer?.temperature === 0) {
      for (const name of NEED_TEMPERATURE) {
        delete merged[name];
      }
    }
    for (const [name, value] of Object.entries(layer ?? {})) {
      if (value !== undefined) {
        merged[name] = value;
      }
    }
  }
  return merged;
}

type Numbers = Record<string, unknown>;

/**
 * What a model's makers recommend: `general.sampling.*` of the GGUF file, and over that the repository's
 * `generation_config.json` where one is given. What neither names stays neutral; without both the likeliest token wins.
 *
 * @param metadata as `Model.metadata()` has it
 * @param generationConfig the parsed file; anything that is no object counts as none
 */
export function samplingDefaults(
  metadata: Readonly<Record<string, string>>,
  generationConfig?: unknown,
): SamplingOptions {
  const fromFile = fromGguf(metadata);
  const isObject = typeof generationConfig === 'object' && generationConfig !== null;
  return mergeSampling(fromFile, isObject ? fromGenerationConfig(generationConfig as Numbers) : undefined);
}

/** The keys of llama.cpp's `LLM_KV_GENERAL_SAMPLING_*`. */
function fromGguf(metadata: Readonly<Record<string, string>>): SamplingOptions {
  const at = (name: string) => finite(metadata[`general.sampling.${name}`]);
  const mirostat = at('mirostat');
  const probability = at('xtc_probability');
  return mergeSampling({
    ...optional('temperature', at('temp')),
    ...optional('topK', at('top_k')),
    ...optional('topP', at('top_p')),
    ...optional('minP', at('min_p')),
    ...optional('penaltyLastTokens', at('penalty_last_n')),
    ...optional('repeatPenalty', at('penalty_repeat')),
    ...(probability ? { xtc: { probability, ...optional('threshold', at('xtc_threshold')) } } : {}),
    ...(mirostat === 1 || mirostat === 2
      ? {
          mirostat: {
            version: mirostat,
            ...optional('tau', at('mirostat_tau')),
            ...optional('eta', at('mirostat_eta')),
          },
        }
      : {}),
  });
}

/** The names of Hugging Face's `GenerationConfig`. `do_sample: false` is the likeliest token. */
function fromGenerationConfig(config: Numbers): SamplingOptions {
  const at = (name: string) => finite(config[name]);
  const repeat = optional('repeatPenalty', at('repetition_penalty'));
  if (config.do_sample === false) {
    return { temperature: 0, ...repeat };
  }
  const sampled = {
    ...optional('temperature', at('temperature')),
    ...optional('topK', at('top_k')),
    ...optional('topP', at('top_p')),
    ...optional('minP', at('min_p')),
    ...optional('typicalP', at('typical_p')),
  };
  const samples = config.do_sample === true || Object.keys(sampled).length > 0;
  return { ...(samples && { temperature: 1 }), ...sampled, ...repeat };
}

function finite(value: unknown): number | undefined {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : undefined;
}

function optional<Name extends string>(name: Name, value: number | undefined): { [key in Name]?: number } {
  return (value === undefined ? {} : { [name]: value }) as { [key in Name]?: number };
}

/**
 * The sampler of one reply; undefined where nothing is to be chosen but the likeliest token.
 *
 * @param text what is there before it: the penalties look back into it
 * @throws HeadstartError `SCHEMA_INVALID` for a grammar that is too large, and as {@link Model.createSampler}.
 */
export async function makeSampler(
  model: Model,
  sampling: SamplingOptions,
  format: Partial<ReplyFormat>,
  text: Int32Array,
): Promise<Sampler | undefined> {
  const { grammar, grammarLazy, grammarTriggers, preservedTokens, generationPrompt } = format;
  const forced = grammar ? { grammar, grammarLazy, grammarTriggers, preservedTokens, generationPrompt } : {};
  const options = mergeSampling(sampling, forced as SamplingOptions);
  if (Object.keys(options).length === 0) {
    return undefined;
  }
  const sampler = await model.createSampler(options).catch((error: unknown) => {
    if (HeadstartError.isInstance(error, 'GRAMMAR_INVALID')) {
      // Nobody wrote it: it comes of a tool's parameters, or of a `responseFormat`.
      throw new HeadstartError(
        'SCHEMA_INVALID',
        `Expected a JSON Schema that a grammar can be made of: ${error.message}`,
        {
          cause: error,
        },
      );
    }
    throw error;
  });
  const looksBack = lookBack(sampling);
  if (looksBack > 0) {
    await sampler.accept(text.slice(-looksBack));
  }
  return sampler;
}

const LOOK_BACK = 64;

/** How many tokens of the text before a reply the penalties see. */
function lookBack({ repeatPenalty = 1, frequencyPenalty, presencePenalty, penaltyLastTokens, dry }: SamplingOptions) {
  const penalties = repeatPenalty !== 1 || frequencyPenalty || presencePenalty ? (penaltyLastTokens ?? LOOK_BACK) : 0;
  return Math.max(penalties, dry?.multiplier ? (dry.penaltyLastTokens ?? LOOK_BACK) : 0);
}
