import type { EngineContext } from './engine-context.js';
import type { Sequence } from './sequence.js';
import type { SequencePool } from './sequence-pool.js';

/** llama.cpp rounds the size of the sliding-window cache up to a multiple of this. */
const PADDING = 256;

/**
 * The number of cells in the sliding-window cache, as llama.cpp v0.5.0 computes it for a unified KV cache
 * (`llama_kv_cache_iswa`): one window per sequence, plus one micro-batch.
 */
export function windowCells(context: Pick<EngineContext, 'info' | 'model'>): number {
  const { kvCells, maxSequences, microBatchSize } = context.info;
  const needed = Math.min(kvCells, context.model.slidingWindow * maxSequences + microBatchSize);
  return Math.ceil(needed / PADDING) * PADDING;
}

/**
 * The budget of the sliding-window cache. If only one sequence uses a cell, llama.cpp reuses the cell after it has left
 * the window. A shared cell is reused only when at most one sequence still needs it. So one window is reserved for each
 * session. All shared cells must fit into the rest: the cells of resident templates, and the cells that sessions still
 * share with evicted templates.
 */
export class WindowBudget {
  readonly #residents: SequencePool;
  readonly #sessions: SequencePool;
  readonly #window: number;
  readonly #limit: number;
  /**
   * A sequence with this many unshared cells does not need its shared cells any more. Either llama.cpp has already
   * reused some of its unshared cells and dropped all cells in front of them, or its cells outside the window suffice
   * for the next state or micro-batch.
   */
  readonly #far: number;

  constructor(context: EngineContext, residents: SequencePool, sessions: SequencePool) {
    const { info, model } = context;
    const cells = windowCells(context);
    this.#residents = residents;
    this.#sessions = sessions;
    this.#window = model.slidingWindow;
    this.#far = this.#window + Math.max(this.#window, info.microBatchSize);
    // A window cache as large as the full cache never runs out first, and split streams share nothing.
    const isBounded =
      this.#window > 0 && !info.fullSlidingWindow && info.kvLayout === 'unified' && cells < info.kvCells;
    this.#limit = isBounded ? cells - info.microBatchSize - sessions.size * this.#window : Number.POSITIVE_INFINITY;
  }

  /**
   * Whether one more resident template fits. Evicts idle resident templates to make space, beginning with the least
   * recently used.
   */
  admitsResident(): boolean {
    return this.#makeSpace(this.#window);
  }

  /** Whether another sequence may share all cells of `source`. Evicts idle resident templates to make this possible. */
  admitsFork(source: Sequence): boolean {
    return this.#makeSpace(source.unsharedInWindow);
  }

  #makeSpace(cells: number): boolean {
    if (this.#limit === Number.POSITIVE_INFINITY) {
      return true;
    }
    for (;;) {
      const shared = this.#shared();
      if (shared + cells <= this.#limit) {
        return true;
      }
      if (!this.#residents.evictIdle((sequence) => this.#shared(sequence) < shared)) {
        return false;
      }
    }
  }

  /** The number of shared cells. @param without a sequence that counts as empty */
  #shared(without?: Sequence): number {
    const residents = this.#residents.leased;
    const isNear = (sequence: Sequence) => sequence !== without && sequence.unsharedInWindow < this.#far;
    let shared = this.#window * (residents.size - (without === undefined ? 0 : 1));
    for (const sequence of [...residents, ...this.#sessions.leased]) {
      for (const { inWindow, holders } of sequence.sharedInWindow()) {
        const near = holders.filter(isNear);
        if (near.length > 1) {
          const isCounted = near.some((holder) => residents.has(holder));
          shared += isCounted ? Math.max(0, inWindow - this.#window) : inWindow;
        }
      }
    }
    return shared;
  }
}
