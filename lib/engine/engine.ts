import { HeadstartError } from '../errors.js';
import type { Context } from '../native/context.js';
import type { Sampler } from '../native/sampler.js';
import { SequencePool } from './sequences.js';

export interface EngineOptions {
  /** Sequence ids kept for resident templates, from the top of the context's range. @default 0 */
  residentSequences?: number;
}

export interface PrefillOptions {
  signal?: AbortSignal | undefined;
  /** Called after each batch with the tokens that are now in the sequence. */
  onDecoded?: (tokens: Int32Array) => void;
}

export interface DecodeRequest extends PrefillOptions {
  sequence: number;
  /** At least one. */
  tokens: Int32Array;
  /** The position of the first: where the sequence ends. */
  from: number;
  /** Chooses the token after the last. @default the likeliest */
  sampler?: Sampler | null | undefined;
  /** How many of the likeliest next tokens to tell, with their log-probabilities. @default 0 */
  logProbabilities?: number | undefined;
}

export interface Decoded {
  /** The token chosen to follow the last. */
  token: number;
  /** Likeliest first; natural logarithms. Where {@link DecodeRequest.logProbabilities} asked for them. */
  logProbabilities?: { tokens: Int32Array; values: Float32Array };
}

/**
 * One context, its sequence ids, and what to do when its KV cache is full. Calls of several sessions interleave step by
 * step: the context's own thread runs them in order.
 */
export class Engine {
  readonly context: Context;
  /** Sequences that sessions generate in. */
  readonly sessions: SequencePool;
  /** Sequences that hold resident templates. */
  readonly residents: SequencePool;

  constructor(context: Context, options: EngineOptions = {}) {
    this.context = context;
    const { maxSequences } = context.info;
    const sessionCount = maxSequences - (options.residentSequences ?? 0);
    const ids = Array.from({ length: maxSequences }, (_, id) => id);
    const empty = (sequence: number) => context.removeSequence(sequence);
    this.sessions = new SequencePool(ids.slice(0, sessionCount), empty);
    this.residents = new SequencePool(ids.slice(sessionCount), empty);
  }

  /** Whether a sequence's end can be cut off. Recurrent state cannot, and a sliding window has dropped what it would need. */
  get canTrim(): boolean {
    const { recurrent, hybrid } = this.context.model;
    return !recurrent && !hybrid && !this.hasWindow;
  }

  /** Whether some layers keep the cells of a window only. */
  get hasWindow(): boolean {
    return this.context.model.slidingWindow > 0 && !this.context.info.fullSlidingWindow;
  }

  /**
   * Decodes `tokens` into a sequence, in batches cut at the same places for the same arguments, and picks the token after
   * the last. `onDecoded` has told of all tokens that are in the sequence when it settles, however it does.
   *
   * @throws HeadstartError `CONTEXT_FULL` when nothing is left to evict; `ABORTED` between two batches or inside one, with
   *   `sequences` where the sequence was emptied by it; what the sampler's failure says; and as {@link Context.decode}.
   */
  async decode(request: DecodeRequest): Promise<Decoded> {
    const { sequence, tokens, from, sampler, logProbabilities = 0, signal, onDecoded } = request;
    const { batchSize } = this.context.info;
    for (let start = 0; ; start += batchSize) {
      const piece = tokens.slice(start, start + batchSize);
      const isLast = start + piece.length >= tokens.length;
      const outputs = new Uint8Array(piece.length);
      outputs[piece.length - 1] = isLast ? 1 : 0;
      const attempt = () => {
        const picks = this.context.decode({
          tokens: piece,
          positions: piece.map((_, index) => from + start + index),
          sequences: new Int32Array(piece.length).fill(sequence),
          outputs,
          samplers: isLast && sampler ? [sampler] : undefined,
          signal,
        });
        // Asked for at once: nobody else's decode comes in between.
        const asked = isLast && logProbabilities > 0;
        const likely = asked ? this.context.logProbabilities(piece.length - 1, logProbabilities) : undefined;
        likely?.catch(() => undefined); // the decode's own failure is what counts
        return picks.then(async ([token = -1]) => ({ token, likely: await likely }));
      };
      const { token, likely } = await this.withRoom(attempt).catch((error: unknown) => {
        if (HeadstartError.isInstance(error) && error.picks !== undefined) {
          onDecoded?.(piece); // only its sampler failed
        }
        return this.#trimAfterAbort(error, sequence, from + start);
      });
      onDecoded?.(piece);
      if (isLast) {
        return likely === undefined ? { token } : { token, logProbabilities: likely };
      }
    }
  }

  /** {@link decode} with the likeliest token. */
  async prefill(sequence: number, tokens: Int32Array, from: number, options: PrefillOptions = {}): Promise<number> {
    return (await this.decode({ ...options, sequence, tokens, from })).token;
  }

  /** Runs what needs KV cells; while there are none, evicts idle sessions, then idle resident templates, and tries again. */
  async withRoom<T>(attempt: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        if (!HeadstartError.isInstance(error, 'NO_KV_SLOT')) {
          throw error;
        }
        if (!this.sessions.evictIdle() && !this.residents.evictIdle()) {
          const { kvCells } = this.context.info;
          throw new HeadstartError(
            'CONTEXT_FULL',
            `The KV cache (${kvCells} cells) is full and no idle session is left to evict: raise \`kvCells\`, or close sessions`,
            { cause: error },
          );
        }
      }
    }
  }

  /** Refuses new leases and closes the context. Idempotent. */
  async close(): Promise<void> {
    this.sessions.close();
    this.residents.close();
    await this.context.close();
  }

  /** An abort inside a batch may leave a part of it: where sequences can be trimmed, it is as if it had not begun. */
  async #trimAfterAbort(error: unknown, sequence: number, length: number): Promise<never> {
    if (HeadstartError.isInstance(error, 'ABORTED') && error.sequences !== undefined && this.canTrim) {
      await this.context.removeSequence(sequence, length);
      throw new HeadstartError('ABORTED', error.message, { cause: error.cause });
    }
    throw error;
  }
}
