import { HeadstartError } from '../errors.js';
import type { SamplingOptions } from '../sampling-options.js';
import { addon, type RawAbortFlag, type RawModel, type RawSampler } from './addon.js';
import { checkedTriggers, type GrammarTrigger } from './grammar-trigger.js';

/**
 * How a sampler chooses tokens. What is not set is neutral: without options the likeliest token wins and nothing is cut off.
 * (An agent's `sampling` has the defaults of llama.cpp's own programs.)
 */
export interface SamplerOptions extends SamplingOptions {
  /** GBNF that the reply must follow, of at most 1 MiB. It costs time at every token. */
  grammar?: string;
  /** The grammar holds only from a trigger on. @default false */
  grammarLazy?: boolean;
  /**
   * What starts a lazy grammar: at most 256, and at least one with `grammarLazy`. Words and tokens can be chosen freely. Patterns (regular
   * expressions) are accepted only as the objects that {@link Model.render} returned in `grammarTriggers`, because a pattern can take
   * exponential time and nothing can stop it. With a pattern a reply may grow to 16 KiB and then fails with `SAMPLER_FAILED`.
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
    const { logitBias, grammarTriggers, ...rest } = options;
    const bias = logitBias === undefined ? {} : biasArrays(logitBias);
    const checked = { ...rest, ...bias, grammarTriggers: checkedTriggers(grammarTriggers) };
    return new Sampler(await addon().Sampler.create(model, checked, abort));
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
