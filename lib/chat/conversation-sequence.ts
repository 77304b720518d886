import { randomUUID } from 'node:crypto';
import type { LoadedPrefix } from '../cache/loaded-prefix.js';
import { PrefixLoader } from '../cache/prefix-loader.js';
import type { PrefixSetup } from '../cache/prefix-setup.js';
import { SharedPrefill } from '../cache/shared-prefill.js';
import type { StartReport } from '../cache/start-report.js';
import type { Decoded } from '../engine/decode-request.js';
import type { Sequence } from '../engine/sequence.js';
import { checkpointsOf, type DecodeListener } from '../engine/sequence-contents.js';
import type { ContentsCopy } from '../engine/sequence-states.js';
import { HeadstartError } from '../errors.js';
import type { ReplySequence, TokenChoice } from '../generate/reply-sequence.js';
import type { ReplyKeeper, ReplyScope } from '../generate/sampled-replies.js';
import { commonPrefixLength } from '../tokens.js';

/**
 * The sequence of a conversation. While the sequence is idle, the engine may evict it. The next prompt then leases an
 * id again and loads the longest known prefix.
 */
export class ConversationSequence implements ReplySequence, ReplyKeeper {
  readonly #setup: PrefixSetup;
  readonly #sequence: Sequence;
  readonly #prefill: SharedPrefill;
  readonly #prefixLoader: PrefixLoader;
  /** Part of the group of sampled replies if the conversation shares nothing with others. */
  readonly #ownGroup = randomUUID();
  /** Whether a failure left unknown contents in the sequence. */
  #isUnknown = false;

  constructor(setup: PrefixSetup) {
    this.#setup = setup;
    const { engine, template, kind, affinity, tenant, arrival, epoch = engine.forgets.count } = setup;
    const owner = { kind, affinity, tenant, epoch };
    this.#sequence = engine.createSequence({ templateLength: template.length, ...owner, arrival });
    this.#prefill = new SharedPrefill(setup, this.#sequence);
    this.#prefixLoader = new PrefixLoader(setup, this.#sequence, this.#prefill);
  }

  /** Undefined in `reproducible` mode, and if the program called `forget` for this conversation. */
  get replyScope(): ReplyScope | undefined {
    const { engine, useCache, tenant, affinity } = this.#setup;
    const { group } = this.#prefill;
    return engine.reproducible || this.#isForgotten
      ? undefined
      : { group: useCache ? group : `${group} ${this.#ownGroup}`, tenant, affinity };
  }

  /** Whether the program called `forget` for this conversation since the newest request arrived. */
  get #isForgotten(): boolean {
    return this.#setup.engine.forgets.concern(this.#sequence);
  }

  /** Call it when a new turn or another activity of the conversation begins: earlier calls of `forget` do not concern it. */
  beginActivity(): void {
    this.#sequence.epoch = this.#setup.engine.forgets.count;
  }

  /** While busy, the sequence cannot be evicted. */
  get busy(): boolean {
    return this.#sequence.busy;
  }

  setBusy(busy: boolean): void {
    if (busy) {
      this.#sequence.busy = true;
    } else {
      this.#sequence.inProgress = false;
      this.makeEvictable();
    }
  }

  /**
   * Renders a prompt. Other prefills can be cut where this prompt branches off, if their memory cannot be trimmed.
   *
   * @throws the error of `render`
   */
  async announce<T extends { tokens: Int32Array }>(render: () => Promise<T>): Promise<T> {
    this.#prefill.expect();
    try {
      const prompt = await render();
      this.#prefill.announce(prompt.tokens);
      return prompt;
    } catch (error) {
      this.#prefill.end();
      throw error;
    }
  }

  /**
   * Allows the engine to evict the sequence, even during a turn, until the sequence is busy again. Closes the sequence if
   * the program called `forget` for the conversation.
   */
  makeEvictable(): void {
    if (this.#isForgotten) {
      this.close();
      this.#sequence.busy = false;
    } else {
      this.#prefill.end();
      this.#setup.engine.sessions.setIdle(this.#sequence);
    }
  }

  /** Empties the sequence and ends its lease. Its swapped-out state and its checkpoints stay. */
  release(): void {
    this.#isUnknown = false;
    this.#prefill.end();
    this.#setup.engine.sessions.release(this.#sequence);
  }

  /** Releases the sequence, and drops its swapped-out state and its checkpoints. */
  close(): void {
    this.release();
    const { states } = this.#setup.engine;
    states.dropSwapped(this.#sequence);
    states.setCheckpoints(this.#sequence, {});
  }

  /**
   * Leaves the sequence to later prompts that begin with its tokens. Do not use the sequence after this call. With
   * `reproducible`, closes the sequence instead, because no other prompt may use its tokens.
   */
  abandon(): void {
    const sequence = this.#sequence;
    const isEmpty = !sequence.isLeased && sequence.swapped === undefined;
    if (this.#setup.engine.reproducible !== undefined || isEmpty || this.#isForgotten) {
      this.close();
      return;
    }
    sequence.isAbandoned = true;
    this.setBusy(false);
  }

  setDecodeListener(listener: DecodeListener | undefined): void {
    this.#sequence.onDecoded = listener;
  }

  /** Leases an id and loads the template. */
  async start(signal: AbortSignal | undefined): Promise<StartReport> {
    await this.#prefixLoader.lease(undefined, signal, false);
    return this.#prefixLoader.loadTemplate(signal);
  }

  /**
   * Makes the sequence hold the longest possible prefix of the prompt, without the prompt's last token, which is always
   * decoded.
   *
   * @returns how many tokens of the prefix did not have to be decoded, and why not more
   */
  async align(prompt: Int32Array, signal: AbortSignal): Promise<LoadedPrefix> {
    try {
      return await this.#align(prompt, signal);
    } catch (error) {
      throw this.#noteFailure(error);
    }
  }

  /** As `PrefixLoader.peek`, for a sequence that has no id yet. */
  peek(prompt: Int32Array): ReturnType<PrefixLoader['peek']> {
    return this.#prefixLoader.peek(prompt);
  }

  async #align(prompt: Int32Array, signal: AbortSignal): Promise<LoadedPrefix> {
    const sequence = this.#sequence;
    this.#prefill.announce(prompt);
    if (!sequence.isLeased) {
      this.#isUnknown = false;
      // If the current turn has lost its id, `maxQueueSize` does not apply to the new lease.
      await this.#prefixLoader.lease(prompt, signal, sequence.inProgress);
    }
    sequence.inProgress = true;
    sequence.nextPrompt = { promptLength: prompt.length, ready: Promise.resolve() };
    return this.#prefixLoader.load(prompt, signal);
  }

  /**
   * Decodes those tokens of a text that the sequence does not hold yet, and picks the next token. If the sequence was
   * lost since the last decode, the whole text is aligned and decoded again.
   *
   * @param tokensFrom returns the tokens of the text from a position on; the text is at least one token longer than the
   *   sequence
   */
  async decode(tokensFrom: (position: number) => Int32Array, choice: TokenChoice): Promise<Decoded> {
    const decoded = await this.#decode(tokensFrom, choice);
    this.#prefill.end();
    return decoded;
  }

  async #decode(tokensFrom: (position: number) => Int32Array, choice: TokenChoice): Promise<Decoded> {
    const sequence = this.#sequence;
    for (;;) {
      if (sequence.isEmpty) {
        await this.align(tokensFrom(0), choice.signal);
      }
      const tokens = tokensFrom(sequence.length);
      try {
        if (tokens.length > 1 && (await this.#prefill.decodePiece(tokens, choice.signal))) {
          continue;
        }
        return await this.#setup.engine.decode({
          // Listed field by field for speed: with `...choice`, each request would get a hidden class of its own.
          tokens,
          sampler: choice.sampler,
          logProbabilities: choice.logProbabilities,
          logits: choice.logits,
          signal: choice.signal,
          sequence,
        });
      } catch (error) {
        // An older request may have needed the cells. The sequence is then empty, but still leased.
        if (!HeadstartError.isInstance(error, 'PREEMPTED')) {
          throw this.#noteFailure(error);
        }
      }
    }
  }

  /**
   * After the errors in {@link SEQUENCE_UNHARMED}, the sequence knows its contents, unless the error lists damaged
   * sequences. After any other error the contents are unknown.
   */
  #noteFailure(error: unknown): unknown {
    this.#prefill.end();
    const isUnharmed = HeadstartError.isInstance(error) && SEQUENCE_UNHARMED.has(error.code) && !error.sequences;
    this.#isUnknown ||= !isUnharmed;
    return error;
  }

  /** Releases the sequence if a failure left unknown contents in it. */
  afterFailure(): void {
    if (this.#isUnknown) {
      this.release();
    }
  }

  /** See `SharedPrefill.keepHints`. Call it before the prompt is loaded, if {@link wantsCheckpoints}. */
  keepHints(lengths: readonly number[]): void {
    this.#prefill.keepHints(lengths);
  }

  /** Whether to call {@link keepCheckpoint}: see `SharedPrefill.wantsCheckpoints`. */
  get wantsCheckpoints(): boolean {
    return this.#prefill.wantsCheckpoints;
  }

  /**
   * Decodes those tokens of `beginning` that the sequence lacks, and then keeps a checkpoint. If the sequence already
   * holds more tokens than `beginning`, keeps no checkpoint.
   *
   * @param beginning the first tokens of a prompt
   * @param beginsTurn whether the prompt is the first one of its turn
   */
  async keepCheckpoint(beginning: Int32Array, beginsTurn: boolean, signal: AbortSignal): Promise<void> {
    if (this.#sequence.length < beginning.length) {
      await this.#decode((position) => beginning.subarray(position), { signal });
    }
    if (this.#sequence.length === beginning.length && beginning.length > this.#setup.template.length) {
      await this.#prefill.keepCheckpoint(beginsTurn ? 'turn' : 'step');
    }
  }

  /** Whether conversations are kept on disk. */
  get isKeptOnDisk(): boolean {
    return this.#setup.cache.conversations !== undefined;
  }

  /**
   * Finds out in the background from which part of the sequence the next prompt can continue.
   *
   * @param messageEnd finds the end of the message that began the turn, in tokens
   * @param next renders the next prompt, with any message, in each possible form
   */
  expectNext(messageEnd: () => Promise<number>, next: readonly (() => Promise<Int32Array>)[]): void {
    const { engine } = this.#setup;
    const { nextPrompt: expected } = this.#sequence;
    if (expected === undefined) {
      return;
    }
    const tokens = this.#sequence.tokens.slice();
    const find = async () => {
      expected.messageEnd = await messageEnd();
      if (!engine.canTrimRestored) {
        const prompts = await Promise.all(next.map((render) => render()));
        expected.shared = Math.min(...prompts.map((prompt) => commonPrefixLength(tokens, prompt)));
      }
    };
    expected.ready = find().catch(() => undefined); // without the prompt, a checkpoint is saved
  }

  /**
   * Copies the contents that the next turn would continue from, for a file or a fork. The contents come from the
   * swapped-out state, the sequence, or a checkpoint. The caller must end the copy.
   *
   * @returns undefined if there is nothing to copy
   */
  async captureCheckpoint(signal?: AbortSignal): Promise<ContentsCopy | undefined> {
    const { reproducible, states } = this.#setup.engine;
    if (this.#sequence.swapped?.group !== this.#prefill.group) {
      states.dropSwapped(this.#sequence); // other adapters computed the contents
    }
    const copy = await (reproducible ?? states).copyOf(this.#sequence, signal);
    const stored = checkpointsOf(this.#sequence).find((each) => !each.isPartial && states.store.has(each));
    return copy === undefined && stored !== undefined
      ? { tokens: stored.tokens, chunks: [], state: stored.state, end: states.store.hold(stored) }
      : copy;
  }

  /**
   * As {@link captureCheckpoint}, but with a state that shares more tokens with `tokens` than the template has. If
   * there is no such state, `tokens` are decoded first.
   */
  async captureCheckpointFor(tokens: Int32Array, signal: AbortSignal): Promise<ContentsCopy | undefined> {
    const checkpoint = await this.captureCheckpoint(signal);
    const shared = commonPrefixLength(checkpoint?.tokens ?? [], tokens);
    const isUsable = this.#setup.engine.canTrimRestored || shared === checkpoint?.tokens.length;
    if (checkpoint?.state !== undefined && isUsable && shared > this.#setup.template.length) {
      return checkpoint;
    }
    checkpoint?.end();
    if (tokens.length === 0) {
      return undefined; // with this chat template each prompt begins differently
    }
    await this.align(tokens, signal);
    await this.decode((position) => tokens.subarray(position), { signal });
    return this.captureCheckpoint(signal);
  }

  /**
   * Takes over the checkpoint of another conversation or of a file, so that the next prompt continues from it.
   *
   * @returns whether the engine accepted the checkpoint
   */
  adopt(checkpoint: ContentsCopy): boolean {
    this.#sequence.group = this.#prefill.group;
    return this.#setup.engine.states.adopt(this.#sequence, checkpoint);
  }

  /**
   * Call it at the beginning of a turn. In `reproducible` mode, an unfinished turn must be rolled back. If its tokens
   * stayed, the next prompt would be cut into other chunks.
   *
   * @returns a function that rolls the sequence back; call `setBusy(false)` after it. Undefined if not `reproducible`.
   */
  rollbackPoint(): (() => Promise<void>) | undefined {
    const rollBack = this.#setup.engine.reproducible?.rollbackPoint(this.#sequence);
    return (
      rollBack &&
      (async () => {
        this.#sequence.busy = true;
        await rollBack().catch(() => this.release());
      })
    );
  }

  /**
   * Starts as a fork of `source`. In a unified KV cache with a free sequence id, the fork shares the cells of `source`.
   * Otherwise the fork continues from a copy of the state.
   */
  async forkFrom(
    source: ConversationSequence,
    signal?: AbortSignal,
  ): Promise<Pick<StartReport, 'source' | 'cache' | 'bytes'>> {
    const { engine } = this.#setup;
    engine.states.setCheckpoints(this.#sequence, { ...source.#sequence.checkpoints });
    this.#sequence.group = this.#prefill.group;
    // While contents are swapped out, the sequence of `source` may hold only the template.
    const isComplete = !source.#sequence.isEmpty && source.#sequence.swapped === undefined;
    if (isComplete && engine.context.info.kvLayout === 'unified' && engine.window.admitsFork(source.#sequence)) {
      if (engine.sessions.tryLease(this.#sequence)) {
        await this.#sequence.forkFrom(source.#sequence);
        return { source: 'resident', cache: 'hit', bytes: 0 };
      }
    }
    const checkpoint = await source.captureCheckpoint(signal);
    const bytes = checkpoint?.state?.byteLength ?? 0;
    return checkpoint !== undefined && this.adopt(checkpoint)
      ? { source: 'memory', cache: 'hit', bytes }
      : { source: 'prefill', cache: 'bypass', bytes: 0 };
  }
}

/** Codes of decode errors after which the sequence holds exactly the tokens that it knows. */
const SEQUENCE_UNHARMED: ReadonlySet<string> = new Set([
  'ABORTED',
  'PREEMPTED',
  'QUEUE_FULL',
  'SAMPLER_BUSY',
  'SAMPLER_DEAD',
  'GRAMMAR_DEAD_END',
  'NO_CANDIDATES',
  'LOGITS_INVALID',
  'SAMPLER_FAILED',
]);
