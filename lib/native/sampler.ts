import { HeadstartError } from '../errors.js';
import { addon, type RawAbortFlag, type RawModel, type RawSampler } from './addon.js';

/** What starts a lazy grammar. */
export type GrammarTrigger =
  /** The text `value`, anywhere in the reply. */
  | {
      type: 'word';
      /** The text. */
      value: string;
    }
  /** A regular expression (ECMAScript), searched in the reply; the grammar begins at its first group, or at the match. */
  | {
      type: 'pattern';
      /** The regular expression. */
      value: string;
    }
  /** A regular expression that all of the reply so far must match; the grammar begins at its first group. */
  | {
      type: 'patternFull';
      /** The regular expression. */
      value: string;
    }
  /** A token id. */
  | {
      type: 'token';
      /** The id. */
      token: number;
    };

/** "Don't repeat yourself": a penalty that grows with the length of a repeated run of tokens. */
export interface DryOptions {
  /** 0 (off) to 1e6. @default 0 */
  multiplier?: number;
  /** 1 to 1e6: the penalty is `multiplier * base ** (length - allowedLength)`. @default 1.75 */
  base?: number;
  /** Runs of fewer tokens are free. 1 or more. @default 2 */
  allowedLength?: number;
  /** Tokens of history searched, up to 2^20. @default 64 */
  penaltyLastTokens?: number;
  /** Texts that end a run, each of 1 to 40 bytes, at most 64. @default ['\n', ':', '"', '*'] */
  sequenceBreakers?: readonly string[];
}

/** "Exclude top choices": now and then drops all but the least likely of the likely tokens. */
export interface XtcOptions {
  /** How often, 0 (never) to 1. @default 0 */
  probability?: number;
  /** What counts as likely, 0 to 1; above 0.5 it has no effect. @default 0.1 */
  threshold?: number;
}

/** Keeps the surprise of the text near a target. Takes the place of all truncation, XTC and penalties. */
export interface MirostatOptions {
  /** 0 is off. */
  version: 0 | 1 | 2;
  /** Target surprise in bits, 0 to 100. @default 5 */
  tau?: number;
  /** Learning rate, 0 to 1. @default 0.1 */
  eta?: number;
}

/**
 * How tokens are chosen. What is not set is neutral: without options the likeliest token wins and nothing is cut off.
 * (llama.cpp's own programs have other defaults.) The order is llama.cpp's: bias, penalties, DRY, top-n-sigma, top-k,
 * typical, top-p, min-p, XTC, temperature, choice.
 */
export interface SamplerOptions {
  /** 0 (the likeliest token; below 0.001 counts as 0) to 100. @default 0 */
  temperature?: number;
  /** How far the temperature follows the entropy, up and down; less than `temperature`. @default 0 */
  dynamicTemperatureRange?: number;
  /** 0.01 to 100. @default 1 */
  dynamicTemperatureExponent?: number;
  /** Keep the k likeliest tokens; 0 keeps all. @default 0 */
  topK?: number;
  /** Keep the likeliest tokens that together have this probability, 0 to 1. @default 1 */
  topP?: number;
  /** Keep tokens with at least this share of the likeliest one's probability, 0 to 1. @default 0 */
  minP?: number;
  /** Locally typical sampling, 0 to 1. @default 1 */
  typicalP?: number;
  /** Keep logits within n standard deviations of the highest, 0 (off) to 100. @default 0 */
  topNSigma?: number;
  /** Truncation keeps at least so many tokens. @default 0 */
  minKeep?: number;
  /** Divides (or multiplies negative) logits of tokens in the history, 0.01 to 100. @default 1 */
  repeatPenalty?: number;
  /** Taken off a token's logit for each time it is in the history, -100 to 100. @default 0 */
  frequencyPenalty?: number;
  /** Taken off once for a token in the history, -100 to 100. @default 0 */
  presencePenalty?: number;
  /** Tokens of history for these three penalties, up to 2^20. @default 64 */
  penaltyLastTokens?: number;
  /** A penalty on repeated runs of tokens. @default off */
  dry?: DryOptions;
  /** Drops the likeliest tokens now and then. @default off */
  xtc?: XtcOptions;
  /** Needs a `temperature` above 0. */
  mirostat?: MirostatOptions;
  /** Added to logits by token id: -1e6 to 1e6, or -Infinity for never. */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /** Never choose a token that ends generation. @default false */
  ignoreEos?: boolean;
  /** 0 to 4294967294. Equal seeds choose equally from equal logits. @default a random one, to be read from `sampler.seed` */
  seed?: number;
  /** GBNF that the reply must follow, of at most 1 MiB. It costs time at every token. */
  grammar?: string;
  /** The grammar holds only from a trigger on. @default false */
  grammarLazy?: boolean;
  /**
   * Needed with `grammarLazy`, at most 256. Patterns run over all of the reply at every token, so with one a reply may grow
   * to 16 KiB only, and then fails with `SAMPLER_FAILED`; their groups nest at most 4 deep, a repetition holds
   * at most 16 groups, alternatives and borders, and what takes exponential time is refused: repetitions of repetitions
   * (`(a+)+`), of alternatives that begin alike (`(a|ab)*`), and more than 4 in a row that may take the same characters. What
   * is left may still be slow, by up to the fifth power of the reply's length, and no signal ends a match. Measured, at each
   * token of a reply that does not match: `patternFull` with `[\s\S]*?(<tool_call>)[\s\S]*`, the form of chat templates, 3 ms
   * at 16 KiB; a searched `.*x` 0.4 s at 4,000 bytes and 5 s at 16 KiB; `.*.*x` 4 s at 800 bytes; `.*.*.*.*x`, the slowest
   * kind that is taken, 4 s at 100 bytes and 38 s at 150. Begin no searched pattern with a repetition: the search finds the
   * place itself.
   * Words and tokens have no limit.
   */
  grammarTriggers?: readonly GrammarTrigger[];
  /** Texts of single tokens that triggers may name: those are then matched by token id. */
  preservedTokens?: readonly string[];
  /**
   * What the chat template put in front of the reply, for grammars of {@link Model.render}, which cover it. Leave it out
   * for grammars of your own.
   */
  generationPrompt?: string;
}

/**
 * What chooses the next tokens of one sequence: its options, history, grammar and random numbers. Made by
 * {@link Model.createSampler}, used in {@link Context.decode}.
 *
 * Calls must await one another: a second call on a sampler in use is refused with `SAMPLER_BUSY`. When a choice fails (a
 * grammar that nothing fits, broken logits), the sampler is dead: {@link failure} says why, and all but `reset()` and
 * `close()` throw `SAMPLER_DEAD`. It is closed with its model.
 */
export class Sampler {
  /** What {@link SamplerOptions.seed} was, or the random one that was drawn. */
  readonly seed: number;
  /** @internal */
  readonly raw: RawSampler;

  private constructor(raw: RawSampler) {
    this.raw = raw;
    this.seed = raw.seed;
  }

  /**
   * Use {@link Model.createSampler}.
   *
   * @internal
   */
  static async create(model: RawModel, options: SamplerOptions, abort: RawAbortFlag | undefined): Promise<Sampler> {
    if (typeof options !== 'object' || options === null) {
      throw new HeadstartError('INVALID_ARGUMENT', `Expected \`options\` to be an object, got ${typeof options}`);
    }
    const { logitBias, ...rest } = options;
    const bias = logitBias === undefined ? {} : biasArrays(logitBias);
    return new Sampler(await addon().Sampler.create(model, { ...rest, ...bias }, abort));
  }

  /**
   * Adds tokens to the history that the penalties look at: the prompt's, most of all. The grammar does not see them, and
   * sampled tokens are added by the decode that chose them.
   *
   * @throws HeadstartError `TOKEN_OUT_OF_RANGE`, `SAMPLER_BUSY`, `SAMPLER_DEAD`, `CLOSED` (it, or its model),
   *   `INVALID_ARGUMENT` (no Int32Array).
   */
  async accept(tokens: Int32Array): Promise<void> {
    return this.raw.accept(tokens);
  }

  /**
   * As if new: no history, the grammar at its start, the random numbers of the same seed from the first on. Revives a dead
   * sampler.
   *
   * @throws HeadstartError `SAMPLER_BUSY`, `CLOSED` (it, or its model).
   */
  async reset(): Promise<void> {
    return this.raw.reset();
  }

  /** Why the last choice failed: `GRAMMAR_DEAD_END`, `NO_CANDIDATES`, `LOGITS_INVALID`, `SAMPLER_FAILED`. Null while it works. Also after `close()`. */
  get failure(): HeadstartError | null {
    return this.raw.failure();
  }

  /** Idempotent, and throws nothing. A decode that uses it finishes first. */
  close(): void {
    this.raw.close();
  }

  /** As {@link close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function biasArrays(bias: NonNullable<SamplerOptions['logitBias']>): object {
  if (typeof bias !== 'object' || bias === null) {
    throw new HeadstartError('INVALID_ARGUMENT', 'Expected `logitBias` to be an object or a Map');
  }
  const entries = bias instanceof Map ? [...bias] : Object.entries(bias).map(([id, value]) => [Number(id), value]);
  for (const [id, value] of entries) {
    if (!Number.isInteger(id) || Math.abs(id) > 0x7fffffff || typeof value !== 'number') {
      throw new HeadstartError('INVALID_ARGUMENT', 'Expected `logitBias` to map token ids to numbers');
    }
  }
  return {
    biasTokens: Int32Array.from(entries, ([id]) => id),
    biasValues: Float64Array.from(entries, ([, value]) => value),
  };
}
