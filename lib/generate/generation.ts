import { eitherSignal } from '../abort.js';
import type { LoadedPrefix } from '../cache/loaded-prefix.js';
import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { Sampler } from '../native/sampler.js';
import { Detokenizer } from './detokenizer.js';
import { PrefillMeter, type PrefillProgress } from './prefill-progress.js';
import { RepetitionGuard, type RepetitionGuardOptions } from './repetition-guard.js';
import type { ReplySequence, TokenChoice } from './reply-sequence.js';
import { StopStrings } from './stop-strings.js';
import type { FinishDetail, FinishReason, LikelyToken, TokenLogProbabilities } from './stream-parts.js';
import type { UsageCounter } from './usage-counter.js';

export interface GenerateRequest {
  prompt: Int32Array;
  /** The place in the prompt at which to keep a checkpoint. With undefined, no checkpoint is kept. */
  checkpoint?: CheckpointPlace | undefined;
  /** Maximum number of tokens of prompt and reply together. */
  contextSize: number;
  maxTokens: number;
  stop: readonly string[];
  /** Texts that end a reply in this reply format. Such an end counts as the model's own, and not as a stop string. */
  endings?: readonly string[] | undefined;
  sampler: Sampler | undefined;
  /**
   * Returns another sampler for the rest of a reply, or undefined to keep the current one. Called at most once, with
   * the tokens of prompt and reply, when the reply has become too long to be searched for the grammar's trigger
   * patterns.
   */
  longReplySampler?: ((text: Int32Array) => Promise<Sampler | undefined>) | undefined;
  /** Called after each token. Returns true if the reply is complete: the reply then ends with `stop`. */
  isComplete?: (() => boolean) | undefined;
  /** Number of most likely tokens to report for each token of the reply. If undefined, nothing is reported. */
  logProbabilities: number | undefined;
  repetition: RepetitionGuardOptions | undefined;
  /** Control tokens whose text belongs to the reply. */
  preserved: ReadonlySet<number>;
  /** Aborts the reply: {@link Generation.next} then throws. */
  signal: AbortSignal;
  /** When this signal fires, the reply ends. The text that was generated so far is kept. */
  deadline: AbortSignal | undefined;
  /** Counts the cost. */
  usage?: UsageCounter | undefined;
  /** Called when the longest prefix is loaded, and after each decode of the prompt. */
  onPrefill?: ((progress: PrefillProgress) => void) | undefined;
}

/** The place in a prompt at which a checkpoint is kept. */
export interface CheckpointPlace {
  /** Number of prompt tokens in front of the place. The place may be the end of the prompt. */
  tokens: number;
  /** Whether the prompt is the first of its turn. */
  beginsTurn: boolean;
}

/** How the prompt of a reply came into its sequence. */
export interface LoadedPrompt extends LoadedPrefix {
  /** Milliseconds until the prompt was decoded, including the time in which the reply waited for a sequence. */
  ms: number;
}

/** The end of a reply, and the log-probabilities of its tokens. */
export interface Generated {
  loaded: LoadedPrompt;
  finishReason: FinishReason;
  detail?: FinishDetail;
  stopString?: string;
  logProbabilities: TokenLogProbabilities[];
}

/**
 * Length of a long reply in bytes: a little less than the longest text that the sampler searches for trigger patterns.
 */
const LONG_REPLY_BYTES = 15 * 1024;

/** Number of log-probabilities that are computed for each token. The sampled token is almost always among them. */
const LIKELY_SEARCHED = 100;

type Ending = Omit<Generated, 'logProbabilities' | 'loaded'>;

/**
 * Generates one reply, piece by piece. A returned piece of text no longer changes. This class is not an async
 * generator, because a generator needs more awaits for each token, and each await delays the next decode.
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
  #loaded!: LoadedPrompt;
  #hasBegun = false;
  /** How long the newest token took, ms. Undefined for the first token, because its time includes the prefill. */
  #tokenMs: number | undefined;
  /** Size of the text so far, in bytes. Counted only until the sampler of a long reply has been replaced. */
  #bytes = 0;
  readonly #logProbabilities: TokenLogProbabilities[] = [];
  #ending: Ending | undefined;
  #hasEndToken = false;
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
   * Returns the next piece of text, which is never empty. Returns undefined after the last piece. Decodes only as many
   * tokens as the piece needs.
   *
   * @throws HeadstartError the errors of decoding, and `ABORTED` if the deadline passes before the first token.
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
        this.#hasEndToken = true;
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
      loaded: this.#loaded,
      logProbabilities: this.#logProbabilities,
    };
  }

  /** The sampled tokens so far, without the token that ends generation. */
  get tokens(): readonly number[] {
    return this.#tokens;
  }

  /** Whether a token that ends generation ended the reply. */
  get hasEndToken(): boolean {
    return this.#hasEndToken;
  }

  async #firstToken(): Promise<number> {
    this.#hasBegun = true;
    const { prompt, onPrefill } = this.#request;
    if (onPrefill === undefined) {
      return this.#readPrompt(undefined);
    }
    const meter = new PrefillMeter(prompt.length, onPrefill);
    this.#sequence.setDecodeListener(meter.report);
    try {
      const token = await this.#readPrompt(meter);
      meter.throwIfFailed();
      return token;
    } finally {
      this.#sequence.setDecodeListener(undefined);
    }
  }

  async #readPrompt(meter: PrefillMeter | undefined): Promise<number> {
    const { prompt, checkpoint, usage } = this.#request;
    const begin = performance.now();
    const loaded = await this.#sequence.align(prompt, this.#choice.signal);
    meter?.onLoaded(loaded.cachedTokens);
    usage?.prompt(prompt.length, loaded.cachedTokens);
    const isInside = checkpoint !== undefined && checkpoint.tokens < prompt.length;
    if (isInside) {
      await this.#keepCheckpoint(checkpoint);
    }
    const token = await this.#decode();
    this.#loaded = { ...loaded, ms: performance.now() - begin };
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

  /** Returns the text that was held back. Returns undefined if that text is empty or was already returned. */
  #lastPiece({ finishReason }: Ending): string | undefined {
    const rest = this.#isFlushed ? '' : this.#rest(finishReason);
    this.#isFlushed = true;
    return rest === '' ? undefined : rest;
  }

  /** Returns why the reply ends with its newest token, or undefined if it continues. Called once for each token. */
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
    const isOfRequest = this.#request.stop.includes(found);
    return { finishReason: 'stop', ...(isOfRequest && { detail: 'stop-string', stopString: found }) };
  }

  /**
   * The text that was held back. Leaves out an incomplete character, unless the model itself ended the reply inside
   * this character.
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
    this.#bytes = Number.NEGATIVE_INFINITY; // the sampler changes only once
    this.#choice.sampler = (await this.#request.longReplySampler?.(this.#tokensFrom(0))) ?? this.#choice.sampler;
  }

  /** The tokens of prompt and reply from a position on. Usually, this is only the newest token. */
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
