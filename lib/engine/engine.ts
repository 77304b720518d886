import { throwIfAborted } from '../abort.js';
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
  /** Sequence ids kept for resident templates, from the top of the context's range. @default 0 */
  residentSequences?: number;
  /** Most sessions that wait for a sequence; one more is refused with `QUEUE_FULL`. @default any number */
  maxQueueSize?: number | undefined;
  /** Budget of the states that evicted sessions, forks and restored sessions come back from, in bytes. @default 268435456 (256 MiB) */
  maxSavedBytes?: number | undefined;
  /**
   * Replies are the same to the bit, whoever else decodes: what {@link Engine.reproducible} found out of the model. The
   * context has split streams and flash attention off then.
   *
   * @default replies may differ in their last digits
   */
  reproducible?: BatchInvariance | undefined;
}

const DEFAULT_SAVED_BYTES = 256 * 1024 ** 2;

/** Of prompts, where they are cut at offsets that do not depend on company. */
const PIECE_TOKENS = 128;

/** Above all ages of sessions: who fills a sequence of theirs for none takes no cells from any. */
const RESIDENT_AGE = 2 ** 48;

/** How an engine does right now. */
export interface EngineStatus {
  /** Sessions that wait for a sequence or for KV cells, or were left out of the decode that runs. */
  queueLength: number;
  /**
   * Sessions that compute: in a turn, and not waiting for a sequence or for tools. Completions and starts are among them, and so
   * is who waits for KV cells.
   */
  activeSessions: number;
  /** Sessions that hold a sequence, the active ones included. */
  heldSequences: number;
  /** Resident templates. */
  residentTemplates: number;
  /** KV cells: one a token, shared by sequences that were forked. Counted, as llama.cpp does not tell. */
  kvCells: {
    /** All there are. */
    total: number;
    /** By sessions, idle ones included, and resident templates. */
    used: number;
    /** total - used. */
    free: number;
  };
  /** States of sessions that hold no sequence, in bytes: each counted for everyone who comes back to it. */
  savedBytes: number;
  /** Tokens of replies, of all sessions together: a mean of the last ten seconds. */
  tokensPerSecond: number;
  /** Since the engine was made. */
  decodes: number;
  /** Tokens of prompts and replies, since the engine was made. */
  decodedTokens: number;
}

/**
 * One context that many sessions share: its sequence ids, its decodes, and what happens when its KV cache is full.
 */
export class Engine {
  /** Its context, as all may use it beside the scheduler. */
  readonly context: EngineContext;
  /** Sequences that sessions generate in. */
  readonly sessions: SequencePool;
  /** Sequences that hold resident templates. */
  readonly residents: SequencePool;
  /** @internal Of a sliding window's cells: whether they have room for what sequences are to share. */
  readonly window: WindowBudget;
  readonly #scheduler: Scheduler;
  readonly #room: CellWaitQueue;
  readonly #comeback: SequenceSwap;
  readonly #company: BatchInvariance | undefined;

  /**
   * Tests what a model's kernels compute in company, on an empty context in split streams with flash attention off.
   *
   * @returns what to give as {@link EngineOptions.reproducible}
   * @throws HeadstartError `NOT_REPRODUCIBLE` with the reason; `ABORTED`.
   */
  static reproducible(context: Context, signal?: AbortSignal): Promise<BatchInvariance> {
    return testReproducible(context, signal);
  }

  constructor(context: Context, options: EngineOptions = {}) {
    const { maxSequences, kvLayout, kvCells } = context.info;
    const sharedCells = kvLayout === 'unified' && !context.model.recurrent ? kvCells : Number.POSITIVE_INFINITY;
    const sessionCount = maxSequences - (options.residentSequences ?? 0);
    const ids = Array.from({ length: maxSequences }, (_, id) => id);
    const empty = (sequence: number) => this.context.removeSequence(sequence);
    const onIdle = () => this.#room.onReleased();
    this.#room = new CellWaitQueue(() => this.context.info.kvCells - this.context.cells.used);
    this.#company = options.reproducible;
    this.context = new EngineContext(context, onIdle, this.reproducible);
    const onEvict = (sequence: number, holder: SequenceHolder) => this.#comeback.swapOut(sequence, holder);
    this.sessions = new SequencePool(ids.slice(0, sessionCount), empty, {
      onIdle,
      onEvict,
      maxQueueSize: options.maxQueueSize,
    });
    this.residents = new SequencePool(ids.slice(sessionCount), empty, { onIdle, firstAge: RESIDENT_AGE });
    this.window = new WindowBudget(this.context, this.residents, sessionCount);
    this.#scheduler = new Scheduler({
      context: this.context,
      cellQueue: this.#room,
      canTrim: this.canTrim,
      evictIdle: () => this.#evictIdle(),
      othersHoldCells: (sequence) => this.#othersHoldCells(sequence),
      ageOf: (sequence) => this.#ageOf(sequence),
      fullError: (cause) => this.#fullError(cause),
      // Recurrent states take none, and split streams have their own.
      freeCells: () => sharedCells - this.context.cells.used,
      canEverFit: (tokens) => context.model.recurrent || tokens <= context.info.kvCellsPerSequence,
      chunkSize: this.reproducible ? Engine.pieceSize(context) : undefined,
      batchInvariance: () => this.batchInvariance,
    });
    this.#comeback = new SequenceSwap(
      {
        context: this.context,
        canTrim: this.canTrim,
        exact: this.reproducible,
        hasWindow: this.hasWindow,
        promptMsPerToken: () => this.#scheduler.throughput.promptMsPerToken,
        decode: (request) => this.decode(request),
        withRoom: (attempt, signal, sequence) => this.withCells(attempt, signal, sequence),
      },
      options.maxSavedBytes ?? DEFAULT_SAVED_BYTES,
    );
  }

  /** Where prompts are cut in `reproducible` mode: tokens from their start on. */
  static pieceSize({ info }: Pick<Context, 'info'>): number {
    return Math.min(PIECE_TOKENS, info.batchSize, info.microBatchSize);
  }

  /** Whether replies are the same to the bit, whoever else decodes. */
  get reproducible(): boolean {
    return this.#company !== undefined;
  }

  /** In `reproducible` mode: what may share a batch. With adapters nothing: their kernels were not tested. */
  get batchInvariance(): BatchInvariance | undefined {
    return this.reproducible && this.context.isAdapted ? 'none' : this.#company;
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
   * Decodes `tokens` into a sequence and picks the token after the last. It shares each decode with what others ask for;
   * alone it is cut into batches at the same places for the same arguments. `onDecoded` has told of all tokens that are in
   * the sequence when it settles, however it does.
   *
   * @throws HeadstartError `PREEMPTED` when its sequence was emptied to make room for who came before: decode again what it
   *   held; `CONTEXT_FULL` when it cannot fit though nobody else holds cells; `ABORTED` between two batches, or inside one
   *   that is its own and not over in a moment, with `sequences` where the sequence is empty now; what the sampler's failure says; and as
   *   {@link Context.decode}.
   */
  decode(request: DecodeRequest): Promise<Decoded> {
    const decoding = this.#scheduler.submit(request);
    return request.tokens?.length > 1 && isObserved('prefill') ? observePrefill(request, decoding) : decoding;
  }

  /** {@link decode} with the likeliest token. */
  async prefill(sequence: number, tokens: Int32Array, from: number, options: PrefillOptions = {}): Promise<number> {
    return (await this.decode({ ...options, sequence, tokens, from })).token;
  }

  /**
   * Runs what needs KV cells for an empty sequence. While there are none it evicts idle resident templates that nobody
   * shares, then idle sessions, then other resident templates, then waits for a neighbour to free some, and tries again.
   *
   * @param sequence the one that they are for: who began after its holder gives way. @default the last to come
   * @throws HeadstartError `CONTEXT_FULL` when there is nobody to wait for, `ABORTED` while waiting.
   */
  async withCells<T>(attempt: () => Promise<T>, signal?: AbortSignal, sequence?: number): Promise<T> {
    for (;;) {
      const { releases: freeings } = this.#room;
      try {
        return await attempt();
      } catch (error) {
        if (!HeadstartError.isInstance(error, 'NO_KV_SLOT')) {
          throw error;
        }
        if (this.#evictIdle() || this.#room.releases > freeings) {
          continue;
        }
        if (!this.#othersHoldCells(-1)) {
          throw this.#fullError(error);
        }
        await this.#waitForRoom(sequence === undefined ? Number.MAX_SAFE_INTEGER : this.#ageOf(sequence), signal);
      }
    }
  }

  /**
   * Puts what an evicted holder's sequence held back into an empty one, where it was saved and serves for `wanted`.
   *
   * @returns the tokens that are in the sequence now; undefined where nothing is
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  swapIn(
    holder: SequenceHolder,
    sequence: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    return this.#comeback.swapIn(holder, sequence, wanted, signal);
  }

  /**
   * In `reproducible` mode, after {@link swapIn} gave nothing and the template is back: decodes what an evicted holder's
   * sequence held behind it again, in the same batches.
   *
   * @param length tokens that are in the sequence
   * @returns the tokens that are in it now; undefined where nothing was to be done
   * @throws HeadstartError as {@link decode}.
   */
  replay(
    holder: SequenceHolder,
    sequence: number,
    length: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    return this.#comeback.replay(holder, sequence, length, wanted, signal);
  }

  /** Whether there is something that a holder would come back to. */
  hasSwapped(holder: SequenceHolder): boolean {
    return this.#comeback.has(holder);
  }

  /**
   * @internal What a holder would come back to, as a copy for another that goes on from there: what was saved of it, else what its
   * sequence holds. Close its state.
   *
   * @param sequence the holder's; undefined where it has none
   * @returns undefined where there is nothing
   * @throws HeadstartError `CLOSED`, `CAPTURE_FAILED`, `OUT_OF_MEMORY`.
   */
  checkpointOf(holder: SequenceHolder, sequence: number | undefined): Promise<SwappedSequence | undefined> {
    return this.#comeback.checkpointOf(holder, sequence);
  }

  /** @internal In `reproducible` mode the same without a state, and at once: what {@link rollBack} gets back to. */
  checkpoint(holder: SequenceHolder, sequence: number | undefined): SwappedSequence {
    return this.#comeback.checkpoint(holder, sequence);
  }

  /**
   * @internal What a holder's sequence has read since {@link checkpoint} goes, as if it had never been.
   *
   * @returns whether the sequence holds `past` now; else the holder comes back to it, and what its sequence holds is of no use
   */
  rollBack(holder: SequenceHolder, sequence: number | undefined, past: SwappedSequence): Promise<boolean> {
    return this.#comeback.rollBack(holder, sequence, past);
  }

  /**
   * @internal Gives a holder something to come back to that another held: {@link swapIn} finds it. Its state is the engine's now.
   *
   * @returns whether the state is kept: there is room within the budget, and it is of use
   */
  adopt(holder: SequenceHolder, past: SwappedSequence): boolean {
    return this.#comeback.adopt(holder, past);
  }

  /** Forgets what was saved of a holder. */
  dropSwapped(holder: SequenceHolder): void {
    this.#comeback.drop(holder);
  }

  /** Forgets what was saved of all: what the model computes has changed. */
  clearSwapped(): void {
    this.#comeback.clear();
  }

  /** How it does right now. */
  status(): EngineStatus {
    const { kvCells } = this.context.info;
    const { used } = this.context.cells;
    const { decodes, decodedTokens } = this.context.counters();
    return {
      queueLength: this.sessions.queueLength + this.#scheduler.waiting,
      activeSessions: this.sessions.busyCount,
      heldSequences: this.sessions.heldCount,
      residentTemplates: this.residents.heldCount,
      kvCells: { total: kvCells, used, free: Math.max(0, kvCells - used) },
      savedBytes: this.#comeback.bytes,
      tokensPerSecond: this.#scheduler.throughput.tokensPerSecond(),
      decodes,
      decodedTokens,
    };
  }

  /** Refuses new work, ends what runs, and closes the context. Idempotent. */
  async close(): Promise<void> {
    this.sessions.close();
    this.residents.close();
    this.#scheduler.close();
    this.#room.close(() => new HeadstartError('CLOSED', 'The engine was closed'));
    this.#comeback.close();
    await this.context.close();
  }

  /** Idle resident templates first, where that frees cells: those that sessions share come last, and so do pinned ones. */
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

  #waitForRoom(age: number, signal: AbortSignal | undefined): Promise<void> {
    throwIfAborted(signal);
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#room.leave(waiter);
        reject(new HeadstartError('ABORTED', 'Waiting for KV cells was aborted', { cause: signal?.reason }));
      };
      const settle = (action: () => void) => {
        signal?.removeEventListener('abort', leave);
        action();
      };
      const waiter = {
        age,
        needed: 0,
        claims: true,
        retry: () => settle(resolve),
        fail: (error: HeadstartError) => settle(() => reject(error)),
      };
      signal?.addEventListener('abort', leave, { once: true });
      this.#room.wait(waiter);
      this.#scheduler.wake();
    });
  }

  #fullError(cause: unknown): HeadstartError {
    const { kvCells, kvCellsPerSequence } = this.context.info;
    return new HeadstartError(
      'CONTEXT_FULL',
      `The KV cache (${kvCells} cells, ${kvCellsPerSequence} for one sequence) has no room for this session, whoever else leaves: raise \`kvCells\``,
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
