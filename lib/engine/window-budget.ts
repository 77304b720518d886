import type { EngineContext } from './engine-context.js';
import type { SequencePool } from './sequence-pool.js';

/** llama.cpp rounds the size of a window's cache up to a multiple of this. */
const PADDING = 256;

/**
 * Cells in the cache of a sliding window, as llama.cpp v0.5.0 makes it (`llama_kv_cache_iswa`) in a unified KV cache: a
 * window for each sequence, and room for the tokens that are being decoded.
 */
export function windowCells(context: Pick<EngineContext, 'info' | 'model'>): number {
  const { kvCells, maxSequences, microBatchSize } = context.info;
  const needed = Math.min(kvCells, context.model.slidingWindow * maxSequences + microBatchSize);
  return Math.ceil(needed / PADDING) * PADDING;
}

/**
 * The budget of a sliding window's cells. What one sequence holds alone is freed as it moves on; what several share is not,
 * until all but one have left or are far past it. So each session is sure of a window of its own, and what is shared has to
 * fit into the rest: resident templates, and what sessions still share of those that have left.
 */
export class WindowBudget {
  readonly #context: EngineContext;
  readonly #residents: SequencePool;
  readonly #window: number;
  readonly #limit: number;
  /**
   * A sequence with so many cells of its own is far past what it shares: llama.cpp has used some of them again, and let go of
   * all before them; or those outside the window are enough for whatever comes next, a state or a micro-batch.
   */
  readonly #far: number;

  /** @param sessions sequences that sessions generate in */
  constructor(context: EngineContext, residents: SequencePool, sessions: number) {
    const { info, model } = context;
    const cells = windowCells(context);
    this.#context = context;
    this.#residents = residents;
    this.#window = model.slidingWindow;
    // A cache as large as the full one never runs out before that does; streams share nothing.
    this.#far = this.#window + Math.max(this.#window, info.microBatchSize);
    const isBounded =
      this.#window > 0 && !info.fullSlidingWindow && info.kvLayout === 'unified' && cells < info.kvCells;
    this.#limit = isBounded ? cells - info.microBatchSize - sessions * this.#window : Number.POSITIVE_INFINITY;
  }

  /** Whether there is room for one more resident template. Idle ones leave for it, the least recently used first. */
  admitsResident(): boolean {
    return this.#makeRoom(this.#window);
  }

  /** Whether another sequence may share all that this one holds. Idle resident templates leave for it. */
  admitsFork(source: number): boolean {
    return this.#makeRoom(this.#context.cells.ownInWindow(source));
  }

  #makeRoom(cells: number): boolean {
    if (this.#limit === Number.POSITIVE_INFINITY) {
      return true;
    }
    for (;;) {
      const taken = this.#taken();
      if (taken + cells <= this.#limit) {
        return true;
      }
      if (!this.#residents.evictIdle((sequence) => this.#taken(sequence) < taken)) {
        return false;
      }
    }
  }

  /** @param without as if this sequence was empty */
  #taken(without?: number): number {
    const { cells } = this.#context;
    const isNear = (sequence: number) => sequence !== without && cells.ownInWindow(sequence) < this.#far;
    let taken = this.#window * (this.#residents.heldCount - (without === undefined ? 0 : 1));
    for (const { inWindow, holders } of cells.sharedInWindow()) {
      const near = holders.filter(isNear);
      if (near.length > 1) {
        const isCounted = near.some((sequence) => this.#residents.holds(sequence));
        taken += isCounted ? Math.max(0, inWindow - this.#window) : inWindow;
      }
    }
    return taken;
  }
}
