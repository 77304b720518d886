import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { Sampler } from '../native/sampler.js';
import { eitherSignal } from './either-signal.js';
import type { FinishDetail, FinishReason, LikelyToken, TokenLogProbabilities } from './parts.js';
import { RepetitionGuard, type RepetitionGuardOptions } from './repetition.js';
import { ReplyText } from './reply-text.js';
import type { ConversationSequence } from './sequence.js';
import { StopStrings } from './stop-strings.js';
import type { UsageCounter } from './usage.js';

export interface GenerateRequest {
  prompt: Int32Array;
  /** Tokens that prompt and reply may have together. */
  contextSize: number;
  maxTokens: number;
  stop: readonly string[];
  sampler: Sampler | undefined;
  /**
   * Gives the sampler to go on with where a reply grows so long that the grammar's triggers cannot be searched in it any
   * more; undefined goes on with the one that is there. Asked once.
   */
  longReplySampler?: (() => Promise<Sampler | undefined>) | undefined;
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

/**
 * Generates one reply behind a prompt: yields pieces of text as they become certain, and returns how it ended.
 *
 * @throws HeadstartError what decoding throws; `ABORTED` also for a deadline that passed before the first token.
 */
export async function* generate(
  model: Model,
  sequence: ConversationSequence,
  request: GenerateRequest,
): AsyncGenerator<string, Generated, undefined> {
  return yield* new Generation(model, sequence, request).run();
}

class Generation {
  readonly #model: Model;
  readonly #sequence: ConversationSequence;
  readonly #request: GenerateRequest;
  readonly #signal: AbortSignal;
  readonly #text: ReplyText;
  readonly #stops: StopStrings;
  readonly #repetition: RepetitionGuard | undefined;
  readonly #tokens: number[] = [];
  #sampler: Sampler | undefined;
  #bytes = 0;
  readonly #logProbabilities: TokenLogProbabilities[] = [];

  constructor(model: Model, sequence: ConversationSequence, request: GenerateRequest) {
    this.#model = model;
    this.#sequence = sequence;
    this.#request = request;
    const { signal, deadline, preserved, stop, repetition } = request;
    this.#signal = eitherSignal(signal, deadline);
    this.#sampler = request.sampler;
    this.#text = new ReplyText(model, preserved);
    this.#stops = new StopStrings(stop);
    this.#repetition = repetition && new RepetitionGuard(repetition);
  }

  async *run(): AsyncGenerator<string, Generated, undefined> {
    const { prompt, usage } = this.#request;
    usage?.prompt(prompt.length, await this.#sequence.align(prompt, this.#signal));
    let token = await this.#read();
    let waitedMs: number | undefined;
    await this.#sequence.keepSnapshot();
    let ended: { finishReason: FinishReason; detail?: FinishDetail } | undefined;
    while (ended === undefined) {
      if (this.#model.isEndOfGeneration(token)) {
        ended = { finishReason: 'stop' };
        break;
      }
      this.#tokens.push(token);
      usage?.token(waitedMs);
      const text = this.#text.push(token);
      const piece = this.#stops.push(text);
      if (piece !== '') {
        yield piece;
      }
      ended = this.#endedAfter(token);
      if (ended === undefined) {
        await this.#watchLength(text);
        const begin = performance.now();
        const next = await this.#nextBeforeDeadline();
        waitedMs = performance.now() - begin;
        ended = next === undefined ? { finishReason: 'aborted', detail: 'timeout' } : undefined;
        token = next ?? token;
      }
    }
    const rest = this.#rest(ended.finishReason);
    if (rest !== '') {
      yield rest;
    }
    return {
      ...ended,
      ...(this.#stops.found !== undefined && { finishReason: 'stop', detail: 'stop-string' }),
      logProbabilities: this.#logProbabilities,
    };
  }

  async #watchLength(text: string): Promise<void> {
    const before = this.#bytes;
    this.#bytes += Buffer.byteLength(text);
    if (before < LONG_REPLY_BYTES && this.#bytes >= LONG_REPLY_BYTES) {
      this.#sampler = (await this.#request.longReplySampler?.()) ?? this.#sampler;
    }
  }

  #endedAfter(token: number): { finishReason: FinishReason; detail?: FinishDetail } | undefined {
    const { maxTokens, contextSize, prompt, isComplete } = this.#request;
    if (this.#stops.found !== undefined) {
      return { finishReason: 'stop', detail: 'stop-string' };
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

  /** What was held back. A character that was cut in two is left out, unless the model itself ended inside it. */
  #rest(reason: FinishReason): string {
    const last = reason === 'stop' && this.#stops.found === undefined ? this.#stops.push(this.#text.flush()) : '';
    return last + this.#stops.flush();
  }

  async #nextBeforeDeadline(): Promise<number | undefined> {
    try {
      return await this.#read();
    } catch (error) {
      const { signal, deadline } = this.#request;
      if (HeadstartError.isInstance(error, 'ABORTED') && deadline?.aborted && !signal.aborted) {
        this.#sequence.afterFailure();
        return undefined;
      }
      throw error;
    }
  }

  /**
   * Decodes what the sequence lacks, and picks the next token: most often the newest token alone; where the sequence was
   * lost meanwhile, to others or because nobody read on, all that it held as well.
   */
  async #read(): Promise<number> {
    for (;;) {
      if (this.#sequence.isEmpty) {
        await this.#sequence.align(this.#from(0), this.#signal);
      }
      try {
        return await this.#decode();
      } catch (error) {
        if (!HeadstartError.isInstance(error, 'PREEMPTED')) {
          throw error;
        }
        this.#sequence.forget();
      }
    }
  }

  async #decode(): Promise<number> {
    const { logProbabilities, usage } = this.#request;
    const sampler = this.#sampler;
    const { token, logProbabilities: likely } = await this.#sequence.decode({
      tokens: this.#from(this.#sequence.length),
      sampler,
      signal: this.#signal,
      ...(logProbabilities !== undefined && {
        logProbabilities: Math.min(LIKELY_SEARCHED, this.#model.info.vocabulary.size),
      }),
    });
    usage?.chosen();
    if (likely !== undefined && !this.#model.isEndOfGeneration(token)) {
      this.#logProbabilities.push(this.#likelihood(token, likely.tokens, likely.values, logProbabilities ?? 0));
    }
    return token;
  }

  /** Prompt and reply from a position on. */
  #from(position: number): Int32Array {
    const { prompt } = this.#request;
    if (position >= prompt.length) {
      return Int32Array.from(this.#tokens.slice(position - prompt.length));
    }
    const all = new Int32Array(prompt.length + this.#tokens.length - position);
    all.set(prompt.subarray(position));
    all.set(this.#tokens, prompt.length - position);
    return all;
  }

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
