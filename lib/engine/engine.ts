import { waitInQueue } from '../abort.js';
import { isObserved, publish } from '../diagnostics/events.js';
import { HeadstartError } from '../errors.js';
import type { Context } from '../native/context.js';
import { CellWaitQueue } from './cell-wait-queue.js';
import type { Decoded, DecodeRequest, PrefillOptions } from './decode-request.js';
import { EngineContext } from './engine-context.js';
import { ForgetCalls, type IsForgotten } from './forget-calls.js';
import { chunkSize, Reproducibility } from './reproducible/reproducibility.js';
import { type BatchInvariance, testReproducible } from './reproducible/self-test.js';
import { Scheduler } from './scheduler.js';
import { Sequence } from './sequence.js';
import type { ConversationSaver, SequenceOptions } from './sequence-contents.js';
import { SequencePool } from './sequence-pool.js';
import { type CheckpointTotals, SequenceStates } from './sequence-states.js';
import { StateStore } from './state-store.js';
import { swapOut } from './swap-out.js';
import type { ThreadStatus } from './thread-counts.js';
import { WindowBudget } from './window-budget.js';

/** Options of an engine. */
export interface EngineOptions {
  /** Sequence ids reserved for resident templates: the highest ids of the context. @default 0 */
  residentSequences?: number;
  /**
   * Maximum number of callers that wait for a sequence id. Further callers fail with `QUEUE_FULL`. @default no limit
   */
  maxQueueSize?: number | undefined;
  /** Keeps the states of evicted sequences. @default keeps none */
  states?: StateStore | undefined;
  /**
   * Makes replies the same to the bit, whatever other requests are decoded. Pass the result of
   * {@link Engine.testReproducible}. The context must have split streams and flash attention off.
   *
   * @default off: logits may differ in their last digits
   */
  reproducible?: BatchInvariance | undefined;
  /**
   * Adapts the numbers of threads to the load of the machine. The context's `nThreads` and `nThreadsBatch` are then the
   * first and largest numbers. Cannot be combined with `reproducible`.
   *
   * @default false
   */
  adaptsThreads?: boolean | undefined;
  /** A clock in ms. @default performance.now */
  now?: (() => number) | undefined;
}

/**
 * The age of resident templates. Every session has a smaller number, so it counts as older. Therefore the prefill of a
 * template never preempts a session.
 */
const RESIDENT_AGE = 2 ** 48;

/** A snapshot of an engine's load. */
export interface EngineStatus {
  /** Sessions that wait for a sequence, for KV cells, or for the next decode. */
  queueLength: number;
  /**
   * Sessions that decode now, including completions, starts, and sessions that wait for KV cells. Sessions that wait
   * for a sequence or for tools do not count.
   */
  activeSessions: number;
  /** Sessions that hold a sequence, including active sessions. */
  heldSequences: number;
  /** Maximum of `heldSequences`: the option `nSeqMax`. */
  maxSequences: number;
  /** KV cells, one per token. Forked sequences share cells, which count once. */
  kvCells: {
    /** Size of the KV cache. */
    total: number;
    /** Held by sessions, including idle ones, and by resident templates. */
    used: number;
    /** total - used. */
    free: number;
  };
  /** Bytes of the states in memory that belong to sessions and requests, including checkpoints. Part of `states`. */
  savedBytes: number;
  /** Reply tokens per second of all sessions, averaged over the last ten seconds. */
  tokensPerSecond: number;
  /** Checkpoints of conversations that were captured since the engine was created. Some may have been dropped since. */
  checkpoints: CheckpointTotals;
  /** Decodes since the engine was created. */
  decodes: number;
  /** Tokens of prompts and replies since the engine was created. */
  decodedTokens: number;
  /** The numbers of threads that compute, and why they changed. */
  threads: ThreadStatus;
}

/**
 * A context that many sessions share. The engine leases its sequences, schedules its decodes, and evicts idle sequences
 * when KV cells run out.
 */
export class Engine {
  /** The clock, in ms. */
  readonly now: () => number;
  /** The context, for everything except decoding. */
  readonly context: EngineContext;
  /** Sequences of sessions. */
  readonly sessions: SequencePool;
  /** Sequences of resident templates. */
  readonly residents: SequencePool;
  /** @internal The budget of the sliding-window cache. */
  readonly window: WindowBudget;
  /** @internal The states of sequences. */
  readonly states: SequenceStates;
  /** The rules of `reproducible`, if it is on. */
  readonly reproducible: Reproducibility | undefined;
  /** @internal Undefined if conversations are not kept on disk. */
  saver: ConversationSaver | undefined;
  /** @internal The calls of {@link forget}. */
  readonly forgets = new ForgetCalls();
  readonly #scheduler: Scheduler;
  readonly #cellQueue: CellWaitQueue;

  /**
   * Tests whether a model computes the same bits alone and in a batch. Needs an empty context with split streams and
   * flash attention off.
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
    const onIdle = () => this.#cellQueue.onReleased();
    const now = options.now ?? (() => performance.now());
    this.now = now;
    this.#cellQueue = new CellWaitQueue(() => this.context.info.kvCells - this.usedCells);
    this.context = new EngineContext(context, onIdle, {
      keepsPrefillLog: options.reproducible !== undefined,
      adaptsThreads: options.adaptsThreads,
    });
    this.states = new SequenceStates(options.states ?? new StateStore(0), this.forgets);
    this.sessions = new SequencePool(ids.slice(0, sessionCount), {
      onIdle: () => {
        onIdle();
        this.saver?.onIdle();
      },
      onEvict: (sequence, isTakenOver) => swapOut(this, sequence, isTakenOver),
      maxQueueSize: options.maxQueueSize,
      now,
    });
    this.residents = new SequencePool(ids.slice(sessionCount), { onIdle, firstAge: RESIDENT_AGE });
    this.window = new WindowBudget(this.context, this.residents, this.sessions);
    this.#scheduler = new Scheduler({
      context: this.context,
      cellQueue: this.#cellQueue,
      canTrim: this.canTrim,
      evictIdle: () => this.#evictIdle(),
      othersHoldCells: (sequence) => this.#othersHoldCells(sequence),
      ageOf: (sequence) => this.#ageOf(sequence),
      fullError: (cause) => this.#fullError(cause),
      // Recurrent states take no cells, and each split stream has its own cells.
      freeCells: () => sharedCells - this.usedCells,
      canEverFit: (tokens) => context.model.recurrent || tokens <= context.info.kvCellsPerSequence,
      now,
      chunkSize: options.reproducible === undefined ? undefined : chunkSize(context),
      batchInvariance: () => this.reproducible?.batchInvariance,
    });
    const host = {
      context: this.context,
      states: this.states,
      canTrim: this.canTrim,
      hasWindow: this.hasWindow,
      decode: (request: DecodeRequest) => this.decode(request),
      withCells: <T>(attempt: () => Promise<T>, signal: AbortSignal | undefined, sequence: Sequence) =>
        this.withCells(attempt, signal, sequence),
    };
    this.reproducible = options.reproducible && new Reproducibility(host, options.reproducible);
  }

  /** See {@link EngineContext.canTrim}. */
  get canTrim(): boolean {
    return this.context.canTrim;
  }

  /** See {@link EngineContext.canTrimRestored}. */
  get canTrimRestored(): boolean {
    return this.context.canTrimRestored;
  }

  /** KV cells in use. Forked sequences share cells, which count once. */
  get usedCells(): number {
    let used = 0;
    for (const pool of [this.sessions, this.residents]) {
      for (const { ownCells } of pool.leased) {
        used += ownCells;
      }
    }
    return used;
  }

  /** See {@link EngineContext.hasWindow}. */
  get hasWindow(): boolean {
    return this.context.hasWindow;
  }

  /**
   * Appends `tokens` to a sequence and chooses the next token. Several requests share a decode. If a request runs
   * alone, it is always cut into the same batches. If it fails, the sequence keeps the tokens decoded until then.
   *
   * @throws HeadstartError `PREEMPTED` if the sequence was emptied because older requests needed its cells: decode its
   *   tokens again. `CONTEXT_FULL` if the request can never fit into the KV cache. `ABORTED`, with `sequences` if the
   *   sequence is empty now. Also the code of a failed sampler, and the errors of {@link Context.decode}.
   */
  decode(request: DecodeRequest): Promise<Decoded> {
    const decoding = this.#scheduler.submit(request);
    return request.tokens?.length > 1 && isObserved('prefill') ? observePrefill(request, decoding) : decoding;
  }

  /** Like {@link decode}, with greedy sampling. */
  async prefill(sequence: Sequence, tokens: Int32Array, options: PrefillOptions = {}): Promise<number> {
    return (await this.decode({ ...options, sequence, tokens })).token;
  }

  /** See {@link Scheduler.betweenSteps}. */
  betweenSteps<T>(work: () => Promise<T>): Promise<T> {
    return this.#scheduler.betweenSteps(work);
  }

  /** Measured number of prompt tokens that could be decoded while one byte of a state is copied; 0 until measured. */
  get tokensPerCopiedByte(): number {
    const { capturedBytes, captureMs, restoredBytes, restoreMs } = this.context.counters();
    const { promptMsPerToken } = this.#scheduler.throughput;
    const bytes = capturedBytes + restoredBytes;
    return bytes === 0 || promptMsPerToken === 0 ? 0 : (captureMs + restoreMs) / bytes / promptMsPerToken;
  }

  /** Makes an empty sequence. Lease an id for it from {@link sessions} or {@link residents}. */
  createSequence(options?: SequenceOptions): Sequence {
    return new Sequence(this.context, { epoch: this.forgets.count, ...options });
  }

  /**
   * Repeats work that needs KV cells until the cells suffice. Between two attempts it evicts one idle sequence: first
   * resident templates that have cells of their own and are not pinned, then sessions, then other resident templates.
   * If no sequence is idle, it waits until cells are released.
   *
   * @param sequence the sequence that needs the cells. Younger requests are preempted.
   *   @default preempts none
   * @throws HeadstartError `CONTEXT_FULL` if no other sequence can release cells. `ABORTED` while waiting. Also
   *   all other errors of `attempt`.
   */
  async withCells<T>(attempt: () => Promise<T>, signal?: AbortSignal, sequence?: Sequence): Promise<T> {
    for (;;) {
      const { releases: releasesBefore } = this.#cellQueue;
      try {
        return await attempt();
      } catch (error) {
        if (!HeadstartError.isInstance(error, 'NO_KV_SLOT')) {
          throw error;
        }
        if (this.#evictIdle() || this.#cellQueue.releases > releasesBefore) {
          continue;
        }
        if (!this.#othersHoldCells()) {
          throw this.#fullError(error);
        }
        await this.#waitForCells(sequence === undefined ? Number.MAX_SAFE_INTEGER : this.#ageOf(sequence), signal);
      }
    }
  }

  /**
   * Evicts all idle sequences of sessions and drops all states of sequences. Call it when other adapters are applied.
   */
  discardSessions(): void {
    while (this.sessions.evictIdle(undefined, false)) {
      // The evicted sessions later compute their states again.
    }
    this.states.store.clear('request', 'conversation');
  }

  /**
   * Empties idle sequences and drops states in memory. Later, {@link forgets} prevents that other contents of requests
   * which have arrived by now are kept.
   *
   * @returns the number of emptied sequences and of dropped states
   */
  forget(isForgotten: IsForgotten): { sequences: number; states: number } {
    this.forgets.add(isForgotten);
    let sequences = 0;
    for (const sequence of [...this.sessions.leased].filter(isForgotten)) {
      sequences += this.sessions.evictIdle((other) => other === sequence, false) ? 1 : 0;
    }
    return { sequences, states: this.states.forget(isForgotten) };
  }

  /** Measured duration of the prefill of one token, in ms; 0 until measured. */
  get prefillMsPerToken(): number {
    return this.#scheduler.throughput.promptMsPerToken;
  }

  /** The current load of the engine. */
  status(): EngineStatus {
    const { kvCells } = this.context.info;
    const used = this.usedCells;
    const { decodes, decodedTokens } = this.context.counters();
    const { byKind } = this.states.store.status();
    return {
      queueLength: this.sessions.queueLength + this.#scheduler.waiting,
      activeSessions: this.sessions.busyCount,
      heldSequences: this.sessions.leased.size,
      maxSequences: this.sessions.size,
      kvCells: { total: kvCells, used, free: Math.max(0, kvCells - used) },
      savedBytes: byKind.conversation.bytes + byKind.request.bytes,
      tokensPerSecond: this.#scheduler.throughput.tokensPerSecond(),
      checkpoints: { ...this.states.checkpointTotals },
      decodes,
      decodedTokens,
      threads: this.context.threadStatus(),
    };
  }

  /** Rejects new work, ends running work, and closes the context. Idempotent. */
  async close(): Promise<void> {
    this.sessions.close();
    this.residents.close();
    this.#scheduler.close();
    this.states.store.close();
    this.#cellQueue.close(() => new HeadstartError('CLOSED', 'Expected an open engine, but it was closed'));
    await this.context.close();
  }

  /**
   * Evicts one idle sequence: first resident templates that have cells of their own and are not pinned, then sessions,
   * then other resident templates, pinned ones last.
   */
  #evictIdle(): boolean {
    const isFreed = ({ pinned, hasUnsharedCells }: Sequence) => !pinned && hasUnsharedCells;
    return this.residents.evictIdle(isFreed) || this.sessions.evictIdle() || this.residents.evictIdle();
  }

  #ageOf(sequence: Sequence): number {
    return this.sessions.ageOf(sequence) ?? this.residents.ageOf(sequence) ?? RESIDENT_AGE;
  }

  /** Whether a sequence in use, other than `except`, has cells that it will release later. */
  #othersHoldCells(except?: Sequence): boolean {
    const holdsCells = (sequence: Sequence) =>
      sequence !== except && !sequence.isEmpty && (sequence.busy || this.#scheduler.has(sequence));
    return [...this.sessions.leased, ...this.residents.leased].some(holdsCells);
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
      `Not enough KV cache for this session: the cache has ${kvCells} cells in total, ${kvCellsPerSequence} for one sequence. Raise \`kvCells\``,
      { cause },
    );
  }
}

async function observePrefill({ sequence, tokens }: DecodeRequest, decoding: Promise<Decoded>): Promise<Decoded> {
  const begin = performance.now();
  const { id } = sequence;
  const decoded = await decoding;
  publish('prefill', { sequence: id, tokens: tokens.length, ms: performance.now() - begin });
  return decoded;
}
