// The sampling options. Agents, sessions, turns and the `Sampler` of llama-headstart/native have them.
import { isObject } from './json.js';
import { boolean, type Group, group, integer, list, number, type OptionsOf, text, value } from './option-types.js';

const MAX_HISTORY = 2 ** 20;

const DRY = {
  /** Factor of the penalty, 0 (off) to 1e6. @default 0 */
  multiplier: number(0, 1e6).optional(),
  /** Base of the penalty, 1 to 1e6. The penalty is `multiplier * base ** (length - allowedLength)`. @default 1.75 */
  base: number(1, 1e6).optional(),
  /** Longest repeated run, in tokens, that has no penalty. 1 or more. @default 2 */
  allowedLength: integer(1, MAX_HISTORY).optional(),
  /** Number of newest tokens to search for repeated runs, up to 2^20. @default 64 */
  penaltyLastTokens: integer(0, MAX_HISTORY).optional(),
  /** Up to 64 texts that end a run, of 1 to 40 bytes each. @default ['\n', ':', '"', '*'] */
  sequenceBreakers: list(text(), 'an array of texts').optional(),
};

/** "Don't repeat yourself": a penalty that grows with the length of a repeated run of tokens. */
export interface DryOptions extends OptionsOf<typeof DRY> {}

export const DRY_OPTIONS: Group<DryOptions> = group(DRY);

const XTC = {
  /** Probability that XTC applies to a token, 0 (never) to 1. @default 0 */
  probability: number(0, 1).optional(),
  /** A token counts as likely from this probability on, 0 to 1. Above 0.5, XTC has no effect. @default 0.1 */
  threshold: number(0, 1).optional(),
};

/** "Exclude top choices": sometimes removes all likely tokens except the least likely of them. */
export interface XtcOptions extends OptionsOf<typeof XTC> {}

export const XTC_OPTIONS: Group<XtcOptions> = group(XTC);

const MIROSTAT = {
  /** Version of the algorithm: 1 or 2. 0 turns Mirostat off. */
  version: value<0 | 1 | 2>((input) => [0, 1, 2].includes(input as number), '0, 1 or 2'),
  /** Target surprise in bits, 0 to 100. @default 5 */
  tau: number(0, 100).optional(),
  /** Learning rate, 0 to 1. @default 0.1 */
  eta: number(0, 1).optional(),
};

/** Keeps the surprise of the text near a target. Replaces all truncation, XTC and penalties. */
export interface MirostatOptions extends OptionsOf<typeof MIROSTAT> {}

export const MIROSTAT_OPTIONS: Group<MirostatOptions> = group(MIROSTAT);

/** These schemas do not check texts and token ids. The sampler does that, because it knows the vocabulary. */
export const SAMPLING = {
  /** 0 to 100. Below 0.001 the most likely token is always chosen. @default 0.8 (0 in a `Sampler`) */
  temperature: number(0, 100).optional(),
  /** Largest change of the temperature by the entropy, up or down. Must be less than `temperature`. @default 0 */
  dynamicTemperatureRange: number(0, 100).optional(),
  /** Exponent of the dynamic temperature, 0.01 to 100. @default 1 */
  dynamicTemperatureExponent: number(0.01, 100).optional(),
  /** Keep the k most likely tokens; 0 keeps all. @default 40 (0 in a `Sampler`) */
  topK: integer(0, 2 ** 31 - 1).optional(),
  /** Keep the most likely tokens that together have this probability, 0 to 1. @default 0.95 (1 in a `Sampler`) */
  topP: number(0, 1).optional(),
  /**
   * Keep tokens with at least this share of the most likely token's probability, 0 to 1.
   * @default 0.05 (0 in a `Sampler`)
   */
  minP: number(0, 1).optional(),
  /** Locally typical sampling: keep the most typical tokens that together have this probability, 0 to 1. @default 1 */
  typicalP: number(0, 1).optional(),
  /** Keep logits within n standard deviations of the highest, 0 (off) to 100. @default 0 */
  topNSigma: number(0, 100).optional(),
  /** Smallest number of tokens that truncation keeps. @default 0 */
  minKeep: integer(0, MAX_HISTORY).optional(),
  /** Divides positive logits of recent tokens by this value and multiplies negative ones, 0.01 to 100. @default 1 */
  repeatPenalty: number(0.01, 100).optional(),
  /** Value to subtract from a token's logit for each recent occurrence, -100 to 100. @default 0 */
  frequencyPenalty: number(-100, 100).optional(),
  /** Value to subtract once from the logit of each recent token, -100 to 100. @default 0 */
  presencePenalty: number(-100, 100).optional(),
  /**
   * Number of newest tokens that count as recent for `repeatPenalty`, `frequencyPenalty` and `presencePenalty`, up to
   * 2^20. @default 64
   */
  penaltyLastTokens: integer(0, MAX_HISTORY).optional(),
  /** Penalizes repeated runs of tokens. @default off */
  dry: DRY_OPTIONS.optional(),
  /** Removes the most likely tokens with some probability. @default off */
  xtc: XTC_OPTIONS.optional(),
  /** Keeps the surprise of the text near a target. Needs a `temperature` above 0. @default off */
  mirostat: MIROSTAT_OPTIONS.optional(),
  /** Values to add to logits, by token id: -1e6 to 1e6, or -Infinity to exclude a token. @default none */
  logitBias: value<Readonly<Record<number, number>> | ReadonlyMap<number, number>>(
    isObject,
    'an object or a Map of numbers by token id',
  ).optional(),
  /** Never choose a token that ends generation. @default false */
  ignoreEos: boolean().optional(),
  /** 0 to 4294967294. With the same seed, the same logits lead to the same tokens. @default a random seed */
  seed: integer(0, 2 ** 32 - 2).optional(),
};

/**
 * How tokens are chosen. The steps run in llama.cpp's order: bias, penalties, DRY, top-n-sigma, top-k, typical, top-p,
 * min-p, XTC, temperature, choice.
 */
export interface SamplingOptions extends OptionsOf<typeof SAMPLING> {}

/** The defaults of llama.cpp's own programs (`common_params_sampling`), without those that have no effect. */
export const LLAMA_CPP_SAMPLING: Readonly<SamplingOptions> = Object.freeze({
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
});

export const SAMPLING_OPTIONS: Group<SamplingOptions> = group(SAMPLING);
