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
  /** Where a state of the prompt is worth keeping; undefined keeps none. */
  checkpoint?: CheckpointPlace | undefined;
  /** Tokens that prompt and reply may have together. */
  contextSize: number;
  maxTokens: number;
  stop: readonly string[];
  /** Texts that the reply's form ends with: the model's own end. */
  endings?: readonly string[] | undefined;
  sampler: Sampler | undefined;
  /**
   * Gives the sampler to go on with where a reply grows so long that the grammar's triggers cannot be searched in it any
   * more; undefined goes on with the one that is there. Asked once, with prompt and reply so far.
   */
  longReplySampler?: ((text: Int32Array) => Promise<Sampler | undefined>) | undefined;
  /** Whether what the reply may say has been said: it then ends with `stop`. Asked after each token. */
  isComplete?: (() => boolean) | undefined;
  /** How many of the likeliest tokens to tell at each place; undefined: none. */
  logProbabilities: number | undefined;
  repetition: RepetitionGuardOptions | undefined;
  /** Control tokens whose text belongs to the reply. */
  preserved: ReadonlySet<number>;
  /** Ends the turn. */
  signal: AbortSignal;
  /** Ends the reply: what is there of it stays. */
  deadline: AbortSignal | undefined;
  /** Is told what it costs. */
  usage?: UsageCounter | undefined;
}

/** A place in a prompt. */
export interface CheckpointPlace {
  /** Tokens of the prompt in front of it, all of them at most. */
  tokens: number;
  /** Whether the prompt is the first of its turn. */
  beginsTurn: boolean;
}

/** What one reply came to. */
export interface Generated {
  finishReason: FinishReason;
  detail?: FinishDetail;
  logProbabilities: TokenLogProbabilities[];
}

/** A little less than the text that the sampler's trigger patterns are searched in, in bytes. */
const LONG_REPLY_BYTES = 15 * 1024;

/** As many are asked for, so that a sampled token is among them. */
const LIKELY_SEARCHED = 100;

/** How a reply ended. */
type Ending = Omit<Generated, 'logProbabilities'>;

/**
 * Generates one reply behind a prompt, as pieces of text become certain. It is no generator: each token is waited for once, and
 * between two of them the processor waits for this thread.
 */
export class Generation {
  readonly #model: Model;
  readonly #sequence: ReplySequence;
  readonly #request: GenerateRequest;
  readonly #text: Detokenizer;
  readonly #stops: StopStrings;
  readonly #repetition: RepetitionGuard | undefined;
  readonly #tokens: number[] = [];
  readonly #choice: TokenChoice;
  #hasBegun = false;
  /** How long the newest token was waited for; undefined for the first, which the prompt's reading is part of. */
  #waitedMs: number | undefined;
  /** Of the text so far, while a long reply would change how it goes on. */
  #bytes = 0;
  readonly #logProbabilities: TokenLogProbabilities[] = [];
  #ending: Ending | undefined;
  #isOver = false;

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
    this.#text = new Detokenizer(model, preserved);
    this.#stops = new StopStrings([...stop, ...endings]);
    this.#repetition = repetition && new RepetitionGuard(repetition);
  }

  /**
   * The next piece of text, never empty; undefined once there is none. Nothing is decoded before it is asked for.
   *
   * @throws HeadstartError what decoding throws; `ABORTED` also for a deadline that passed before the first token.
   */
  async next(): Promise<string | undefined> {
    for (;;) {
      this.#ending ??= this.#endedByNewest();
      if (this.#ending !== undefined) {
        return this.#last(this.#ending);
      }
      const token = this.#hasBegun ? await this.#following() : await this.#first();
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

  /** What the reply came to, once {@link next} gave its last piece. */
  get result(): Generated {
    return {
      ...(this.#endedByText() ?? (this.#ending as Ending)),
      logProbabilities: this.#logProbabilities,
    };
  }

  async #first(): Promise<number> {
    const { prompt, checkpoint, usage } = this.#request;
    this.#hasBegun = true;
    const cached = await this.#sequence.align(prompt, this.#choice.signal);
    usage?.prompt(prompt.length, cached);
    const isInside = checkpoint !== undefined && checkpoint.tokens < prompt.length;
    if (isInside) {
      await this.#keepCheckpoint(checkpoint);
    }
    const token = await this.#read();
    if (checkpoint !== undefined && !isInside) {
      await this.#keepCheckpoint(checkpoint);
    }
    return token;
  }

  #keepCheckpoint({ tokens, beginsTurn }: CheckpointPlace): Promise<void> {
    return this.#sequence.keepCheckpoint(this.#request.prompt.subarray(0, tokens), beginsTurn, this.#choice.signal);
  }

  /** Undefined where the deadline came first. */
  async #following(): Promise<number | undefined> {
    if (this.#bytes >= LONG_REPLY_BYTES) {
      await this.#goOnFreely();
    }
    const begin = performance.now();
    try {
      const token = await this.#read();
      this.#waitedMs = performance.now() - begin;
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

  /** The text that is certain now. */
  #push(token: number): string {
    this.#tokens.push(token);
    this.#request.usage?.token(this.#waitedMs);
    const text = this.#text.push(token);
    if (this.#request.longReplySampler !== undefined) {
      this.#bytes += Buffer.byteLength(text);
    }
    return this.#stops.push(text);
  }

  /** The last piece is what was held back; behind it there is none. */
  #last({ finishReason }: Ending): string | undefined {
    const rest = this.#isOver ? '' : this.#rest(finishReason);
    this.#isOver = true;
    return rest === '' ? undefined : rest;
  }

  /** Whether the reply ends with its newest token: asked once of each, and only when its text has been read. */
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
    const { found } = this.#stops;
    if (found === undefined) {
      return undefined;
    }
    return { finishReason: 'stop', ...(this.#request.stop.includes(found) && { detail: 'stop-string' }) };
  }

  /** What was held back. A character that was cut in two is left out, unless the model itself ended inside it. */
  #rest(reason: FinishReason): string {
    const last = reason === 'stop' && this.#stops.found === undefined ? this.#stops.push(this.#text.flush()) : '';
    return last + this.#stops.flush();
  }

  /** The next token. */
  async #read(): Promise<number> {
    const { logProbabilities, usage } = this.#request;
    const { token, logProbabilities: likely } = await this.#sequence.decode(this.#from, this.#choice);
    usage?.chosen();
    if (likely !== undefined && !this.#model.isEndOfGeneration(token)) {
      this.#logProbabilities.push(this.#likelihood(token, likely.tokens, likely.values, logProbabilities ?? 0));
    }
    return token;
  }

  async #goOnFreely(): Promise<void> {
    this.#bytes = Number.NEGATIVE_INFINITY; // once
    this.#choice.sampler = (await this.#request.longReplySampler?.(this.#from(0))) ?? this.#choice.sampler;
  }

  /** Prompt and reply from a position on: most often the newest token alone. */
  readonly #from = (position: number): Int32Array => {
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

  #likelihood(token: number, tokens: Int32Array, values: Float32Array, count: number): TokenLogProbabilities {
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
