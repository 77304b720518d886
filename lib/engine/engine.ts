import { HeadstartError } from '../errors.js';
import type { Context } from '../native/context.js';
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
   * Decodes `tokens` into a sequence from position `from` on, in batches cut at the same places for the same arguments.
   *
   * @returns the likeliest token after the last
   * @throws HeadstartError `CONTEXT_FULL` when nothing is left to evict, `ABORTED` between two batches or inside one, and as
   *   {@link Context.decode}.
   */
  async prefill(sequence: number, tokens: Int32Array, from: number, options: PrefillOptions = {}): Promise<number> {
    const { batchSize } = this.context.info;
    let picked = -1;
    for (let start = 0; start < tokens.length; start += batchSize) {
      const piece = tokens.slice(start, start + batchSize);
      const isLast = start + piece.length === tokens.length;
      const outputs = new Uint8Array(piece.length);
      outputs[piece.length - 1] = isLast ? 1 : 0;
      const decoding = this.withRoom(() =>
        this.context.decode({
          tokens: piece,
          positions: piece.map((_, index) => from + start + index),
          sequences: new Int32Array(piece.length).fill(sequence),
          outputs,
          signal: options.signal,
        }),
      );
      const picks = await decoding.catch((error: unknown) => this.#trimAfterAbort(error, sequence, from + start));
      options.onDecoded?.(piece);
      picked = picks[0] ?? picked;
    }
    return picked;
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
