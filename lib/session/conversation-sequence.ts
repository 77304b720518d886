import type { StartReport } from '../cache/start-report.js';
import type { Decoded } from '../engine/decode-request.js';
import type { SequenceHolder } from '../engine/sequence-pool.js';
import type { SwappedSequence } from '../engine/swap-store.js';
import { HeadstartError } from '../errors.js';
import type { ReplySequence, TokenChoice } from '../generate/reply-sequence.js';
import { commonPrefixLength } from '../tokens.js';
import { type LoadedPrefix, PrefixLoader, type SequenceSetup } from './prefix-loader.js';

/**
 * The sequence of a conversation, and the tokens that are in it, by position. While idle it may lose the sequence to
 * another; the next prompt brings it back from the template, or from a checkpoint.
 */
export class ConversationSequence implements SequenceHolder, ReplySequence {
  readonly #setup: SequenceSetup;
  readonly #prefixLoader: PrefixLoader;
  #tokens: number[] = [];
  #sequence: number | undefined;
  #busy = true;
  /** Its turn has had a sequence: it is not refused another where it lent that. */
  #inProgress = false;
  /** A failure left it in a state that nobody knows. */
  #isUndefined = false;

  constructor(setup: SequenceSetup) {
    this.#setup = setup;
    this.#prefixLoader = new PrefixLoader(setup, this);
  }

  /** Whether it may not be taken away now. */
  get busy(): boolean {
    return this.#busy;
  }

  /** Whether it has lost what it held, or never held anything. */
  get isEmpty(): boolean {
    return this.#tokens.length === 0;
  }

  setBusy(busy: boolean): void {
    if (busy) {
      this.#busy = true;
    } else {
      this.#inProgress = false;
      this.makePreemptible();
    }
  }

  /** Others may have the sequence, in the middle of a turn: until it is busy again. */
  makePreemptible(): void {
    const { sessions } = this.#setup.engine;
    this.#busy = false;
    if (this.#sequence !== undefined) {
      sessions.touch(this.#sequence);
    }
    sessions.idle();
  }

  /** What may be saved of it before another takes the sequence. */
  held(): { tokens: Int32Array; templateTokens: number } {
    return { tokens: Int32Array.from(this.#tokens), templateTokens: this.#setup.template.length };
  }

  /** Another needed the sequence. */
  onEvicted(): void {
    this.#sequence = undefined;
    this.#tokens = [];
    this.#isUndefined = false;
  }

  release(): void {
    if (this.#sequence !== undefined) {
      const sequence = this.#sequence;
      this.onEvicted();
      this.#setup.engine.sessions.release(sequence);
    }
  }

  /** Gives the sequence back, and what was kept to bring it back. */
  close(): void {
    this.release();
    this.#setup.engine.dropSwapped(this);
    this.#setup.checkpoints.drop(this);
  }

  /** Leases a sequence and puts the template into it. */
  async start(signal: AbortSignal | undefined): Promise<StartReport> {
    this.#sequence = await this.#setup.engine.sessions.lease(this, signal);
    const { report, tokens } = await this.#prefixLoader.loadTemplate(this.#sequence, signal);
    this.#tokens = [...tokens];
    return report;
  }

  /**
   * Makes the sequence hold a true prefix of the prompt, as long as possible, but at least a token short of it.
   *
   * @returns how many of those tokens did not have to be computed for it
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
    this.#sequence ??= await engine.sessions.lease(this, signal, this.#inProgress);
    this.#inProgress = true;
    if (this.#tokens.length > 0 && engine.hasSwapped(this)) {
      await this.#clear(this.#sequence); // all that is in it is the template, or a part of what it comes back to
    }
    // What was computed again for this prompt was not cached.
    let cached = Number.POSITIVE_INFINITY;
    if (this.#tokens.length === 0) {
      cached = this.#setLoaded(await this.#prefixLoader.resume(this.#sequence, prompt, signal));
    }
    const shared = Math.min(commonPrefixLength(this.#tokens, prompt), prompt.length - 1);
    if (shared === this.#tokens.length) {
      return Math.min(shared, cached);
    }
    if (engine.canTrim && !(engine.reproducible && shared < this.#setup.template.length)) {
      await engine.context.removeSequence(this.#sequence, shared);
      this.#tokens.length = shared;
      return Math.min(shared, cached);
    }
    await this.#clear(this.#sequence);
    return this.#setLoaded(await this.#prefixLoader.loadLongest(this.#sequence, prompt, signal));
  }

  #setLoaded({ tokens, cached }: LoadedPrefix): number {
    this.#tokens = [...tokens];
    return cached;
  }

  /**
   * Decodes what the sequence lacks of a text, and picks the token behind it. Where the sequence was lost meanwhile, to others
   * or because nobody read on, that is all which it held as well.
   *
   * @param tokensFrom the text from a position on; it ends at least a token behind what the sequence holds
   */
  async decode(tokensFrom: (position: number) => Int32Array, choice: TokenChoice): Promise<Decoded> {
    for (;;) {
      if (this.isEmpty) {
        await this.align(tokensFrom(0), choice.signal);
      }
      try {
        return await this.#setup.engine.decode({
          // Field by field: an object that is spread and then added to gets a shape of its own each time.
          tokens: tokensFrom(this.#tokens.length),
          sampler: choice.sampler,
          logProbabilities: choice.logProbabilities,
          logits: choice.logits,
          signal: choice.signal,
          sequence: this.#requireSequence(),
          from: this.#tokens.length,
          onDecoded: this.#onDecoded,
        });
      } catch (error) {
        if (!HeadstartError.isInstance(error, 'PREEMPTED')) {
          throw this.#noteFailure(error);
        }
        this.#tokens = []; // it was emptied for who came before, and is still this conversation's
      }
    }
  }

  readonly #onDecoded = (decoded: Int32Array): void => {
    for (const each of decoded) {
      this.#tokens.push(each);
    }
  };

  /**
   * After an abort the sequence is what `#held` says, unless the abort emptied it; a sampler that failed changed nothing;
   * after anything else nothing is known of it.
   */
  #noteFailure(error: unknown): unknown {
    const known = HeadstartError.isInstance(error) && SEQUENCE_UNHARMED.has(error.code) && !error.sequences;
    this.#isUndefined ||= !known;
    return error;
  }

  /** Gives the sequence back where a failure left it in a state that nobody knows. */
  afterFailure(): void {
    if (this.#isUndefined) {
      this.release();
    }
  }

  /**
   * Whether {@link keepCheckpoint} is of use: the sequence's end cannot be cut off, and what differs behind an earlier message would cost the
   * whole conversation. Not if replies are to be the same to the bit: whether a checkpoint is still there when it is needed would decide
   * how the prompt is cut.
   */
  get wantsCheckpoints(): boolean {
    const { engine, checkpoints } = this.#setup;
    return !engine.canTrim && !engine.reproducible && checkpoints.mayFit(this);
  }

  /**
   * Decodes what the sequence lacks of the beginning of a prompt, and keeps its state as it is there. Nothing is kept if the sequence is
   * further already.
   *
   * @param beginsTurn whether the prompt is the first of its turn
   */
  async keepCheckpoint(beginning: Int32Array, beginsTurn: boolean, signal: AbortSignal): Promise<void> {
    if (this.#tokens.length < beginning.length) {
      await this.decode((position) => beginning.subarray(position), { signal });
    }
    if (this.#tokens.length === beginning.length && beginning.length > this.#setup.template.length) {
      await this.#prefixLoader.keepCheckpoint(this.#requireSequence(), this.#tokens, beginsTurn);
    }
  }

  /** A copy of what this comes back to or holds, for files and forks; undefined where that is nothing. Close its state. */
  async captureCheckpoint(): Promise<SwappedSequence | undefined> {
    const { engine, checkpoints, template } = this.#setup;
    const past = await engine.checkpointOf(this, this.#sequence);
    const state = past === undefined ? checkpoints.get(this)?.share() : undefined;
    return state === undefined ? past : { tokens: state.tokens, templateTokens: template.length, chunks: [], state };
  }

  /** {@link past} with a state that more than the template of these tokens can be had from: they are decoded where there is none. */
  async captureCheckpointFor(tokens: Int32Array, signal: AbortSignal): Promise<SwappedSequence | undefined> {
    const past = await this.captureCheckpoint();
    const shared = commonPrefixLength(past?.tokens ?? [], tokens);
    const serves = this.#setup.engine.canTrim || shared === past?.tokens.length;
    if (past?.state !== undefined && serves && shared > this.#setup.template.length) {
      return past;
    }
    past?.state?.close();
    if (tokens.length === 0) {
      return undefined; // nothing serves a chat template whose prompts begin differently each time
    }
    await this.align(tokens, signal);
    await this.decode((position) => tokens.subarray(position), { signal });
    return this.captureCheckpoint();
  }

  /** What it is to come back to, though another held it. It owns the state from now on. */
  adopt(past: SwappedSequence): boolean {
    return this.#setup.engine.adopt(this, past);
  }

  /**
   * Where replies are to be the same to the bit, call it before a turn.
   *
   * @returns call it where the turn did not finish, and set busy to false after: what the turn has read would decide how the
   *   next prompt is cut
   */
  rollbackPoint(): (() => Promise<void>) | undefined {
    const { engine } = this.#setup;
    if (!engine.reproducible) {
      return undefined;
    }
    const past = engine.checkpoint(this, this.#sequence);
    const takeBack = async () => {
      const { length } = past.tokens;
      const own = length > 0 && this.#tokens.length >= length ? this.#sequence : undefined;
      this.#busy = true;
      if (await engine.rollBack(this, own, past)) {
        this.#tokens.length = length;
      } else if (this.#sequence !== undefined) {
        await this.#clear(this.#sequence);
      }
    };
    return () => takeBack().catch(() => this.release());
  }

  /**
   * Begins as a copy of `source`: shares its cells where the cache is unified and a sequence is to be had at once, else goes
   * on from a copy of its state.
   */
  async forkFrom(source: ConversationSequence): Promise<Pick<StartReport, 'source' | 'cache' | 'bytes'>> {
    const { engine, checkpoints } = this.#setup;
    checkpoints.share(source, this);
    const isWhole = source.#tokens.length > 0 && !engine.hasSwapped(source); // of one just restored the template alone is there
    if (source.#sequence !== undefined && isWhole && engine.context.info.kvLayout === 'unified') {
      const sequence = engine.window.admitsFork(source.#sequence) ? engine.sessions.tryLease(this) : undefined;
      if (sequence !== undefined) {
        this.#sequence = sequence;
        await engine.context.copySequence(source.#sequence, sequence);
        this.#tokens = [...source.#tokens];
        return { source: 'resident', cache: 'hit', bytes: 0 };
      }
    }
    const past = await source.captureCheckpoint();
    const bytes = past?.state?.byteLength ?? 0;
    return past !== undefined && this.adopt(past)
      ? { source: 'memory', cache: 'hit', bytes }
      : { source: 'prefill', cache: 'bypass', bytes: 0 };
  }

  async #clear(sequence: number): Promise<void> {
    await this.#setup.engine.context.removeSequence(sequence);
    this.#tokens = [];
  }

  #requireSequence(): number {
    if (this.#sequence === undefined) {
      throw new HeadstartError('CLOSED', 'Expected a session that holds a sequence');
    }
    return this.#sequence;
  }
}

/** Failures of a decode that leave its sequence as it was, or as `onDecoded` said. */
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
