import type { Context, ContextCounters, DecodeBatch } from '../native/context.js';
import type { Work } from './thread-probe.js';
import { type ThreadCount, ThreadTuner } from './thread-tuner.js';

/** The parts of a context that {@link ThreadCounts} uses. */
type TimedContext = Pick<Context, 'info' | 'setThreads' | 'decode'> & {
  counters(): Pick<ContextCounters, 'decodeMs'>;
};

/** The numbers of threads that compute. */
export interface ThreadStatus {
  /** Whether the numbers adapt to the load of the machine: the option `nThreads: 'auto'`. */
  automatic: boolean;
  /** Threads of the context. The threads that do not compute sleep. */
  max: number;
  /** For decodes of reply tokens only. */
  decode: ThreadCount;
  /** For decodes that contain tokens of prompts. */
  prefill: ThreadCount;
}

/**
 * Decodes with the fastest number of threads. Prompts and replies have separate numbers, because the threads wait for
 * each other much less often in the decode of a prompt.
 */
export class ThreadCounts {
  readonly #context: TimedContext;
  readonly #decode: ThreadTuner;
  readonly #prefill: ThreadTuner;
  readonly #max: number;
  /** The number of threads that the context uses now, if it is known. */
  #applied: number | undefined;

  constructor(context: TimedContext) {
    const { nThreads, nThreadsBatch } = context.info;
    this.#context = context;
    this.#max = Math.max(nThreads, nThreadsBatch);
    this.#decode = new ThreadTuner(this.#max);
    this.#prefill = new ThreadTuner(this.#max);
  }

  /** Like {@link Context.decode}. The context's own thread measures the duration. */
  async decode(batch: DecodeBatch): Promise<Int32Array> {
    const tuner = batch.outputs.includes(0) ? this.#prefill : this.#decode;
    const work = workOf(batch);
    this.#apply(tuner.next(work));
    const before = this.#context.counters().decodeMs;
    const picks = await this.#context.decode(batch);
    tuner.record(work, this.#context.counters().decodeMs - before);
    return picks;
  }

  /** Maximum tokens of prompts in the next batch. It is finite only while another number of threads is measured. */
  get maxPromptTokens(): number {
    return this.#prefill.maxTokens;
  }

  status(): ThreadStatus {
    return { automatic: true, max: this.#max, decode: this.#decode.status(), prefill: this.#prefill.status() };
  }

  #apply(threads: number): void {
    if (threads !== this.#applied) {
      this.#applied = threads;
      this.#context.setThreads(threads).catch(() => {
        // The context is closed, so the decode fails too.
      });
    }
  }
}

/** The status of a context whose numbers never change. */
export function fixedThreads({ info: { nThreads, nThreadsBatch } }: Pick<Context, 'info'>): ThreadStatus {
  const fixed = (threads: number): ThreadCount => ({ threads, changes: { slower: 0, faster: 0, routine: 0 } });
  return {
    automatic: false,
    max: Math.max(nThreads, nThreadsBatch),
    decode: fixed(nThreads),
    prefill: fixed(nThreadsBatch),
  };
}

function workOf({ positions }: DecodeBatch): Work {
  let cells = 0;
  for (const position of positions) {
    cells += position;
  }
  return { tokens: positions.length, cells: cells / positions.length };
}
