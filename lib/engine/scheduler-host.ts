import type { HeadstartError } from '../errors.js';
import type { CellWaitQueue } from './cell-wait-queue.js';
import type { EngineContext } from './engine-context.js';
import type { BatchInvariance } from './reproducible/self-test.js';
import type { Sequence } from './sequence.js';

/** The functions of the engine that the scheduler uses. */
export interface SchedulerHost {
  context: EngineContext;
  cellQueue: CellWaitQueue;
  /** Evicts an idle sequence. Returns false if no sequence is idle. */
  evictIdle(): boolean;
  /** Whether another sequence is in use and will release its cells later. */
  othersHoldCells(sequence: Sequence): boolean;
  /** Order of arrival of the sequence's current work; smaller is older. */
  ageOf(sequence: Sequence): number;
  /** Makes the error `CONTEXT_FULL`. */
  fullError(cause: unknown): HeadstartError;
  /** KV cells that any sequence may take; infinite in split streams, where each sequence has its own cells. */
  freeCells(): number;
  /** Whether a sequence of this many tokens fits into an otherwise empty KV cache. */
  canEverFit(tokens: number): boolean;
  /** Whether the end of a sequence can be removed. */
  canTrim: boolean;
  /** See `BatchLimits`. */
  now(): number;
  /** See `BatchLimits`. */
  chunkSize?: number | undefined;
  /** See `BatchLimits`. */
  batchInvariance(): BatchInvariance | undefined;
}
