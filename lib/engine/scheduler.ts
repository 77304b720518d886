import { abortedError } from '../abort.js';
import { isObserved, publish } from '../diagnostics/events.js';
import { HeadstartError } from '../errors.js';
import { type BatchLimits, BatchWriter, countTokens, fitBatch, planBatch, type Slice } from './batch.js';
import { abortedRequestError, BlockedRequests } from './blocked-requests.js';
import type { CellWaitQueue } from './cell-wait-queue.js';
import { type Decoded, type DecodeRequest, PendingRequest, requestProblem } from './decode-request.js';
import { requestExtras, picksFrom, settleRequest, reportDecoded } from './decode-results.js';
import type { EngineContext } from './engine-context.js';
import type { BatchInvariance } from './reproducible/self-test.js';
import { Throughput } from './throughput.js';

/** A decode that takes no longer is not ended early. */
const BRIEF_MS = 50;

/** What the scheduler asks of its engine. */
export interface SchedulerHost {
  context: EngineContext;
  cellQueue: CellWaitQueue;
  /** Frees the cells of somebody idle; false where nobody is. */
  evictIdle(): boolean;
  /** Whether somebody else holds cells, and will let go of them sooner or later. */
  othersHoldCells(sequence: number): boolean;
  /** When the holder of a sequence began what it does now. */
  ageOf(sequence: number): number;
  fullError(cause: unknown): HeadstartError;
  /** KV cells that any sequence may take; infinite where each has its own. */
  freeCells(): number;
  /** Whether a sequence of so many tokens fits where nobody else holds cells. */
  canEverFit(tokens: number): boolean;
  /** Whether a sequence's end can be cut off. */
  canTrim: boolean;
  /** See {@link BatchLimits}. */
  chunkSize?: number | undefined;
  /** See {@link BatchLimits}. */
  batchInvariance(): BatchInvariance | undefined;
}

/**
 * Continuous batching: all requests that are ready share each decode, and one decode runs at a time. Between two of them
 * the promises of the first settle, their sessions ask for the next token, and aborts take effect.
 */
export class Scheduler {
  readonly throughput = new Throughput();
  readonly #host: SchedulerHost;
  /** Requests that are ready; who is to be served next comes first. */
  #queue: PendingRequest[] = [];
  readonly #blocked: BlockedRequests;
  readonly #writer: BatchWriter;
  readonly #limits: BatchLimits;
  #decoding = false;
  /** Requests in the newest decode. */
  #inBatch = 0;
  /** The next step comes with the next turn of the event loop, at the latest. */
  #scheduled = false;
  /** Sequences that got a token of the newest decode and have not yet asked for the next one. */
  readonly #awaited = new Set<number>();
  #closed = false;
  /** What the newest decode took. */
  #stepMs = Number.POSITIVE_INFINITY;
  /** Whether it was of a prompt alone. */
  #wasPiece = false;

  constructor(host: SchedulerHost) {
    this.#host = host;
    const { batchSize, maxOutputs } = host.context.info;
    const { throughput: pace } = this;
    const wasPiece = () => this.#wasPiece;
    this.#blocked = new BlockedRequests(host.cellQueue, (pending) => {
      this.#queue.unshift(pending);
      this.#schedule();
    });
    this.#writer = new BatchWriter(batchSize);
    this.#limits = {
      batchSize,
      maxOutputs,
      get promptBudget() {
        return pace.promptBudget(batchSize);
      },
      chunkSize: host.chunkSize,
      get invariance() {
        return host.batchInvariance();
      },
      get afterChunk() {
        return wasPiece();
      },
    };
  }

  /** Who waits for cells, and requests that were left out of the decode that runs. */
  get waiting(): number {
    const ready = this.#decoding ? this.#queue.length - this.#inBatch : 0; // else all go into the next, at once
    return Math.max(0, ready) + this.#host.cellQueue.length;
  }

  /** Sequences with a request under way. */
  has(sequence: number): boolean {
    return this.#queue.some(({ request }) => request.sequence === sequence) || this.#blocked.has(sequence);
  }

  /** What is wrong with the request comes through the promise, too. */
  submit(request: DecodeRequest): Promise<Decoded> {
    const refusal = this.#refusalOf(request);
    if (refusal !== undefined) {
      return Promise.reject(refusal);
    }
    const pending = new PendingRequest(request, this.#host.ageOf(request.sequence));
    this.#queue.push(pending);
    if (this.#awaited.delete(request.sequence) && this.#awaited.size === 0) {
      this.#begin(); // all who go on are here
    } else {
      this.#schedule();
    }
    return pending.promise;
  }

  #refusalOf(request: DecodeRequest): HeadstartError | undefined {
    const { context, canEverFit, fullError } = this.#host;
    const { signal } = request;
    const problem = requestProblem(request, context.requestLimits);
    if (problem !== undefined || this.#closed) {
      return problem ?? closedError();
    }
    if (signal?.aborted) {
      return abortedError(signal);
    }
    // Before anybody makes room for it.
    return canEverFit(request.from + request.tokens.length) ? undefined : fullError(undefined);
  }

  /** Refuses new requests, and fails those that wait before anything else is decoded. One that computes ends with its context. */
  close(): void {
    this.#closed = true;
  }

  /** After everything that the last decode's tokens made their sessions do: so that all go into the next one. */
  #schedule(): void {
    if (this.#queue.length > 0) {
      this.wake();
    }
  }

  /** Looks with the next turn of the event loop what is to be done, between two decodes: somebody else may claim cells. */
  wake(): void {
    if (!this.#decoding && !this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#onTurn);
    }
  }

  readonly #onTurn = (): void => {
    this.#scheduled = false;
    this.#begin();
  };

  #begin(): void {
    if (this.#decoding) {
      return;
    }
    this.#dropAborted();
    if (this.#closed) {
      this.#failAll();
    }
    this.#heedClaim();
    if (this.#queue.length > 0) {
      this.#step();
    }
  }

  /** Who waits for the cells of a state is in no batch: the last to come of those that are gives way, where it came later. */
  #heedClaim(): void {
    const { claim } = this.#host.cellQueue;
    const youngest = claim === undefined ? undefined : youngestOf([...this.#queue, ...this.#blocked.holdingCells()]);
    if (claim !== undefined && youngest !== undefined && youngest.age > claim) {
      this.#emptyAndWait(youngest);
    }
  }

  async #step(): Promise<void> {
    this.#decoding = true;
    this.#awaited.clear();
    const slices = this.#fit(planBatch(this.#queue, this.#limits));
    this.#inBatch = slices.length;
    const begin = performance.now();
    const { releases: freeings } = this.#host.cellQueue;
    try {
      const decoding = this.#host.context.decode(this.#writer.write(slices, this.#signalOf(slices)));
      const extras = requestExtras(this.#host.context, slices);
      let picks: Int32Array;
      try {
        picks = await decoding;
      } catch (error) {
        picks = picksFrom(error);
      }
      const end = performance.now();
      this.#stepMs = end - begin;
      this.#wasPiece = slices.length === 1 && (slices[0] as Slice).count > 1;
      this.#account(slices, this.#stepMs, end);
      this.#deliver(slices, picks, extras && (await extras));
    } catch (error) {
      await this.#recover(slices, error, freeings);
    } finally {
      this.#decoding = false;
      if (this.#closed) {
        this.#failAll();
      }
      this.#schedule();
    }
  }

  /**
   * An abort takes effect inside a decode only where it is nobody else's, and not inside a token's that ends before anybody
   * notices: to listen costs as much as all else that JavaScript does in a step.
   */
  #signalOf(slices: readonly Slice[]): AbortSignal | undefined {
    const [first] = slices;
    const isBrief = first?.count === 1 && this.#stepMs < BRIEF_MS;
    return slices.length > 1 || isBrief ? undefined : first?.pending.request.signal;
  }

  /** Where cells are short, somebody idle gives way before the batch is cut. All of it where nothing fits. */
  #fit(slices: readonly Slice[]): readonly Slice[] {
    const { freeCells, evictIdle } = this.#host;
    const tokens = countTokens(slices);
    let free = freeCells();
    while (tokens > free && evictIdle()) {
      free = freeCells();
    }
    return tokens > free && free > 0 ? fitBatch(slices, free) : slices;
  }

  #deliver(slices: readonly Slice[], picks: Int32Array, extras: readonly Partial<Decoded>[] | undefined): void {
    let output = 0;
    for (let index = 0; index < slices.length; index++) {
      const { pending, count } = slices[index] as Slice;
      const failure = reportDecoded(pending, count);
      pending.done += count;
      pending.suspect = false;
      const isDecoded = pending.remaining === 0;
      const token = isDecoded ? (picks[output++] as number) : -1;
      if (!isDecoded && failure === undefined) {
        this.#moveToEnd(pending);
        continue;
      }
      this.#remove(pending);
      if (failure === undefined) {
        this.#awaited.add(pending.request.sequence);
        settleRequest(pending, token, extras?.[index]);
      } else {
        pending.reject(failure.error);
      }
    }
  }

  #account(slices: readonly Slice[], ms: number, now: number): void {
    let tokens = 0;
    let promptTokens = 0;
    for (const { pending, count } of slices) {
      const { request, done } = pending;
      this.#host.context.decoded(request, done, count);
      tokens += count;
      promptTokens += request.tokens.length > 1 ? count : 0;
    }
    this.throughput.record(tokens, promptTokens, ms, now);
    if (isObserved('decode')) {
      const waiting = this.#queue.length - slices.length;
      publish('decode', { tokens, promptTokens, sequences: slices.length, waiting, ms });
    }
  }

  /** Nothing of the batch was decoded, or something of it in vain: whose failure is it? */
  async #recover(slices: readonly Slice[], error: unknown, freeings: number): Promise<void> {
    const [first] = slices;
    if (HeadstartError.isInstance(error, 'NO_KV_SLOT')) {
      this.#makeRoom(slices, error, freeings);
    } else if (HeadstartError.isInstance(error, 'CLOSED') && this.#closed) {
      this.#failAll();
    } else if (slices.length === 1 && first !== undefined) {
      this.#remove(first.pending);
      first.pending.reject(await this.#afterFailure(first.pending, error));
    } else {
      await this.#suspectAll(slices, error);
    }
  }

  /** An abort or a failure inside a batch may leave a part of it: where sequences can be trimmed, it is as if it had not begun. */
  async #afterFailure({ request, done }: PendingRequest, error: unknown): Promise<unknown> {
    if (!HeadstartError.isInstance(error) || error.sequences === undefined) {
      return error;
    }
    const { context, canTrim } = this.#host;
    await context.removeSequence(request.sequence, canTrim ? request.from + done : 0).catch(() => undefined);
    if (!canTrim) {
      return error;
    }
    return error.code === 'ABORTED' ? new HeadstartError('ABORTED', error.message, { cause: error.cause }) : error;
  }

  /** Each of them is tried alone: the one that fails then is the culprit. Where they cannot be put right, all fail. */
  async #suspectAll(slices: readonly Slice[], error: unknown): Promise<void> {
    const changed = HeadstartError.isInstance(error) && error.sequences !== undefined;
    for (const { pending } of slices) {
      const failure = await this.#afterFailure(pending, error);
      if (changed && !this.#host.canTrim) {
        this.#remove(pending);
        pending.reject(failure);
      } else {
        pending.suspect = true;
      }
    }
  }

  /** Evicts somebody idle; else the last to come of those that compute gives way, until a neighbour frees cells. */
  #makeRoom(slices: readonly Slice[], error: unknown, freeings: number): void {
    if (this.#host.evictIdle() || this.#host.cellQueue.releases > freeings) {
      return;
    }
    const candidates = [...slices.map(({ pending }) => pending), ...this.#blocked.holdingCells()];
    const youngest = youngestOf(candidates) as PendingRequest;
    if (candidates.length > 1) {
      this.#emptyAndWait(youngest);
      return;
    }
    // It is alone, and keeps what it has.
    if (this.#host.othersHoldCells(youngest.request.sequence)) {
      this.#block(youngest);
    } else {
      this.#remove(youngest);
      youngest.reject(this.#host.fullError(error));
    }
  }

  #emptyAndWait(pending: PendingRequest): void {
    this.#remove(pending);
    this.#blocked.delete(pending);
    pending.emptied = true;
    pending.done = 0;
    this.#host.context.preempt(pending.request.sequence);
    this.#block(pending);
    this.#host.cellQueue.onPreempted(pending.age);
  }

  #block(pending: PendingRequest): void {
    this.#remove(pending);
    this.#blocked.add(pending);
  }

  #dropAborted(): void {
    for (let index = 0; index < this.#queue.length; index++) {
      const pending = this.#queue[index] as PendingRequest;
      if (pending.request.signal?.aborted) {
        this.#queue.splice(index--, 1);
        pending.reject(abortedRequestError(pending));
      }
    }
  }

  #remove(pending: PendingRequest): void {
    const index = this.#queue.indexOf(pending);
    if (index === 0) {
      this.#queue.shift(); // most often: what was decoded stood first
    } else if (index > 0) {
      this.#queue.splice(index, 1);
    }
  }

  /** Others come first in the next batch. */
  #moveToEnd(pending: PendingRequest): void {
    this.#remove(pending);
    this.#queue.push(pending);
  }

  #failAll(): void {
    for (const pending of this.#queue.splice(0)) {
      pending.reject(closedError());
    }
  }
}

function youngestOf(candidates: readonly PendingRequest[]): PendingRequest | undefined {
  return candidates.reduce<PendingRequest | undefined>(
    (last, each) => (last === undefined || each.age > last.age ? each : last),
    undefined,
  );
}

function closedError(): HeadstartError {
  return new HeadstartError('CLOSED', 'Expected an open engine, but it was closed');
}
