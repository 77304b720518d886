import type { StartReport } from '../cache/start-report.js';
import type { Decoded } from '../engine/decode-request.js';
import type { Sequence } from '../engine/sequence.js';
import type { SwappedSequence } from '../engine/swap-store.js';
import { HeadstartError } from '../errors.js';
import type { ReplySequence, TokenChoice } from '../generate/reply-sequence.js';
import { commonPrefixLength } from '../tokens.js';
import { PrefixLoader, type SequenceSetup } from './prefix-loader.js';

/**
 * The sequence of a conversation. While it is idle, the engine may evict it. The next prompt then leases an id again and
 * loads the longest known prefix.
 */
export class ConversationSequence implements ReplySequence {
  readonly #setup: SequenceSetup;
  readonly #sequence: Sequence;
  readonly #prefixLoader: PrefixLoader;
  /**
   * Whether the current turn has had an id. If the turn loses it, `maxQueueSize` does not apply to the next lease.
   */
  #inProgress = false;
  /** Whether a failure left unknown contents in the sequence. */
  #isUnknown = false;

  constructor(setup: SequenceSetup) {
    this.#setup = setup;
    this.#sequence = setup.engine.createSequence({ templateLength: setup.template.length });
    this.#prefixLoader = new PrefixLoader(setup, this.#sequence, this);
  }

  /** While busy, the sequence cannot be evicted. */
  get busy(): boolean {
    return this.#sequence.busy;
  }

  /** Whether a turn is in progress. */
  get inProgress(): boolean {
    return this.#inProgress;
  }

  setBusy(busy: boolean): void {
    if (busy) {
      this.#sequence.busy = true;
    } else {
      this.#inProgress = false;
      this.makePreemptible();
    }
  }

  /** Lets other conversations evict the sequence, also during a turn, until it is busy again. */
  makePreemptible(): void {
    this.#setup.engine.sessions.setIdle(this.#sequence);
  }

  release(): void {
    this.#isUnknown = false;
    this.#setup.engine.sessions.release(this.#sequence);
  }

  /** Releases the sequence, its swapped-out state and its checkpoints. */
  close(): void {
    this.release();
    this.#setup.engine.swap.drop(this.#sequence);
    this.#setup.checkpoints.drop(this);
  }

  /** Leases an id and loads the template. */
  async start(signal: AbortSignal | undefined): Promise<StartReport> {
    await this.#setup.engine.sessions.lease(this.#sequence, signal);
    return this.#prefixLoader.loadTemplate(signal);
  }

  /**
   * Makes the sequence hold the longest possible prefix of the prompt, without the prompt's last token, which is always
   * decoded.
   *
   * @returns how many tokens of the prefix did not have to be decoded
   */
  async align(prompt: Int32Array, signal: AbortSignal): Promise<number> {
    try {
      return await this.#align(prompt, signal);
    } catch (error) {
      throw this.#noteFailure(error);
    }
  }

  async #align(prompt: Int32Array, signal: AbortSignal): Promise<number> {
    const { engine } = this.#setup;
    const sequence = this.#sequence;
    if (!sequence.isLeased) {
      this.#isUnknown = false;
      await engine.sessions.lease(sequence, signal, this.#inProgress);
    }
    this.#inProgress = true;
    if (!sequence.isEmpty && engine.swap.has(sequence)) {
      await sequence.clear(); // it holds only the template or a part of the state to swap in
    }
    // Tokens that were decoded again for this prompt do not count as cached.
    const cached = sequence.isEmpty ? await this.#prefixLoader.resume(prompt, signal) : Number.POSITIVE_INFINITY;
    const shared = Math.min(commonPrefixLength(sequence.tokens, prompt), prompt.length - 1);
    if (shared === sequence.length) {
      return Math.min(shared, cached);
    }
    if (engine.canTrim && !(engine.reproducible && shared < this.#setup.template.length)) {
      if (await sequence.trim(shared)) {
        return Math.min(shared, cached);
      }
    }
    await sequence.clear();
    return this.#prefixLoader.loadLongest(prompt, signal);
  }

  /**
   * Decodes the tokens of a text that the sequence does not hold yet, and picks the next token. If the sequence was
   * lost since the last decode, the whole text is aligned and decoded again.
   *
   * @param tokensFrom returns the tokens of the text from a position on; the text is at least one token longer than the
   *   sequence
   */
  async decode(tokensFrom: (position: number) => Int32Array, choice: TokenChoice): Promise<Decoded> {
    const sequence = this.#sequence;
    for (;;) {
      if (sequence.isEmpty) {
        await this.align(tokensFrom(0), choice.signal);
      }
      try {
        return await this.#setup.engine.decode({
          // Listed field by field for speed: with `...choice`, each request would get a hidden class of its own.
          tokens: tokensFrom(sequence.length),
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

  /**
   * Whether to call {@link keepCheckpoint}. Checkpoints are useful only if a sequence cannot be trimmed
   * (`engine.canTrim`). Without one, a prompt that differs after an earlier message would then decode the whole
   * conversation again. Checkpoints are never kept in `reproducible` mode, because a checkpoint would change where the
   * prompt's prefill is cut.
   */
  get wantsCheckpoints(): boolean {
    const { engine, checkpoints } = this.#setup;
    return !engine.canTrim && !engine.reproducible && checkpoints.mayFit();
  }

  /**
   * Decodes those tokens of a prompt's beginning that the sequence lacks, and keeps a checkpoint at the end of the
   * beginning. If the sequence already holds more tokens, no checkpoint is kept.
   *
   * @param beginsTurn whether the prompt is the first one of its turn
   */
  async keepCheckpoint(beginning: Int32Array, beginsTurn: boolean, signal: AbortSignal): Promise<void> {
    if (this.#sequence.length < beginning.length) {
      await this.decode((position) => beginning.subarray(position), { signal });
    }
    if (this.#sequence.length === beginning.length && beginning.length > this.#setup.template.length) {
      await this.#prefixLoader.keepCheckpoint(beginsTurn);
    }
  }

  /**
   * Copies the contents that the next turn would continue from, for a file or a fork. They come from the swapped-out
   * state, the sequence, or the longest checkpoint. The caller closes the state.
   *
   * @returns undefined if there is nothing to copy
   */
  async captureCheckpoint(): Promise<SwappedSequence | undefined> {
    const { engine, checkpoints, template } = this.#setup;
    const contents = await engine.swap.checkpointOf(this.#sequence);
    const state = contents === undefined ? checkpoints.get(this)?.state.share() : undefined;
    return state === undefined
      ? contents
      : { tokens: state.tokens, templateTokens: template.length, chunks: [], state };
  }

  /**
   * As {@link captureCheckpoint}, but with a state that shares more than the template with `tokens`. If there is no
   * such state, `tokens` are decoded first.
   */
  async captureCheckpointFor(tokens: Int32Array, signal: AbortSignal): Promise<SwappedSequence | undefined> {
    const checkpoint = await this.captureCheckpoint();
    const shared = commonPrefixLength(checkpoint?.tokens ?? [], tokens);
    const isUsable = this.#setup.engine.canTrim || shared === checkpoint?.tokens.length;
    if (checkpoint?.state !== undefined && isUsable && shared > this.#setup.template.length) {
      return checkpoint;
    }
    checkpoint?.state?.close();
    if (tokens.length === 0) {
      return undefined; // with this chat template each prompt begins differently
    }
    await this.align(tokens, signal);
    await this.decode((position) => tokens.subarray(position), { signal });
    return this.captureCheckpoint();
  }

  /**
   * Takes over the checkpoint of another conversation or of a file, so that the next prompt continues from it.
   *
   * @returns whether the engine accepted the checkpoint
   */
  adopt(checkpoint: SwappedSequence): boolean {
    return this.#setup.engine.swap.adopt(this.#sequence, checkpoint);
  }

  /**
   * Call it at the beginning of a turn. In `reproducible` mode an unfinished turn must be rolled back, because the
   * tokens that it decoded would change where the next prompt's prefill is cut.
   *
   * @returns a function that rolls the sequence back; call `setBusy(false)` after it. Undefined if not `reproducible`.
   */
  rollbackPoint(): (() => Promise<void>) | undefined {
    const { engine } = this.#setup;
    if (!engine.reproducible) {
      return undefined;
    }
    const checkpoint = engine.swap.checkpoint(this.#sequence);
    const rollBack = async () => {
      this.#sequence.busy = true;
      if (!(await engine.swap.rollBack(this.#sequence, checkpoint)) && this.#sequence.isLeased) {
        await this.#sequence.clear();
      }
    };
    return () => rollBack().catch(() => this.release());
  }

  /**
   * Starts as a copy of `source`. In a unified KV cache with a free sequence, the copy shares the cells of `source`.
   * Otherwise it continues from a copy of the state.
   */
  async forkFrom(source: ConversationSequence): Promise<Pick<StartReport, 'source' | 'cache' | 'bytes'>> {
    const { engine, checkpoints } = this.#setup;
    checkpoints.share(source, this);
    // While a state is swapped out, the sequence of `source` may hold only the template.
    const isComplete = !source.#sequence.isEmpty && !engine.swap.has(source.#sequence);
    if (isComplete && engine.context.info.kvLayout === 'unified' && engine.window.admitsFork(source.#sequence)) {
      if (engine.sessions.tryLease(this.#sequence)) {
        await this.#sequence.forkFrom(source.#sequence);
        return { source: 'resident', cache: 'hit', bytes: 0 };
      }
    }
    const checkpoint = await source.captureCheckpoint();
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
