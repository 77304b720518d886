import { abortedError } from '../abort.js';
import { HeadstartError } from '../errors.js';
import type { CellWaiter, CellWaitQueue } from './cell-wait-queue.js';
import type { PendingRequest } from './decode-request.js';

/** Requests that wait for KV cells: whatever ends their wait, each is told, or tries again. */
export class BlockedRequests {
  readonly #room: CellWaitQueue;
  readonly #onRetry: (pending: PendingRequest) => void;
  /** Each with what takes it out of the room. */
  readonly #waiting = new Map<PendingRequest, () => void>();

  /** @param onRetry room may have come for this request */
  constructor(room: CellWaitQueue, onRetry: (pending: PendingRequest) => void) {
    this.#room = room;
    this.#onRetry = onRetry;
  }

  /** Whether a request of this sequence is among them. */
  has(sequence: number): boolean {
    return [...this.#waiting.keys()].some(({ request }) => request.sequence === sequence);
  }

  /** Those that hold some cells. */
  holdingCells(): PendingRequest[] {
    return [...this.#waiting.keys()].filter((pending) => !pending.emptied);
  }

  add(pending: PendingRequest): void {
    const { signal } = pending.request;
    if (signal?.aborted) {
      pending.reject(abortedRequestError(pending)); // while it was tried: nobody listened
      return;
    }
    const settle = (action: () => void) => () => {
      this.delete(pending);
      action();
    };
    const leave = settle(() => pending.reject(abortedRequestError(pending)));
    const waiter: CellWaiter = {
      age: pending.age,
      needed: pending.emptied ? pending.cellsNeeded : pending.remaining,
      retry: settle(() => this.#tryAgain(pending)),
      fail: (error) => settle(() => pending.reject(error))(),
    };
    this.#waiting.set(pending, () => {
      this.#room.leave(waiter);
      signal?.removeEventListener('abort', leave);
    });
    this.#room.wait(waiter);
    signal?.addEventListener('abort', leave, { once: true });
  }

  /** Nobody is told. */
  delete(pending: PendingRequest): void {
    this.#waiting.get(pending)?.();
    this.#waiting.delete(pending);
  }

  /** Who was emptied, and has told its session more than it holds, has to begin at the template. */
  #tryAgain(pending: PendingRequest): void {
    if (pending.emptied && !pending.restartable) {
      pending.reject(
        new HeadstartError('PREEMPTED', 'The sequence was emptied to make room for others: decode again what it held', {
          sequences: [pending.request.sequence],
        }),
      );
      return;
    }
    pending.emptied = false;
    this.#onRetry(pending);
  }
}

/** An abort of a request that is in no batch. */
export function abortedRequestError({ request, emptied }: PendingRequest): HeadstartError {
  return abortedError(request.signal, emptied ? [request.sequence] : undefined);
}
