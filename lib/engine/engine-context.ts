import type { Context, ContextCounters, ContextInfo, DecodeBatch } from '../native/context.js';
import type { AppliedLora } from '../native/lora.js';
import type { ModelInfo } from '../native/model.js';
import type { SequenceState } from '../native/state.js';
import { CellLedger } from './cell-ledger.js';
import type { DecodeRequest, RequestLimits } from './decode-request.js';
import { PrefillLog } from './reproducible/prefill-log.js';

/**
 * The context of an engine. It counts the KV cells in use. Calls run in order on the context's thread, between two
 * decodes. Only the scheduler may decode.
 */
export class EngineContext {
  /** The context's parameters. */
  readonly info: Readonly<ContextInfo>;
  /** The context's model. */
  readonly model: Readonly<ModelInfo>;
  /** Counts the KV cells in use. */
  readonly cells: CellLedger;
  /** @internal Present with `reproducible`. */
  readonly prefillLog: PrefillLog | undefined;
  /** @internal For the scheduler. */
  readonly requestLimits: Readonly<RequestLimits>;
  readonly #context: Context;
  readonly #onFreed: () => void;
  #isAdapted = false;

  /**
   * @param onFreed called when KV cells were released
   * @param keepPrefillLog whether to record the batches of each sequence
   */
  constructor(context: Context, onFreed: () => void, keepPrefillLog = false) {
    this.#context = context;
    this.prefillLog = keepPrefillLog ? new PrefillLog() : undefined;
    this.#onFreed = onFreed;
    this.info = context.info;
    this.model = context.model;
    const { maxSequences } = this.info;
    this.cells = new CellLedger(maxSequences);
    this.requestLimits = { maxSequences, vocabularySize: this.model.vocabulary.size };
  }

  /** Like {@link Context.removeSequence}. */
  async removeSequence(sequence: number, from = 0, to?: number): Promise<boolean> {
    const removing = this.#context.removeSequence(sequence, from, to);
    if (from === 0 && to === undefined) {
      this.#cut(sequence, 0); // Removing a whole sequence never fails, so count it at once.
      return removing;
    }
    const removed = await removing;
    if (removed && to === undefined) {
      this.#cut(sequence, from);
    }
    return removed;
  }

  /** Like {@link Context.copySequence}. */
  async copySequence(source: number, target: number): Promise<void> {
    const copying = this.#context.copySequence(source, target);
    this.cells.copy(source, target); // counted at once, for the next caller
    await copying.catch((error: unknown) => {
      this.cells.cut(target, 0);
      throw error;
    });
  }

  /** Like {@link Context.captureSequence}. */
  captureSequence(sequence: number, tokens: Int32Array): Promise<SequenceState> {
    return this.#context.captureSequence(sequence, tokens);
  }

  /** Like {@link Context.restoreSequence}. */
  async restoreSequence(sequence: number, state: SequenceState): Promise<void> {
    await this.#context.restoreSequence(sequence, state);
    const { length } = state.tokens;
    // A state contains only the cells inside the window.
    this.cells.restore(sequence, length, Math.min(length, this.model.slidingWindow));
    this.prefillLog?.set(sequence, []); // A template needs no log. If a session is restored, its log is set afterwards.
  }

  /** Like {@link Context.positionRange}. */
  positionRange(sequence: number): Promise<{ first: number; last: number }> {
    return this.#context.positionRange(sequence);
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

  /** @internal For the scheduler: records that a batch decoded `count` tokens of the request, from index `done` on. */
  decoded({ sequence, tokens, from }: DecodeRequest, done: number, count: number): void {
    this.cells.grow(sequence, count);
    this.prefillLog?.record(sequence, from + done, tokens.slice(done, done + count));
  }

  /**
   * @internal For the scheduler: empties a sequence for older requests, without waking the requests that wait for
   * cells.
   */
  preempt(sequence: number): void {
    this.#context.removeSequence(sequence).catch(() => undefined);
    this.prefillLog?.cut(sequence, 0);
    this.cells.cut(sequence, 0);
  }

  /** @internal For the scheduler. */
  decode(batch: DecodeBatch): Promise<Int32Array> {
    return this.#context.decode(batch);
  }

  /** @internal For the scheduler: logits of a row of the newest batch. */
  logits(row: number): Promise<Float32Array> {
    return this.#context.logits(row);
  }

  /** @internal For the scheduler: log-probabilities of a row of the newest batch. */
  logProbabilities(row: number, count: number): Promise<{ tokens: Int32Array; values: Float32Array }> {
    return this.#context.logProbabilities(row, count);
  }

  /** Idempotent. */
  close(): Promise<void> {
    return this.#context.close();
  }

  #cut(sequence: number, length: number): void {
    const before = this.cells.used;
    this.prefillLog?.cut(sequence, length);
    this.cells.cut(sequence, length);
    if (this.cells.used < before) {
      this.#onFreed();
    }
  }
}
