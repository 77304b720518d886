import type { SequenceState } from '../native/state.js';
import type { EngineContext } from './engine-context.js';
import type { Arrival } from './overtaking.js';
import { PrefillLog } from './reproducible/prefill-log.js';
import {
  type DecodeListener,
  type NextPrompt,
  partialCheckpointAt,
  partialCheckpointLength,
  type SequenceCheckpoints,
  type SequenceOptions,
  type SwappedContents,
} from './sequence-contents.js';
import { SharedCells } from './shared-cells.js';
import type { StateKind } from './state-store.js';

/**
 * A sequence of the KV cache, with its tokens. A pool leases an id of the context to it. If another sequence needs an
 * id or KV cells, the pool takes the id of an idle sequence away. The idle sequence is then empty. The pool can lease
 * an id to it again.
 *
 * A fork shares the KV cells of its parent's first tokens. Each token beyond them takes one cell.
 */
export class Sequence {
  /** Number of tokens at the start that a template provides. */
  readonly templateLength: number;
  /** The client's name for the conversation. Names of different key groups are unrelated. */
  readonly affinity: string | undefined;
  /** The tenant of the tokens. */
  readonly tenant: string | undefined;
  readonly arrival: Arrival | undefined;
  /** The key group of the tokens: see `groupOf`. Tokens of one group are never used for another. Set it while empty. */
  group = '';
  /** How long the tokens are worth keeping: see {@link StateKind}. */
  kind: StateKind;
  /** Whether the sequence is in use. Only idle sequences are evicted. */
  busy = true;
  /** Whether the request of the sequence has ended. A later prompt may still take over or copy the tokens. */
  isAbandoned = false;
  /** Whether a turn is in progress. While the turn waits, for example for a tool, the sequence is not busy. */
  inProgress = false;
  /** When the sequence last became idle, as `performance.now()`. */
  idleSince = 0;
  /** What is known about the next prompt of the conversation. Undefined before the first prompt. */
  nextPrompt: NextPrompt | undefined;
  /** The number of calls of `forget` when the request arrived that computes the contents: see `ForgetCalls`. */
  epoch: number;
  /** Whether the sequence is evicted last. */
  pinned = false;
  /** Order of arrival of the current work: smaller is older. Undefined until the pool assigns a number to the work. */
  age: number | undefined;
  /** Whether tokens were decoded for this sequence. Tokens that were copied or taken over do not count. */
  hasBegun = false;
  /** The batches in which the tokens were decoded. Present with `reproducible`. */
  readonly log: PrefillLog | undefined;
  /**
   * Contents outside the KV cache that the next prompt can continue from. The contents were swapped out by an eviction,
   * or copied from another sequence or a file.
   */
  swapped: SwappedContents | undefined;
  /** Called after each decode. Must not throw. */
  onDecoded: DecodeListener | undefined;
  /** Checkpoints of earlier positions, for memory that cannot be trimmed. */
  checkpoints: SequenceCheckpoints = {};
  readonly #context: EngineContext;
  readonly #onEvicted: (() => void) | undefined;
  #id: number | undefined;
  #tokens = new Int32Array(256);
  #length = 0;
  /** The cells that this sequence shares with its parent and its forks. */
  readonly #shared = new SharedCells(this);
  /** Whether a trim that the memory may refuse is in progress. */
  #isTrimming = false;
  /** Tokens in front of this position have no cell in a sliding-window cache: see `#cellsInWindow`. */
  #windowStart = 0;
  /** Callers of {@link untilGrownTo}, with the lengths that they wait for. */
  #growthWaiters: { length: number; resolve: () => void }[] = [];

  constructor(context: EngineContext, options: SequenceOptions = {}) {
    const { templateLength = 0, kind = 'conversation', affinity, tenant, epoch = 0, arrival, onEvicted } = options;
    this.#context = context;
    this.templateLength = templateLength;
    this.affinity = affinity;
    this.tenant = tenant;
    this.epoch = epoch;
    this.arrival = arrival;
    this.kind = kind;
    this.#onEvicted = onEvicted;
    this.log = context.keepsPrefillLog ? new PrefillLog() : undefined;
  }

  /** Whether the sequence has an id of the context. */
  get isLeased(): boolean {
    return this.#id !== undefined;
  }

  /** The id in the context. Throws if the sequence is not leased. */
  get id(): number {
    if (this.#id === undefined) {
      throw new Error('Expected a leased sequence');
    }
    return this.#id;
  }

  /** Number of tokens in the sequence. */
  get length(): number {
    return this.#length;
  }

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** The tokens in the sequence, by position. A view: it is valid until the sequence changes. */
  get tokens(): Int32Array {
    return this.#tokens.subarray(0, this.#length);
  }

  /** Number of KV cells that this sequence adds to those of its parent. */
  get ownCells(): number {
    return this.#length - this.#shared.length;
  }

  /** Whether this sequence alone uses some of its cells. These cells become free when the sequence is emptied. */
  get hasUnsharedCells(): boolean {
    return this.#length > this.#shared.end;
  }

  /** Maximum number of cells in the sliding-window cache that this sequence alone uses. */
  get unsharedInWindow(): number {
    return this.#cellsInWindow(this.#shared.end, this.#length);
  }

  /** @internal For the pool. The sequence is empty. */
  assign(id: number): void {
    this.#id = id;
  }

  /** @internal For the pool: empties the sequence and takes its id away. */
  leave(): number {
    const { id } = this;
    this.clear().catch(() => undefined); // calls run in order: the id is empty before its next owner uses it
    this.#id = undefined;
    return id;
  }

  /**
   * @internal For the pool: gives id and tokens to another sequence, which is empty and has no id. After that, this
   * sequence is empty and has no id.
   */
  moveTo(other: Sequence): void {
    other.#id = this.#id;
    other.#setContents(this.tokens, this.#windowStart);
    other.group = this.group;
    this.#shared.moveTo(other.#shared);
    this.#id = undefined;
    this.#length = 0;
    this.#windowStart = 0;
  }

  /** @internal For the pool. */
  notifyEvicted(): void {
    this.#onEvicted?.();
  }

  /** @internal For the scheduler: records the tokens from index `from` to `to` as decoded. */
  append(tokens: Int32Array, from: number, to: number): void {
    const end = this.#length + to - from;
    if (end > this.#tokens.length) {
      const larger = new Int32Array(Math.max(end, 2 * this.#tokens.length));
      larger.set(this.tokens);
      this.#tokens = larger;
    }
    this.log?.record(this.#length, tokens.slice(from, to));
    this.hasBegun = true;
    for (let index = from; index < to; index++) {
      this.#tokens[this.#length++] = tokens[index] as number;
    }
    this.onDecoded?.(end, to - from);
    this.#notifyGrown();
  }

  /**
   * Resolves when tokens were added to the sequence, and the sequence then holds at least `length` tokens. Stays pending
   * if that never happens.
   */
  untilGrownTo(length: number): Promise<void> {
    return new Promise((resolve) => this.#growthWaiters.push({ length, resolve }));
  }

  #notifyGrown(): void {
    const waiters = this.#growthWaiters;
    if (waiters.length === 0) {
      return; // the usual case: this method is called for each token of a reply
    }
    this.#growthWaiters = waiters.filter(({ length }) => length > this.#length);
    for (const { length, resolve } of waiters) {
      if (length <= this.#length) {
        resolve();
      }
    }
  }

  /** Removes all tokens. */
  async clear(): Promise<void> {
    const removing = this.#context.removeSequence(this.id);
    this.#cut(0, true); // Removing a whole sequence never fails, so it is recorded at once.
    await removing;
  }

  /** Whether the model has attention layers. Only purely recurrent models have none. */
  get hasAttention(): boolean {
    return !this.#context.model.recurrent;
  }

  /** The largest length up to `length` to which the sequence can be trimmed. */
  trimmableLength(length: number): number {
    if (length >= this.#length) {
      return this.#length;
    }
    if (this.#context.canTrim && this.#windowStart <= this.#windowStartAt(length)) {
      return length;
    }
    return partialCheckpointLength(this, length);
  }

  /**
   * Removes the tokens from position `length` on. If the memory cannot be trimmed, a checkpoint of that length is
   * needed.
   *
   * @returns false if the sequence cannot be trimmed to this length. Nothing has changed then.
   * @throws HeadstartError `NO_KV_SLOT` and others, if a checkpoint cannot be restored. The sequence is then empty.
   */
  async trim(length: number): Promise<boolean> {
    if (length === 0) {
      await this.clear();
      return true;
    }
    if (length > this.#length) {
      return false;
    }
    if (this.#context.canTrimRestored) {
      const removing = this.#context.removeSequence(this.id, length);
      this.#cut(length, true); // The removal never fails. Record it at once, so that forks made meanwhile are correct.
      await removing;
      return true;
    }
    this.#isTrimming = true;
    try {
      return await this.#tryTrim(length);
    } finally {
      this.#isTrimming = false;
    }
  }

  /** Trims memory that may refuse a trim. If the memory refuses, restores a checkpoint. */
  async #tryTrim(length: number): Promise<boolean> {
    if (await this.#context.removeSequence(this.id, length)) {
      this.#cut(length, true);
      return true;
    }
    const checkpoint = partialCheckpointAt(this, length);
    if (checkpoint !== undefined) {
      await this.#restorePartial(checkpoint.state.share()); // the store may drop its own handle during the restore
    }
    return checkpoint !== undefined;
  }

  /**
   * Like {@link trim}, but records the removal at once. For a sequence that is captured next and then emptied: if the
   * removal fails, the capture fails.
   */
  rewind(length: number): void {
    const state = partialCheckpointAt(this, length)?.state.share();
    const removing = state
      ? this.#context.restoreSequence(this.id, state).finally(() => state.close())
      : this.#context.removeSequence(this.id, length);
    removing.catch(() => undefined);
    this.#cut(length, true);
  }

  async #restorePartial(state: SequenceState): Promise<void> {
    const { length } = state.tokens;
    try {
      await this.#context.restoreSequence(this.id, state);
    } catch (error) {
      await this.clear();
      throw error;
    } finally {
      state.close();
    }
    this.#cut(length, true);
    this.#windowStart = Math.max(this.#windowStart, this.#windowStartAt(length));
  }

  /** @internal For the scheduler: empties the sequence for older requests. Wakes no request that waits for cells. */
  preempt(): void {
    this.#context.removeSequence(this.id).catch(() => undefined);
    this.#cut(0, false);
  }

  /** Whether the sequence can be copied now. During a trim, the tokens in the KV cache are unknown. */
  get canBeForked(): boolean {
    return this.isLeased && !this.isEmpty && !this.#isTrimming;
  }

  /** Makes this empty sequence a copy of `source`. The two sequences share all cells. Needs a unified KV cache. */
  async forkFrom(source: Sequence): Promise<void> {
    const copying = this.#context.copySequence(source.id, this.id);
    this.#setContents(source.tokens, source.#windowStart); // at once, because the next caller may need the tokens now
    this.log?.set(source.log?.chunks ?? []);
    this.#shared.share(source.#shared, source.length);
    await copying.catch((error: unknown) => {
      this.#cut(0, true);
      throw error;
    });
  }

  /**
   * @param partial whether to capture only the part that cannot be trimmed, for a checkpoint. @default false
   * @throws HeadstartError `CAPTURE_FAILED`, `OUT_OF_MEMORY`, `CLOSED`.
   */
  capture(partial = false): Promise<SequenceState> {
    return this.#context.captureSequence(this.id, this.tokens, partial);
  }

  /** Restores a state into this empty sequence. After a failure, the sequence is empty. */
  async restore(state: SequenceState): Promise<void> {
    await this.#context.restoreSequence(this.id, state);
    const { tokens } = state;
    this.#setContents(tokens, this.#windowStartAt(tokens.length)); // a state contains only the cells inside the window
    this.log?.set([]); // A template needs no log. If a session is restored, its log is set afterwards.
  }

  /**
   * The groups of cells that this sequence shares with its forks. For each group: the maximum number of its cells in
   * the sliding-window cache, and the sequences that use them.
   */
  *sharedInWindow(): Iterable<{ inWindow: number; holders: Sequence[] }> {
    for (const { from, to, holders } of this.#shared.groups()) {
      yield { inWindow: this.#cellsInWindow(from, to), holders };
    }
  }

  /** The first position inside the sliding window of the token at position `length`. 0 if the model has no window. */
  #windowStartAt(length: number): number {
    const { slidingWindow } = this.#context.model;
    return slidingWindow === 0 ? 0 : Math.max(0, length - slidingWindow);
  }

  #cellsInWindow(from: number, to: number): number {
    return Math.max(0, to - Math.max(from, this.#windowStart));
  }

  #setContents(tokens: Int32Array, windowStart: number): void {
    this.#tokens = new Int32Array(Math.max(256, tokens.length + 256));
    this.#tokens.set(tokens);
    this.#length = tokens.length;
    this.#windowStart = windowStart;
    this.#notifyGrown();
  }

  /** Records that the tokens from position `length` on were removed. */
  #cut(length: number, wakesWaiting: boolean): void {
    // In a sliding-window cache, a shared cell can be reused as soon as only one sequence uses it.
    const freesCells = length < this.#length && (this.hasUnsharedCells || this.#context.hasWindow);
    this.log?.cut(length);
    this.#shared.cut(length);
    this.#length = Math.min(this.#length, length);
    if (length === 0) {
      this.#windowStart = 0;
    }
    if (freesCells && wakesWaiting) {
      this.#context.onFreed();
    }
  }
}
