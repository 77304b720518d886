import type { Context, ContextCounters, ContextInfo, DecodeBatch } from '../native/context.js';
import type { AppliedLora } from '../native/lora.js';
import type { ModelInfo } from '../native/model-info.js';
import type { SequenceState } from '../native/state.js';
import type { RequestLimits } from './decode-request.js';
import { fixedThreads, ThreadCounts, type ThreadStatus } from './thread-counts.js';

/**
 * The context of an engine. Calls run in order on the context's thread, between two decodes. Only the scheduler may
 * decode, and only a {@link Sequence} may change sequences, because it records what they hold.
 */
export class EngineContext {
  /** The context's parameters. */
  readonly info: Readonly<ContextInfo>;
  /** The context's model. */
  readonly model: Readonly<ModelInfo>;
  /** @internal Whether sequences record the batches in which their tokens were decoded, for `reproducible`. */
  readonly keepsPrefillLog: boolean;
  /** @internal Called when KV cells were released. */
  readonly onFreed: () => void;
  /** @internal For the scheduler. */
  readonly requestLimits: Readonly<RequestLimits>;
  readonly #context: Context;
  /** Undefined if the numbers of threads are fixed. */
  readonly #threads: ThreadCounts | undefined;
  #isAdapted = false;

  constructor(context: Context, onFreed: () => void, { keepsPrefillLog = false, adaptsThreads = false } = {}) {
    this.#context = context;
    this.onFreed = onFreed;
    this.keepsPrefillLog = keepsPrefillLog;
    this.info = context.info;
    this.model = context.model;
    this.#threads = adaptsThreads ? new ThreadCounts(context) : undefined;
    this.requestLimits = { vocabularySize: this.model.vocabulary.size };
  }

  /** Like {@link Context.removeSequence}. */
  removeSequence(id: number, from?: number): Promise<boolean> {
    return this.#context.removeSequence(id, from);
  }

  /** Like {@link Context.copySequence}. */
  copySequence(source: number, target: number): Promise<void> {
    return this.#context.copySequence(source, target);
  }

  /** Like {@link Context.captureSequence}. */
  captureSequence(id: number, tokens: Int32Array, partial = false): Promise<SequenceState> {
    return this.#context.captureSequence(id, tokens, { partial });
  }

  /** Like {@link Context.restoreSequence}. */
  restoreSequence(id: number, state: SequenceState): Promise<void> {
    return this.#context.restoreSequence(id, state);
  }

  /** Like {@link Context.positionRange}. */
  positionRange(id: number): Promise<{ first: number; last: number }> {
    return this.#context.positionRange(id);
  }

  /** Whether some layers keep only the cells of a sliding window. */
  get hasWindow(): boolean {
    return this.model.slidingWindow > 0 && !this.info.fullSlidingWindow;
  }

  /** See {@link ContextInfo.canTrim}. */
  get canTrim(): boolean {
    return this.info.canTrim;
  }

  /**
   * Whether a restored sequence can be trimmed too. A state contains only the cells inside a sliding window, even with
   * `fullSlidingWindow`.
   */
  get canTrimRestored(): boolean {
    return this.canTrim && this.model.slidingWindow === 0;
  }

  /** Whether LoRA adapters are applied. */
  get isAdapted(): boolean {
    return this.#isAdapted;
  }

  /** Like {@link Context.setLoras}. */
  async setLoras(loras: readonly AppliedLora[]): Promise<void> {
    await this.#context.setLoras(loras);
    this.#isAdapted = loras.length > 0;
  }

  /** Counters of decoded tokens and captured states. */
  counters(): ContextCounters {
    return this.#context.counters();
  }

  /** @internal For the scheduler. */
  decode(batch: DecodeBatch): Promise<Int32Array> {
    return this.#threads === undefined ? this.#context.decode(batch) : this.#threads.decode(batch);
  }

  /** @internal For the scheduler: see {@link ThreadCounts.maxPromptTokens}. */
  get maxPromptTokens(): number {
    return this.#threads?.maxPromptTokens ?? Number.POSITIVE_INFINITY;
  }

  /** The numbers of threads that compute. */
  threadStatus(): ThreadStatus {
    return this.#threads?.status() ?? fixedThreads(this.#context);
  }

  /** @internal For the scheduler: logits of a row of the newest batch. */
  logits(row: number): Promise<Float32Array> {
    return this.#context.logits(row);
  }

  /** @internal For the scheduler: log-probabilities of a row of the newest batch. */
  logProbabilities(row: number, count: number): Promise<{ tokens: Int32Array; values: Float32Array }> {
    return this.#context.logProbabilities(row, count);
  }

  /** Closes the context. Idempotent. */
  close(): Promise<void> {
    return this.#context.close();
  }
}
