import { abortedError, onAbort } from '../abort.js';
import { HeadstartError } from '../errors.js';
import type { CellWaiter, CellWaitQueue } from './cell-wait-queue.js';
import type { PendingRequest } from './decode-request.js';
import type { Sequence } from './sequence.js';

/** Requests that wait for KV cells. Each one is later retried, rejected or aborted. */
export class BlockedRequests {
  readonly #cellQueue: CellWaitQueue;
  readonly #onRetry: (pending: PendingRequest) => void;
  /** Each request with the function that removes it from the cell queue. */
  readonly #waiting = new Map<PendingRequest, () => void>();

  /** @param onRetry called with a request when enough cells for it may be free */
  constructor(cellQueue: CellWaitQueue, onRetry: (pending: PendingRequest) => void) {
    this.#cellQueue = cellQueue;
    this.#onRetry = onRetry;
  }

  /** Whether a request of this sequence waits. */
  has(sequence: Sequence): boolean {
    return [...this.#waiting.keys()].some(({ request }) => request.sequence === sequence);
  }

  /** Waiting requests whose sequence still holds cells. */
  holdingCells(): PendingRequest[] {
    return [...this.#waiting.keys()].filter((pending) => !pending.emptied);
  }

  add(pending: PendingRequest): void {
    const { signal } = pending.request;
    if (signal?.aborted) {
      pending.reject(abortedRequestError(pending)); // the signal fired during the decode, when nothing listened to it
      return;
    }
    const settle = (action: () => void) => () => {
      this.delete(pending);
      action();
    };
    const stop = onAbort(
      signal,
      settle(() => pending.reject(abortedRequestError(pending))),
    );
    const waiter: CellWaiter = {
      age: pending.age,
      needed: pending.emptied ? pending.cellsNeeded : pending.remaining,
      retry: settle(() => this.#retry(pending)),
      fail: (error) => settle(() => pending.reject(error))(),
    };
    this.#waiting.set(pending, () => {
      this.#cellQueue.leave(waiter);
      stop();
    });
    this.#cellQueue.wait(waiter);
  }

  /** Removes a request without settling it. */
  delete(pending: PendingRequest): void {
    this.#waiting.get(pending)?.();
    this.#waiting.delete(pending);
  }

  /** A preempted request whose sequence held tokens cannot restart here: its session has to rebuild the sequence. */
  #retry(pending: PendingRequest): void {
    if (pending.emptied && !pending.restartable) {
      pending.reject(
        new HeadstartError(
          'PREEMPTED',
          'The sequence was emptied because older requests needed its cells: decode its tokens again',
          { sequences: [pending.request.sequence.id] },
        ),
      );
      return;
    }
    pending.emptied = false;
    this.#onRetry(pending);
  }
}

/** The error of an aborted request that is in no batch. */
export function abortedRequestError({ request, emptied }: PendingRequest): HeadstartError {
  return abortedError(request.signal, emptied ? [request.sequence.id] : undefined);
}
