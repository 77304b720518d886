import { abortedError } from '../abort.js';
import { isObserved, publish } from '../diagnostics/events.js';
import { HeadstartError } from '../errors.js';
import { type BatchLimits, BatchWriter, countTokens, fitBatch, planBatch, type Slice } from './batch.js';
import { abortedRequestError, BlockedRequests } from './blocked-requests.js';
import { type Decoded, type DecodeRequest, PendingRequest, requestProblem, youngestOf } from './decode-request.js';
import { clearFailed, picksFrom, requestExtras, settleRequest } from './decode-results.js';
import type { SchedulerHost } from './scheduler-host.js';
import type { Sequence } from './sequence.js';
import { Throughput } from './throughput.js';

/** An abort interrupts the decode of a single token only if the newest decode took at least this long, ms. */
const BRIEF_MS = 50;

/**
 * Continuous batching: one decode runs at a time, and all requests that are ready share it. After each decode its
 * promises settle, the sessions request their next tokens, and aborts take effect.
 */
export class Scheduler {
  readonly throughput = new Throughput();
  readonly #host: SchedulerHost;
  /** Requests that are ready to be decoded, in order. */
  #queue: PendingRequest[] = [];
  readonly #blocked: BlockedRequests;
  readonly #writer: BatchWriter;
  readonly #limits: BatchLimits;
  #decoding = false;
  /** The number of requests in the newest decode. */
  #inBatch = 0;
  /** Whether the next step is scheduled with `setImmediate`. */
  #scheduled = false;
  /** Sequences that received a token from the newest decode and have not requested the next one yet. */
  readonly #awaited = new Set<Sequence>();
  #closed = false;
  /** Duration of the newest decode, ms. */
  #stepMs = Number.POSITIVE_INFINITY;
  /** Whether the newest decode was a chunk of one prompt. */
  #wasChunk = false;
  /** Work that runs when the current decode has ended. */
  readonly #betweenSteps: (() => void)[] = [];

  constructor(host: SchedulerHost) {
    this.#host = host;
    const { batchSize, maxOutputs } = host.context.info;
    const { throughput } = this;
    const wasChunk = () => this.#wasChunk;
    this.#blocked = new BlockedRequests(host.cellQueue, (pending) => {
      this.#queue.unshift(pending);
      this.#schedule();
    });
    this.#writer = new BatchWriter(batchSize);
    this.#limits = {
      batchSize,
      maxOutputs,
      get promptBudget() {
        return throughput.promptBudget(batchSize);
      },
      chunkSize: host.chunkSize,
      get maxPromptTokens() {
        return host.context.maxPromptTokens;
      },
      now: host.now,
      get invariance() {
        return host.batchInvariance();
      },
      get afterChunk() {
        return wasChunk();
      },
    };
  }

  /** The number of requests that wait for cells or did not fit into the running decode. */
  get waiting(): number {
    // If no decode is running, the next one takes all requests that are ready.
    const ready = this.#decoding ? this.#queue.length - this.#inBatch : 0;
    return Math.max(0, ready) + this.#host.cellQueue.length;
  }

  /** Whether the sequence has a request in progress. */
  has(sequence: Sequence): boolean {
    return this.#queue.some(({ request }) => request.sequence === sequence) || this.#blocked.has(sequence);
  }

  /** Never throws: an invalid request rejects the promise. */
  submit(request: DecodeRequest): Promise<Decoded> {
    const refusal = this.#refusalOf(request);
    if (refusal !== undefined) {
      return Promise.reject(refusal);
    }
    const pending = new PendingRequest(request, this.#host.ageOf(request.sequence));
    this.#queue.push(pending);
    if (this.#awaited.delete(request.sequence) && this.#awaited.size === 0) {
      this.#begin(); // all sequences of the last decode have requested their next token
    } else {
      this.#schedule();
    }
    return pending.promise;
  }

  /** Calls `work` while no decode is running. All sequences then hold exactly the tokens that they record. */
  betweenSteps<T>(work: () => Promise<T>): Promise<T> {
    return this.#decoding
      ? new Promise((resolve) => {
          this.#betweenSteps.push(() => resolve(work()));
        })
      : work();
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
    // Refused before it is queued, so that no sequence is evicted for a request that can never fit.
    return canEverFit(request.sequence.length + request.tokens.length) ? undefined : fullError(undefined);
  }

  /**
   * Rejects new requests at once, and waiting requests when the running decode ends. The decode ends when its context
   * is closed.
   */
  close(): void {
    this.#closed = true;
  }

  /**
   * Schedules the next step. The step starts after the sessions have handled the tokens of the last decode, so that all
   * sessions can join it.
   */
  #schedule(): void {
    if (this.#queue.length > 0) {
      this.wake();
    }
  }

  /** Runs the next step with `setImmediate`. Call it also when a waiter outside the queue claims cells. */
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
    this.#dropEnded();
    if (this.#closed) {
      this.#failAll();
    }
    this.#preemptForClaim();
    if (this.#queue.length > 0) {
      this.#step();
    }
  }

  /**
   * Preempts the youngest request if an older waiter claims cells. Such a waiter restores a state, so it is in no
   * batch.
   */
  #preemptForClaim(): void {
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
    const { releases: releasesBefore } = this.#host.cellQueue;
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
      this.#wasChunk = slices.length === 1 && (slices[0] as Slice).count > 1;
      this.#account(slices, this.#stepMs, end);
      this.#deliver(slices, picks, extras && (await extras));
    } catch (error) {
      await this.#recover(slices, error, releasesBefore);
    } finally {
      this.#decoding = false;
      for (const run of this.#betweenSteps.splice(0)) {
        run();
      }
      if (this.#closed) {
        this.#failAll();
      }
      this.#schedule();
    }
  }

  /**
   * The signal that may interrupt a decode. These decodes cannot be interrupted:
   *
   * - a decode that several requests share;
   * - a decode on memory that cannot be trimmed, because the sequence would lose all its tokens;
   * - a brief decode, because a listener would double the time that JavaScript needs for each decode.
   */
  #signalOf(slices: readonly Slice[]): AbortSignal | undefined {
    const [first] = slices;
    const isBrief = first?.count === 1 && this.#stepMs < BRIEF_MS;
    return slices.length > 1 || isBrief || !this.#host.canTrim ? undefined : first?.pending.request.signal;
  }

  /**
   * If cells run out, evicts idle sequences, and then cuts the batch. Returns the whole batch if no part of it fits.
   */
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
      pending.done += count;
      pending.suspect = false;
      if (pending.remaining > 0) {
        this.#moveToEnd(pending);
        continue;
      }
      this.#remove(pending);
      this.#awaited.add(pending.request.sequence);
      settleRequest(pending, picks[output++] as number, extras?.[index]);
    }
  }

  #account(slices: readonly Slice[], ms: number, now: number): void {
    let tokens = 0;
    let promptTokens = 0;
    for (const { pending, count } of slices) {
      const { request, done } = pending;
      if (request.sequence.isLeased) {
        request.sequence.append(request.tokens, done, done + count);
      }
      tokens += count;
      promptTokens += request.tokens.length > 1 ? count : 0;
    }
    this.throughput.record(tokens, promptTokens, ms, now);
    if (isObserved('decode')) {
      const waiting = this.#queue.length - slices.length;
      publish('decode', { tokens, promptTokens, sequences: slices.length, waiting, ms });
    }
  }

  /**
   * Handles a failed decode: releases cells, rejects the request that caused the failure, or finds out which one did.
   */
  async #recover(slices: readonly Slice[], error: unknown, releasesBefore: number): Promise<void> {
    const [first] = slices;
    if (HeadstartError.isInstance(error, 'NO_KV_SLOT')) {
      this.#releaseCells(slices, error, releasesBefore);
    } else if (HeadstartError.isInstance(error, 'CLOSED') && this.#closed) {
      this.#failAll();
    } else if (slices.length === 1 && first !== undefined) {
      this.#remove(first.pending);
      first.pending.reject((await clearFailed(error, first.pending.request, this.#host.canTrim)).failure);
    } else {
      await this.#suspectAll(slices, error);
    }
  }

  /**
   * Marks all requests of a failed batch to be decoded alone, to find the one that fails. A request whose sequence was
   * emptied is rejected.
   */
  async #suspectAll(slices: readonly Slice[], error: unknown): Promise<void> {
    for (const { pending } of slices) {
      const { failure, isEmptied } = await clearFailed(error, pending.request, this.#host.canTrim);
      if (isEmptied) {
        this.#remove(pending);
        pending.reject(failure);
      } else {
        pending.suspect = true;
      }
    }
  }

  /** Evicts an idle sequence. If no sequence is idle, preempts the youngest request, which then waits for cells. */
  #releaseCells(slices: readonly Slice[], error: unknown, releasesBefore: number): void {
    if (this.#host.evictIdle() || this.#host.cellQueue.releases > releasesBefore) {
      return;
    }
    const candidates = [...slices.map(({ pending }) => pending), ...this.#blocked.holdingCells()];
    const youngest = youngestOf(candidates) as PendingRequest;
    if (candidates.length > 1) {
      this.#emptyAndWait(youngest);
      return;
    }
    // No other request holds cells, so this one keeps its own.
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
    pending.cellsNeeded = pending.request.sequence.length + pending.remaining;
    pending.done = 0;
    pending.request.sequence.preempt();
    this.#block(pending);
    this.#host.cellQueue.onPreempted(pending.age);
  }

  #block(pending: PendingRequest): void {
    this.#remove(pending);
    this.#blocked.add(pending);
  }

  #dropEnded(): void {
    for (let index = 0; index < this.#queue.length; index++) {
      const pending = this.#queue[index] as PendingRequest;
      const { signal, sequence } = pending.request;
      if (signal?.aborted || !sequence.isLeased) {
        this.#queue.splice(index--, 1);
        pending.reject(sequence.isLeased ? abortedRequestError(pending) : releasedError());
      }
    }
  }

  #remove(pending: PendingRequest): void {
    const index = this.#queue.indexOf(pending);
    if (index === 0) {
      this.#queue.shift(); // the usual case: a decoded request is the first
    } else if (index > 0) {
      this.#queue.splice(index, 1);
    }
  }

  /** Moves a request to the end of the queue, so that the next batch takes other requests first. */
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

function closedError(): HeadstartError {
  return new HeadstartError('CLOSED', 'Expected an open engine, but it was closed');
}

function releasedError(): HeadstartError {
  return new HeadstartError('CLOSED', 'Expected a leased sequence, but it was released before its request was decoded');
}
