import { HeadstartError } from '../errors.js';
import type { SamplingOptions } from '../sampling-options.js';
import { addon, type RawAbortFlag, type RawModel, type RawSampler } from './addon.js';
import { checkedTriggers, type GrammarTrigger } from './grammar-trigger.js';

/**
 * How a sampler chooses tokens. An option that is not set has no effect: without options, the sampler chooses the most
 * likely token. (An agent's `sampling` has the defaults of llama.cpp's own programs.)
 */
export interface SamplerOptions extends SamplingOptions {
  /** A grammar (GBNF) that the reply must follow, at most 1 MiB. A grammar costs time at every token. */
  grammar?: string;
  /** Whether the grammar applies only after a trigger. @default false */
  grammarLazy?: boolean;
  /**
   * The triggers that start a lazy grammar: at most 256, and at least one with `grammarLazy`. You can choose words and
   * tokens freely. A pattern (regular expression) must be an object that {@link Model.render} returned in
   * `grammarTriggers`, because a pattern can take exponential time and nothing can stop it. With a pattern, a reply
   * that grows beyond 16 KiB fails with `SAMPLER_FAILED`.
   */
  grammarTriggers?: readonly GrammarTrigger[];
  /** Texts of single tokens. If a trigger word is one of these texts, the sampler compares token ids and not text. */
  preservedTokens?: readonly string[];
  /**
   * The text that the chat template puts in front of a reply. The grammars of {@link Model.render} include this text.
   * Leave the option out for your own grammars.
   */
  generationPrompt?: string;
}

/**
 * Chooses the next tokens of one sequence. A sampler has options, a history, a grammar and a random number generator.
 * Create it with {@link Model.createSampler}, and pass it to {@link Context.decode}.
 *
 * Await each call before the next one: a second call on a sampler in use throws `SAMPLER_BUSY`. If a choice fails (no
 * token fits the grammar, or the logits are unusable), the sampler is dead. {@link failure} then has the reason, and
 * all methods but `reset()` and `close()` throw `SAMPLER_DEAD`. The model's `close()` also closes its samplers.
 */
export class Sampler {
  /** The option `seed`, or the random seed that was chosen instead. */
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
   * Adds tokens, such as those of the prompt, to the history for the penalties. The grammar ignores them. A decode
   * itself adds each token that the sampler chooses.
   *
   * @throws HeadstartError `TOKEN_OUT_OF_RANGE`, `SAMPLER_BUSY`, `SAMPLER_DEAD`, `CLOSED` (the sampler or its model),
   *   `INVALID_ARGUMENT` (not an Int32Array).
   */
  async accept(tokens: Int32Array): Promise<void> {
    return this.raw.accept(tokens);
  }

  /**
   * Resets the sampler to its initial state: an empty history, the grammar at its start, and the random numbers from
   * the beginning. A dead sampler works again after a reset.
   *
   * @throws HeadstartError `SAMPLER_BUSY`, `CLOSED` (the sampler or its model).
   */
  async reset(): Promise<void> {
    return this.raw.reset();
  }

  /**
   * The error of a failed choice: `GRAMMAR_DEAD_END`, `NO_CANDIDATES`, `LOGITS_INVALID` or `SAMPLER_FAILED`. Null if no
   * choice has failed. Can be read even after `close()`.
   */
  get failure(): HeadstartError | null {
    return this.raw.failure();
  }

  /** Frees the sampler. If a decode is using it, the memory is freed after the decode. Idempotent. */
  close(): void {
    this.raw.close();
  }

  /** The same as {@link close}, for `using`. */
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
