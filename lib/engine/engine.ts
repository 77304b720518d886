import { waitInQueue } from '../abort.js';
import { isObserved, publish } from '../diagnostics/events.js';
import { HeadstartError } from '../errors.js';
import type { Context } from '../native/context.js';
import { CellWaitQueue } from './cell-wait-queue.js';
import type { Decoded, DecodeRequest, PrefillOptions } from './decode-request.js';
import { EngineContext } from './engine-context.js';
import { type BatchInvariance, testReproducible } from './reproducible/self-test.js';
import { Scheduler } from './scheduler.js';
import { type SequenceHolder, SequencePool } from './sequence-pool.js';
import { SequenceSwap } from './sequence-swap.js';
import type { SwappedSequence } from './swap-store.js';
import { WindowBudget } from './window-budget.js';

/** How an engine is made. */
export interface EngineOptions {
  /** Sequence ids reserved for resident templates: the highest ids of the context. @default 0 */
  residentSequences?: number;
  /** Maximum sessions that wait for a sequence. Further ones fail with `QUEUE_FULL`. @default no limit */
  maxQueueSize?: number | undefined;
  /** Memory budget for the states of sessions that hold no sequence (evicted, forked, restored), in bytes. @default 268435456 (256 MiB) */
  maxSavedBytes?: number | undefined;
  /**
   * Replies are the same to the bit, whatever else is decoded. Pass the result of {@link Engine.testReproducible}; the context
   * must have split streams and flash attention off.
   *
   * @default logits may differ in their last digits
   */
  reproducible?: BatchInvariance | undefined;
}

const DEFAULT_SWAP_BYTES = 256 * 1024 ** 2;

/** With `reproducible`: prompts are cut every so many tokens, whatever else is decoded. */
const CHUNK_TOKENS = 128;

/** Younger than every session: prefilling a resident template never preempts a session. */
const RESIDENT_AGE = 2 ** 48;

/** A snapshot of an engine's load. */
export interface EngineStatus {
  /** Sessions that wait for a sequence or for KV cells, or did not fit into the running decode. */
  queueLength: number;
  /**
   * Sessions that compute: in a turn, and not waiting for a sequence or for tools. This includes completions, starts, and
   * sessions that wait for KV cells.
   */
  activeSessions: number;
  /** Sessions that hold a sequence, the active ones included. */
  heldSequences: number;
  /** KV cells, one per token; forked sequences share cells. Counted by us, because llama.cpp does not report them. */
  kvCells: {
    /** Size of the KV cache. */
    total: number;
    /** Held by sessions, including idle ones, and by resident templates. */
    used: number;
    /** total - used. */
    free: number;
  };
  /** Bytes of states of sessions that hold no sequence. A shared state counts once for each session. */
  savedBytes: number;
  /** Reply tokens per second of all sessions, averaged over the last ten seconds. */
  tokensPerSecond: number;
  /** Decodes since the engine was created. */
  decodes: number;
  /** Tokens of prompts and replies since the engine was created. */
  decodedTokens: number;
}

/**
 * A context that many sessions share. The engine hands out its sequences, schedules its decodes, and releases KV cells when the
 * cache is full.
 */
export class Engine {
  /** The context, for everything except decoding. */
  readonly context: EngineContext;
  /** Sequences of sessions. */
  readonly sessions: SequencePool;
  /** Sequences of resident templates. */
  readonly residents: SequencePool;
  /** @internal The budget of the sliding-window cache. */
  readonly window: WindowBudget;
  readonly #scheduler: Scheduler;
  readonly #cellQueue: CellWaitQueue;
  readonly #swap: SequenceSwap;
  readonly #invariance: BatchInvariance | undefined;

  /**
   * Tests whether a model computes the same bits alone and in a batch. Needs an empty context with split streams and flash
   * attention off.
   *
   * @returns the value for {@link EngineOptions.reproducible}
   * @throws HeadstartError `NOT_REPRODUCIBLE` with the reason; `ABORTED`.
   */
  static testReproducible(context: Context, signal?: AbortSignal): Promise<BatchInvariance> {
    return testReproducible(context, signal);
  }

  constructor(context: Context, options: EngineOptions = {}) {
    const { maxSequences, kvLayout, kvCells } = context.info;
    const sharedCells = kvLayout === 'unified' && !context.model.recurrent ? kvCells : Number.POSITIVE_INFINITY;
    const sessionCount = maxSequences - (options.residentSequences ?? 0);
    const ids = Array.from({ length: maxSequences }, (_, id) => id);
    const empty = (sequence: number) => this.context.removeSequence(sequence);
    const onIdle = () => this.#cellQueue.onReleased();
    this.#cellQueue = new CellWaitQueue(() => this.context.info.kvCells - this.context.cells.used);
    this.#invariance = options.reproducible;
    this.context = new EngineContext(context, onIdle, this.reproducible);
    const onEvict = (sequence: number, holder: SequenceHolder) => this.#swap.swapOut(sequence, holder);
    this.sessions = new SequencePool(ids.slice(0, sessionCount), empty, {
      onIdle,
      onEvict,
      maxQueueSize: options.maxQueueSize,
    });
    this.residents = new SequencePool(ids.slice(sessionCount), empty, { onIdle, firstAge: RESIDENT_AGE });
    this.window = new WindowBudget(this.context, this.residents, sessionCount);
    this.#scheduler = new Scheduler({
      context: this.context,
      cellQueue: this.#cellQueue,
      canTrim: this.canTrim,
      evictIdle: () => this.#evictIdle(),
      othersHoldCells: (sequence) => this.#othersHoldCells(sequence),
      ageOf: (sequence) => this.#ageOf(sequence),
      fullError: (cause) => this.#fullError(cause),
      // Recurrent states take no cells, and each split stream has its own.
      freeCells: () => sharedCells - this.context.cells.used,
      canEverFit: (tokens) => context.model.recurrent || tokens <= context.info.kvCellsPerSequence,
      chunkSize: this.reproducible ? Engine.chunkSize(context) : undefined,
      batchInvariance: () => this.batchInvariance,
    });
    this.#swap = new SequenceSwap(
      {
        context: this.context,
        canTrim: this.canTrim,
        reproducible: this.reproducible,
        hasWindow: this.hasWindow,
        promptMsPerToken: () => this.#scheduler.throughput.promptMsPerToken,
        decode: (request) => this.decode(request),
        withCells: (attempt, signal, sequence) => this.withCells(attempt, signal, sequence),
      },
      options.maxSavedBytes ?? DEFAULT_SWAP_BYTES,
    );
  }

  /** With `reproducible`: prompts are cut every so many tokens, counted from their start. */
  static chunkSize({ info }: Pick<Context, 'info'>): number {
    return Math.min(CHUNK_TOKENS, info.batchSize, info.microBatchSize);
  }

  /** Whether replies are the same to the bit, whatever else is decoded. */
  get reproducible(): boolean {
    return this.#invariance !== undefined;
  }

  /** With `reproducible`: which requests may share a batch. With LoRA adapters none, because the self-test ran without them. */
  get batchInvariance(): BatchInvariance | undefined {
    return this.reproducible && this.context.isAdapted ? 'none' : this.#invariance;
  }

  /** Whether the end of a sequence can be removed. Not on recurrent memory, nor with a sliding window, whose older cells are gone. */
  get canTrim(): boolean {
    const { recurrent, hybrid } = this.context.model;
    return !recurrent && !hybrid && !this.hasWindow;
  }

  /** Whether some layers keep only the cells of a sliding window. */
  get hasWindow(): boolean {
    return this.context.model.slidingWindow > 0 && !this.context.info.fullSlidingWindow;
  }

  /**
   * Appends `tokens` to a sequence and picks the next token. Requests share decodes. A request that runs alone is always cut
   * into the same batches. When the promise settles, `onDecoded` has reported all tokens that are in the sequence.
   *
   * @throws HeadstartError `PREEMPTED` if the sequence was emptied because older requests needed its cells: decode its tokens
   *   again; `CONTEXT_FULL` if it does not fit into the KV cache at all; `ABORTED`, with `sequences` if the sequence is empty now;
   *   the code of a failed sampler; and as {@link Context.decode}.
   */
  decode(request: DecodeRequest): Promise<Decoded> {
    const decoding = this.#scheduler.submit(request);
    return request.tokens?.length > 1 && isObserved('prefill') ? observePrefill(request, decoding) : decoding;
  }

  /** Like {@link decode}, with greedy sampling. */
  async prefill(sequence: number, tokens: Int32Array, from: number, options: PrefillOptions = {}): Promise<number> {
    return (await this.decode({ ...options, sequence, tokens, from })).token;
  }

  /**
   * Runs work that needs KV cells for an empty sequence, again and again until it fits. Between attempts it evicts idle resident
   * templates whose cells no session shares, then idle sessions, then other resident templates, and then waits for a release.
   *
   * @param sequence the sequence that needs the cells: younger requests than its holder are preempted. @default preempts none
   * @throws HeadstartError `CONTEXT_FULL` if there is nothing to evict or to wait for, `ABORTED` while waiting.
   */
  async withCells<T>(attempt: () => Promise<T>, signal?: AbortSignal, sequence?: number): Promise<T> {
    for (;;) {
      const { releases: freeings } = this.#cellQueue;
      try {
        return await attempt();
      } catch (error) {
        if (!HeadstartError.isInstance(error, 'NO_KV_SLOT')) {
          throw error;
        }
        if (this.#evictIdle() || this.#cellQueue.releases > freeings) {
          continue;
        }
        if (!this.#othersHoldCells(-1)) {
          throw this.#fullError(error);
        }
        await this.#waitForCells(sequence === undefined ? Number.MAX_SAFE_INTEGER : this.#ageOf(sequence), signal);
      }
    }
  }

  /**
   * Restores the state of an evicted holder into an empty sequence, if it was kept and is useful for `wanted`.
   *
   * @returns the tokens that are in the sequence now; undefined if nothing was restored
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  swapIn(
    holder: SequenceHolder,
    sequence: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    return this.#swap.swapIn(holder, sequence, wanted, signal);
  }

  /**
   * With `reproducible`, if {@link swapIn} restored nothing: decodes the tokens of an evicted holder again in the same batches,
   * after the template has been loaded.
   *
   * @param length tokens that are in the sequence
   * @returns the tokens that are in the sequence now; undefined if there was nothing to decode
   * @throws HeadstartError as {@link decode}.
   */
  replay(
    holder: SequenceHolder,
    sequence: number,
    length: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    return this.#swap.replay(holder, sequence, length, wanted, signal);
  }

  /** Whether something was kept for a holder without a sequence. */
  hasSwapped(holder: SequenceHolder): boolean {
    return this.#swap.has(holder);
  }

  /**
   * @internal A checkpoint of a holder with its state, for a fork or a file. The caller closes the state.
   *
   * @param sequence the holder's sequence; undefined if it has none
   * @returns undefined if the holder has no tokens
   * @throws HeadstartError `CLOSED`, `CAPTURE_FAILED`, `OUT_OF_MEMORY`.
   */
  checkpointOf(holder: SequenceHolder, sequence: number | undefined): Promise<SwappedSequence | undefined> {
    return this.#swap.checkpointOf(holder, sequence);
  }

  /** @internal The same without a state and without waiting, with `reproducible`: the target of {@link rollBack}. */
  checkpoint(holder: SequenceHolder, sequence: number | undefined): SwappedSequence {
    return this.#swap.checkpoint(holder, sequence);
  }

  /**
   * @internal Undoes everything since {@link checkpoint}.
   *
   * @returns whether the sequence holds the checkpoint now; if not, the holder restores it later, and its sequence is of no use
   */
  rollBack(holder: SequenceHolder, sequence: number | undefined, checkpoint: SwappedSequence): Promise<boolean> {
    return this.#swap.rollBack(holder, sequence, checkpoint);
  }

  /**
   * @internal Gives a holder the checkpoint of another, for {@link swapIn}. The engine owns its state from now on.
   *
   * @returns whether the state was kept: it is useful and within the budget
   */
  adopt(holder: SequenceHolder, checkpoint: SwappedSequence): boolean {
    return this.#swap.adopt(holder, checkpoint);
  }

  /** Drops what was kept for a holder. */
  dropSwapped(holder: SequenceHolder): void {
    this.#swap.drop(holder);
  }

  /** Drops what was kept for all holders, because the model now computes something else. */
  clearSwapped(): void {
    this.#swap.clear();
  }

  /** The engine's load right now. */
  status(): EngineStatus {
    const { kvCells } = this.context.info;
    const { used } = this.context.cells;
    const { decodes, decodedTokens } = this.context.counters();
    return {
      queueLength: this.sessions.queueLength + this.#scheduler.waiting,
      activeSessions: this.sessions.busyCount,
      heldSequences: this.sessions.heldCount,
      kvCells: { total: kvCells, used, free: Math.max(0, kvCells - used) },
      savedBytes: this.#swap.bytes,
      tokensPerSecond: this.#scheduler.throughput.tokensPerSecond(),
      decodes,
      decodedTokens,
    };
  }

  /** Rejects new work, ends running work, and closes the context. Idempotent. */
  async close(): Promise<void> {
    this.sessions.close();
    this.residents.close();
    this.#scheduler.close();
    this.#cellQueue.close(() => new HeadstartError('CLOSED', 'The engine was closed'));
    this.#swap.close();
    await this.context.close();
  }

  /** Evicts idle resident templates first, if that releases cells. Templates that sessions share, and pinned ones, go last. */
  #evictIdle(): boolean {
    const isFreed = (sequence: number, { pinned }: SequenceHolder) => !pinned && this.context.cells.hasOwn(sequence);
    return this.residents.evictIdle(isFreed) || this.sessions.evictIdle() || this.residents.evictIdle();
  }

  #ageOf(sequence: number): number {
    return this.sessions.ageOf(sequence) ?? this.residents.ageOf(sequence) ?? RESIDENT_AGE;
  }

  #othersHoldCells(own: number): boolean {
    for (let sequence = 0; sequence < this.context.info.maxSequences; sequence++) {
      const inUse = () =>
        this.sessions.isBusy(sequence) || this.residents.isBusy(sequence) || this.#scheduler.has(sequence);
      if (sequence !== own && !this.context.cells.isEmpty(sequence) && inUse()) {
        return true;
      }
    }
    return false;
  }

  #waitForCells(age: number, signal: AbortSignal | undefined): Promise<void> {
    return waitInQueue<void>(signal, (retry, fail) => {
      const waiter = { age, needed: 0, claims: true, retry, fail };
      this.#cellQueue.wait(waiter);
      this.#scheduler.wake();
      return () => this.#cellQueue.leave(waiter);
    });
  }

  #fullError(cause: unknown): HeadstartError {
    const { kvCells, kvCellsPerSequence } = this.context.info;
    return new HeadstartError(
      'CONTEXT_FULL',
      `Not enough KV cache for this session: it has ${kvCells} cells in total, ${kvCellsPerSequence} for one sequence. Raise \`kvCells\``,
      { cause },
    );
  }
}

async function observePrefill({ sequence, tokens }: DecodeRequest, decoding: Promise<Decoded>): Promise<Decoded> {
  const begin = performance.now();
  const decoded = await decoding;
  publish('prefill', { sequence, tokens: tokens.length, ms: performance.now() - begin });
  return decoded;
}
