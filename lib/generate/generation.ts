import { eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { Sampler } from '../native/sampler.js';
import { Detokenizer } from './detokenizer.js';
import { RepetitionGuard, type RepetitionGuardOptions } from './repetition-guard.js';
import type { ReplySequence, TokenChoice } from './reply-sequence.js';
import { StopStrings } from './stop-strings.js';
import type { FinishDetail, FinishReason, LikelyToken, TokenLogProbabilities } from './stream-parts.js';
import type { UsageCounter } from './usage-counter.js';

export interface GenerateRequest {
  prompt: Int32Array;
  /** Where in the prompt to keep a checkpoint; undefined keeps none. */
  checkpoint?: CheckpointPlace | undefined;
  /** The most tokens that prompt and reply may have together. */
  contextSize: number;
  maxTokens: number;
  stop: readonly string[];
  /** Texts that end a reply in this reply format. They count as if the model had ended the reply itself. */
  endings?: readonly string[] | undefined;
  sampler: Sampler | undefined;
  /**
   * Returns the sampler for the rest of a reply that has grown too long to search for the grammar's trigger patterns.
   * Undefined keeps the current one. Called at most once, with the tokens of prompt and reply.
   */
  longReplySampler?: ((text: Int32Array) => Promise<Sampler | undefined>) | undefined;
  /** Whether the reply is complete: it then ends with `stop`. Called after each token. */
  isComplete?: (() => boolean) | undefined;
  /** How many of the most likely tokens to report for each token of the reply. Undefined reports nothing. */
  logProbabilities: number | undefined;
  repetition: RepetitionGuardOptions | undefined;
  /** Control tokens whose text belongs to the reply. */
  preserved: ReadonlySet<number>;
  /** Aborts the reply: {@link Generation.next} throws. */
  signal: AbortSignal;
  /** Ends the reply: its text up to then is kept. */
  deadline: AbortSignal | undefined;
  /** Counts the cost. */
  usage?: UsageCounter | undefined;
}

/** The place in a prompt at which a checkpoint is kept. */
export interface CheckpointPlace {
  /** Number of prompt tokens in front of the place. It may be the whole prompt. */
  tokens: number;
  /** Whether the prompt is the first of its turn. */
  beginsTurn: boolean;
}

/** How a reply ended, and the log-probabilities of its tokens. */
export interface Generated {
  finishReason: FinishReason;
  detail?: FinishDetail;
  logProbabilities: TokenLogProbabilities[];
}

/** In bytes: a little less than the longest text in which the sampler searches for trigger patterns. */
const LONG_REPLY_BYTES = 15 * 1024;

/** Number of log-probabilities that are computed at each position. The sampled token is almost always among so many. */
const LIKELY_SEARCHED = 100;

/** How a reply ended. */
type Ending = Omit<Generated, 'logProbabilities'>;

/**
 * Generates one reply, piece by piece. A returned piece of text no longer changes. This class is not an async
 * generator, because a generator needs more awaits for each token, and these delay the next decode.
 */
export class Generation {
  readonly #model: Model;
  readonly #sequence: ReplySequence;
  readonly #request: GenerateRequest;
  readonly #detokenizer: Detokenizer;
  readonly #stops: StopStrings;
  readonly #repetition: RepetitionGuard | undefined;
  readonly #tokens: number[] = [];
  readonly #choice: TokenChoice;
  #hasBegun = false;
  /** How long the newest token took, ms. Undefined for the first, which includes reading the prompt. */
  #tokenMs: number | undefined;
  /** Size of the text so far. Counted only up to the change of the sampler in a long reply. */
  #bytes = 0;
  readonly #logProbabilities: TokenLogProbabilities[] = [];
  #ending: Ending | undefined;
  #isFlushed = false;

  constructor(model: Model, sequence: ReplySequence, request: GenerateRequest) {
    this.#model = model;
    this.#sequence = sequence;
    this.#request = request;
    const { signal, deadline, preserved, stop, endings = [], repetition, sampler, logProbabilities } = request;
    this.#choice = {
      sampler,
      signal: eitherSignal(signal, deadline),
      logProbabilities:
        logProbabilities === undefined ? undefined : Math.min(LIKELY_SEARCHED, model.info.vocabulary.size),
    };
    this.#detokenizer = new Detokenizer(model, preserved);
    this.#stops = new StopStrings([...stop, ...endings]);
    this.#repetition = repetition && new RepetitionGuard(repetition);
  }

  /**
   * Returns the next piece of text, never empty; undefined after the last one. Decodes only as far as needed.
   *
   * @throws HeadstartError the errors of decoding. `ABORTED` also if the deadline passed before the first token.
   */
  async next(): Promise<string | undefined> {
    for (;;) {
      this.#ending ??= this.#endedByNewest();
      if (this.#ending !== undefined) {
        return this.#lastPiece(this.#ending);
      }
      const token = this.#hasBegun ? await this.#nextToken() : await this.#firstToken();
      if (token === undefined) {
        this.#ending = { finishReason: 'aborted', detail: 'timeout' };
      } else if (this.#model.isEndOfGeneration(token)) {
        this.#ending = { finishReason: 'stop' };
      } else {
        const piece = this.#push(token);
        if (piece !== '') {
          return piece;
        }
      }
    }
  }

  /** The end of the reply, after {@link next} returned undefined. */
  get result(): Generated {
    return {
      ...(this.#endedByText() ?? (this.#ending as Ending)),
      logProbabilities: this.#logProbabilities,
    };
  }

  async #firstToken(): Promise<number> {
    const { prompt, checkpoint, usage } = this.#request;
    this.#hasBegun = true;
    const cached = await this.#sequence.align(prompt, this.#choice.signal);
    usage?.prompt(prompt.length, cached);
    const isInside = checkpoint !== undefined && checkpoint.tokens < prompt.length;
    if (isInside) {
      await this.#keepCheckpoint(checkpoint);
    }
    const token = await this.#decode();
    if (checkpoint !== undefined && !isInside) {
      await this.#keepCheckpoint(checkpoint);
    }
    return token;
  }

  #keepCheckpoint({ tokens, beginsTurn }: CheckpointPlace): Promise<void> {
    return this.#sequence.keepCheckpoint(this.#request.prompt.subarray(0, tokens), beginsTurn, this.#choice.signal);
  }

  /** Returns undefined if the deadline passed before the token was chosen. */
  async #nextToken(): Promise<number | undefined> {
    if (this.#bytes >= LONG_REPLY_BYTES) {
      await this.#changeSampler();
    }
    const begin = performance.now();
    try {
      const token = await this.#decode();
      this.#tokenMs = performance.now() - begin;
      return token;
    } catch (error) {
      const { signal, deadline } = this.#request;
      if (HeadstartError.isInstance(error, 'ABORTED') && deadline?.aborted && !signal.aborted) {
        this.#sequence.afterFailure();
        return undefined;
      }
      throw error;
    }
  }

  /** Returns the text that has become certain. */
  #push(token: number): string {
    this.#tokens.push(token);
    this.#request.usage?.token(this.#tokenMs);
    const text = this.#detokenizer.push(token);
    if (this.#request.longReplySampler !== undefined) {
      this.#bytes += Buffer.byteLength(text);
    }
    return this.#stops.push(text);
  }

  /** Returns the text that was held back, then undefined. */
  #lastPiece({ finishReason }: Ending): string | undefined {
    const rest = this.#isFlushed ? '' : this.#rest(finishReason);
    this.#isFlushed = true;
    return rest === '' ? undefined : rest;
  }

  /** Returns why the reply ends with its newest token; undefined if it goes on. Called once for each token. */
  #endedByNewest(): Ending | undefined {
    const { maxTokens, contextSize, prompt, isComplete } = this.#request;
    const token = this.#tokens.at(-1);
    if (token === undefined) {
      return undefined;
    }
    const ended = this.#endedByText();
    if (ended !== undefined) {
      return ended;
    }
    if (isComplete?.()) {
      return { finishReason: 'stop' };
    }
    if (this.#repetition?.push(token)) {
      return { finishReason: 'length', detail: 'repetition' };
    }
    if (this.#tokens.length >= maxTokens) {
      return { finishReason: 'length', detail: 'max-tokens' };
    }
    return prompt.length + this.#tokens.length >= contextSize
      ? { finishReason: 'length', detail: 'context' }
      : undefined;
  }

  #endedByText(): Ending | undefined {
    const { matched: found } = this.#stops;
    if (found === undefined) {
      return undefined;
    }
    return { finishReason: 'stop', ...(this.#request.stop.includes(found) && { detail: 'stop-string' }) };
  }

  /**
   * The text that was held back. An incomplete character is left out, unless the model itself ended the reply inside
   * it.
   */
  #rest(reason: FinishReason): string {
    const last =
      reason === 'stop' && this.#stops.matched === undefined ? this.#stops.push(this.#detokenizer.flush()) : '';
    return last + this.#stops.flush();
  }

  /** Decodes, and returns the next token. */
  async #decode(): Promise<number> {
    const { logProbabilities, usage } = this.#request;
    const { token, logProbabilities: likely } = await this.#sequence.decode(this.#tokensFrom, this.#choice);
    usage?.sampled();
    if (likely !== undefined && !this.#model.isEndOfGeneration(token)) {
      this.#logProbabilities.push(this.#probabilitiesOf(token, likely.tokens, likely.values, logProbabilities ?? 0));
    }
    return token;
  }

  async #changeSampler(): Promise<void> {
    this.#bytes = Number.NEGATIVE_INFINITY; // never again
    this.#choice.sampler = (await this.#request.longReplySampler?.(this.#tokensFrom(0))) ?? this.#choice.sampler;
  }

  /** The tokens of prompt and reply from a position on. Usually this is the newest token alone. */
  readonly #tokensFrom = (position: number): Int32Array => {
    const { prompt } = this.#request;
    const all = new Int32Array(prompt.length + this.#tokens.length - position);
    if (position < prompt.length) {
      all.set(prompt.subarray(position));
    }
    for (let index = Math.max(position, prompt.length); index < position + all.length; index++) {
      all[index - position] = this.#tokens[index - prompt.length] as number;
    }
    return all;
  };

  #probabilitiesOf(token: number, tokens: Int32Array, values: Float32Array, count: number): TokenLogProbabilities {
    const describe = (id: number, logProbability: number): LikelyToken => ({
      token: id,
      text: new TextDecoder().decode(this.#model.tokenToBytes(id, { special: true })),
      logProbability,
    });
    const place = tokens.indexOf(token);
    const likely = Array.from(tokens.subarray(0, count), (id, index) => describe(id, values[index] as number));
    return { ...describe(token, place < 0 ? Number.NEGATIVE_INFINITY : (values[place] as number)), likely };
  }
}
