import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { ReplyFormat } from '../native/reply.js';
import type { Sampler } from '../native/sampler.js';
import type { Place } from '../options.js';
import { SAMPLING, type SamplingOptions } from '../sampling-options.js';

/** The hint for sampling options that are passed outside of `sampling`. */
export const IN_SAMPLING: Place = { names: Object.keys(SAMPLING), where: 'in `sampling`' };

/**
 * Checks sampling options by creating a sampler, because some checks need the vocabulary. The purpose is to report
 * wrong options when they are passed, and not only at the first reply.
 *
 * @throws HeadstartError as {@link Model.createSampler}.
 */
export async function requireSampling(model: Model, sampling: SamplingOptions): Promise<void> {
  if (model.info.vocabulary.type !== 'none') {
    (await model.createSampler(sampling)).close();
  }
}

/** Options of random sampling. Some of them need a temperature above 0. */
const RANDOM = ['mirostat', 'dynamicTemperatureRange', 'dynamicTemperatureExponent', 'xtc'] as const;

/**
 * Merges options. An option of a later layer overrides the same option of earlier layers. If a layer
 * sets the temperature to 0, the options for random sampling in earlier layers are removed.
 */
export function mergeSampling(...layers: readonly (SamplingOptions | undefined)[]): SamplingOptions {
  const merged: Record<string, unknown> = {};
  for (const layer of layers) {
    if (layer?.temperature === 0) {
      for (const name of RANDOM) {
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
 * The sampling options that a model's makers recommend: `general.sampling.*` of the GGUF file, overridden by the
 * repository's `generation_config.json` if there is one. An option that is in neither file is absent from the result,
 * and an agent then uses llama.cpp's default.
 *
 * @param metadata the result of `Model.metadata()`
 * @param generationConfig the parsed `generation_config.json`. A value that is not an object is ignored.
 */
export function samplingDefaults(
  metadata: Readonly<Record<string, string>>,
  generationConfig?: unknown,
): SamplingOptions {
  const fromFile = fromGguf(metadata);
  const isObject = typeof generationConfig === 'object' && generationConfig !== null;
  return mergeSampling(fromFile, isObject ? fromGenerationConfig(generationConfig as Numbers) : undefined);
}

/** Reads the keys that llama.cpp calls `LLM_KV_GENERAL_SAMPLING_*`. */
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

/** Reads the fields of Hugging Face's `GenerationConfig`. `do_sample: false` means greedy sampling. */
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
 * Creates the sampler of one reply. Resolves with undefined for greedy sampling, which needs no sampler.
 *
 * @param text the tokens in front of the reply. Penalties also apply to the newest of these tokens.
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
  if (isGreedy(options)) {
    return undefined;
  }
  const sampler = await model.createSampler(options).catch((error: unknown) => {
    if (HeadstartError.isInstance(error, 'GRAMMAR_INVALID')) {
      // The grammar was made from the schema of a tool or of `responseFormat`.
      throw new HeadstartError(
        'SCHEMA_INVALID',
        `Expected a JSON Schema that can be converted to a grammar. Simplify the schema: ${error.message}`,
        {
          cause: error,
        },
      );
    }
    throw error;
  });
  const count = lookBackOf(sampling);
  if (count > 0) {
    await sampler.accept(text.slice(-count));
  }
  return sampler;
}

/** Options that never remove the most likely token. Therefore they have no effect on greedy sampling. */
const KEEP_THE_MOST_LIKELY: ReadonlySet<string> = new Set([
  'temperature',
  'topK',
  'topP',
  'minP',
  'topNSigma',
  'minKeep',
  'seed',
]);

/** Whether these options choose the most likely token, as a decode without a sampler does. */
function isGreedy({ temperature = 0, ...others }: SamplingOptions): boolean {
  return temperature === 0 && Object.keys(others).every((name) => KEEP_THE_MOST_LIKELY.has(name));
}

/** llama.cpp's default for penalties, in tokens. */
const LOOK_BACK = 64;

/** The number of tokens in front of the reply to which penalties apply. */
function lookBackOf({ repeatPenalty = 1, frequencyPenalty, presencePenalty, penaltyLastTokens, dry }: SamplingOptions) {
  const penalties = repeatPenalty !== 1 || frequencyPenalty || presencePenalty ? (penaltyLastTokens ?? LOOK_BACK) : 0;
  return Math.max(penalties, dry?.multiplier ? (dry.penaltyLastTokens ?? LOOK_BACK) : 0);
}
