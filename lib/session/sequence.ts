import type { StartReport } from '../cache/report.js';
import type { StartOptions, TemplateCache } from '../cache/template-cache.js';
import type { Engine } from '../engine/engine.js';
import type { Decoded } from '../engine/request.js';
import type { Past } from '../engine/saved.js';
import type { SequenceHolder } from '../engine/sequences.js';
import { HeadstartError } from '../errors.js';
import type { Sampler } from '../native/sampler.js';
import type { SequenceState } from '../native/state.js';
import { commonPrefixLength, isPrefix } from '../template/tokens.js';
import type { Snapshots } from './snapshots.js';

export interface SequenceSetup {
  engine: Engine;
  cache: TemplateCache;
  snapshots: Snapshots;
  /** The template's tokens; empty where there is none. */
  template: Int32Array;
  /** Why `template` is empty. */
  templateReason?: string | undefined;
  useCache: boolean;
  /** Whose entries serve it. */
  tenant?: string | undefined;
  /** Where the template's prefill is cut, and its heads kept. */
  breakpoints?: readonly number[] | undefined;
}

/** How the token behind a text is chosen. */
export interface TokenChoice {
  /** @default the likeliest */
  sampler?: Sampler | undefined;
  signal: AbortSignal;
  /** How many of the likeliest tokens to tell. @default 0 */
  logProbabilities?: number | undefined;
  /** Tell the logits behind the text. @default false */
  logits?: boolean | undefined;
}

/**
 * The sequence of a conversation, and the tokens that are in it, by position. While idle it may lose the sequence to
 * another; the next prompt brings it back from the template, or from a snapshot.
 */
export class ConversationSequence implements SequenceHolder {
  readonly #setup: SequenceSetup;
  #held: number[] = [];
  #sequence: number | undefined;
  #busy = true;
  /** A failure left it in a state that nobody knows. */
  #isUnknown = false;

  constructor(setup: SequenceSetup) {
    this.#setup = setup;
  }

  /** Whether it may not be taken away now. */
  get busy(): boolean {
    return this.#busy;
  }

  /** How many tokens are in it. */
  get length(): number {
    return this.#held.length;
  }

  /** Whether it has lost what it held, or never held anything. */
  get isEmpty(): boolean {
    return this.#held.length === 0;
  }

  setBusy(busy: boolean): void {
    this.#busy = busy;
    if (!busy) {
      const { sessions } = this.#setup.engine;
      if (this.#sequence !== undefined) {
        sessions.touch(this.#sequence);
      }
      sessions.idle();
    }
  }

  /** What may be saved of it before another takes the sequence. */
  held(): { tokens: Int32Array; templateTokens: number } {
    return { tokens: Int32Array.from(this.#held), templateTokens: this.#setup.template.length };
  }

  /** Another needed the sequence. */
  onEvicted(): void {
    this.#sequence = undefined;
    this.#held = [];
    this.#isUnknown = false;
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
    this.#setup.engine.dropSaved(this);
    this.#setup.snapshots.drop(this);
  }

  /** Leases a sequence and puts the template into it. */
  async start(signal: AbortSignal | undefined): Promise<StartReport> {
    this.#sequence = await this.#setup.engine.sessions.lease(this, signal);
    return this.#startFromTemplate(signal);
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
      throw this.#noted(error);
    }
  }

  async #align(prompt: Int32Array, signal: AbortSignal): Promise<number> {
    const { engine } = this.#setup;
    this.#sequence ??= await engine.sessions.lease(this, signal);
    if (this.#held.length > 0 && engine.hasSaved(this)) {
      await this.#empty(this.#sequence); // all that is in it is the template, or a part of what it comes back to
    }
    // What was computed again for this prompt was not cached.
    const cached =
      this.#held.length === 0 ? await this.#comeBack(this.#sequence, prompt, signal) : Number.POSITIVE_INFINITY;
    const shared = Math.min(commonPrefixLength(this.#held, prompt), prompt.length - 1);
    if (shared === this.#held.length) {
      return Math.min(shared, cached);
    }
    if (engine.canTrim && !(engine.exact && shared < this.#setup.template.length)) {
      await engine.context.removeSequence(this.#sequence, shared);
      this.#held.length = shared;
      return Math.min(shared, cached);
    }
    await this.#empty(this.#sequence);
    return this.#restart(prompt, signal);
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
          tokens: tokensFrom(this.#held.length),
          sampler: choice.sampler,
          logProbabilities: choice.logProbabilities,
          logits: choice.logits,
          signal: choice.signal,
          sequence: this.#require(),
          from: this.#held.length,
          onDecoded: this.#onDecoded,
        });
      } catch (error) {
        if (!HeadstartError.isInstance(error, 'PREEMPTED')) {
          throw this.#noted(error);
        }
        this.#held = []; // it was emptied for who came before, and is still this conversation's
      }
    }
  }

  readonly #onDecoded = (decoded: Int32Array): void => {
    for (const each of decoded) {
      this.#held.push(each);
    }
  };

  /**
   * After an abort the sequence is what `#held` says, unless the abort emptied it; a sampler that failed changed nothing;
   * after anything else nothing is known of it.
   */
  #noted(error: unknown): unknown {
    const known = HeadstartError.isInstance(error) && SEQUENCE_UNHARMED.has(error.code) && !error.sequences;
    this.#isUnknown ||= !known;
    return error;
  }

  /** Gives the sequence back where a failure left it in a state that nobody knows. */
  afterFailure(): void {
    if (this.#isUnknown) {
      this.release();
    }
  }

  /**
   * Where the sequence's end cannot be cut off, keeps its state as it is now: the next prompt may go on from here though
   * it differs in what follows. Not where replies are to be the same to the bit: whether it is still there when it is needed
   * would decide how the prompt is cut.
   */
  async keepSnapshot(): Promise<void> {
    const { canTrim, exact } = this.#setup.engine;
    if (!canTrim && !exact) {
      await this.#capture();
    }
  }

  /** A copy of what this comes back to or holds, for files and forks; undefined where that is nothing. Close its state. */
  async past(): Promise<Past | undefined> {
    const { engine, snapshots, template } = this.#setup;
    const past = await engine.pastOf(this, this.#sequence);
    const state = past === undefined ? snapshots.get(this)?.share() : undefined;
    return state === undefined ? past : { tokens: state.tokens, templateTokens: template.length, pieces: [], state };
  }

  /** {@link past} with a state that more than the template of these tokens can be had from: they are decoded where there is none. */
  async pastFor(tokens: Int32Array, signal: AbortSignal): Promise<Past | undefined> {
    const past = await this.past();
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
    return this.past();
  }

  /** What it is to come back to, though another held it. It owns the state from now on. */
  adopt(past: Past): boolean {
    return this.#setup.engine.adopt(this, past);
  }

  /**
   * Where replies are to be the same to the bit, call it before a turn.
   *
   * @returns call it where the turn did not finish, and set busy to false after: what the turn has read would decide how the
   *   next prompt is cut
   */
  mark(): (() => Promise<void>) | undefined {
    const { engine } = this.#setup;
    if (!engine.exact) {
      return undefined;
    }
    const past = engine.mark(this, this.#sequence);
    const takeBack = async () => {
      const { length } = past.tokens;
      const own = length > 0 && this.#held.length >= length ? this.#sequence : undefined;
      this.#busy = true;
      if (await engine.takeBack(this, own, past)) {
        this.#held.length = length;
      } else if (this.#sequence !== undefined) {
        await this.#empty(this.#sequence);
      }
    };
    return () => takeBack().catch(() => this.release());
  }

  /**
   * Begins as a copy of `source`: shares its cells where the cache is unified and a sequence is to be had at once, else goes
   * on from a copy of its state.
   */
  async forkFrom(source: ConversationSequence): Promise<Pick<StartReport, 'tier' | 'bytes'>> {
    const { engine } = this.#setup;
    const isWhole = source.#held.length > 0 && !engine.hasSaved(source); // of one just restored the template alone is there
    if (source.#sequence !== undefined && isWhole && engine.context.info.unified) {
      const sequence = engine.window.admitsFork(source.#sequence) ? engine.sessions.tryLease(this) : undefined;
      if (sequence !== undefined) {
        this.#sequence = sequence;
        await engine.context.copySequence(source.#sequence, sequence);
        this.#held = [...source.#held];
        return { tier: 'resident', bytes: 0 };
      }
    }
    const past = await source.past();
    const bytes = past?.state?.byteLength ?? 0;
    return past !== undefined && this.adopt(past) ? { tier: 'memory', bytes } : { tier: 'bypass', bytes: 0 };
  }

  /** Brings back what was evicted, or else what a new conversation would begin with; returns how much was not computed. */
  async #comeBack(sequence: number, prompt: Int32Array, signal: AbortSignal): Promise<number> {
    const { engine } = this.#setup;
    const restored = await engine.restoreSaved(this, sequence, prompt, signal);
    if (restored !== undefined) {
      this.#held = [...restored];
      return restored.length;
    }
    const cached = await this.#restart(prompt, signal);
    try {
      const replayed = await engine.replaySaved(this, sequence, this.#held.length, prompt, signal);
      this.#held = replayed === undefined ? this.#held : [...replayed];
    } catch (error) {
      await this.#empty(sequence).catch(() => undefined); // a part of it is there: the next turn begins again
      throw error;
    }
    return cached;
  }

  /** Puts the longest known prefix of the prompt into the empty sequence; returns how much of it was not computed. */
  async #restart(prompt: Int32Array, signal: AbortSignal): Promise<number> {
    const { template } = this.#setup;
    const restored = await this.#restoreSnapshot(prompt, signal);
    if (restored > 0) {
      return restored;
    }
    if (template.length === 0 || template.length >= prompt.length || !isPrefix(template, prompt)) {
      return 0;
    }
    return (await this.#startFromTemplate(signal)).cachedTokens;
  }

  /** @returns the tokens that are in the sequence now: 0 where no snapshot goes further than the template */
  async #restoreSnapshot(prompt: Int32Array, signal: AbortSignal): Promise<number> {
    const { engine, snapshots, template } = this.#setup;
    const state = snapshots.get(this)?.share();
    if (state === undefined) {
      return 0;
    }
    try {
      const { tokens } = state;
      const shared = Math.min(commonPrefixLength(tokens, prompt), prompt.length - 1);
      const usable = shared > template.length && (engine.canTrim || shared === tokens.length);
      return usable && (await this.#restore(state, shared, signal)) ? shared : 0;
    } finally {
      state.close();
    }
  }

  /** @returns false where it could not be restored: the sequence is empty then */
  async #restore(state: SequenceState, length: number, signal: AbortSignal): Promise<boolean> {
    const { engine, snapshots } = this.#setup;
    const sequence = this.#require();
    try {
      await engine.withRoom(() => engine.context.restoreSequence(sequence, state), signal);
      if (length < state.tokens.length) {
        await engine.context.removeSequence(sequence, length);
      }
      this.#held = Array.from(state.tokens.subarray(0, length));
      return true;
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED') || HeadstartError.isInstance(error, 'ABORTED')) {
        throw error;
      }
      snapshots.drop(this); // a snapshot only saves work
      await this.#empty(sequence);
      return false;
    }
  }

  async #startFromTemplate(signal: AbortSignal | undefined): Promise<StartReport> {
    const { template, templateReason, useCache, tenant, breakpoints = [], cache } = this.#setup;
    if (template.length === 0) {
      cache.countBypass();
      return {
        tier: 'bypass',
        match: 'none',
        templateTokens: 0,
        cachedTokens: 0,
        bytes: 0,
        ms: 0,
        key: '',
        reason: templateReason ?? 'no template',
      };
    }
    const options: StartOptions = { cache: useCache, tenant, breakpoints, signal };
    const report = await cache.start(this.#require(), template, options);
    this.#held = [...template];
    return report;
  }

  async #capture(): Promise<void> {
    const { snapshots } = this.#setup;
    if (this.#sequence === undefined || !snapshots.wanted(this)) {
      return;
    }
    try {
      const held = Int32Array.from(this.#held);
      snapshots.put(this, await this.#setup.engine.context.captureSequence(this.#sequence, held));
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      snapshots.drop(this);
    }
  }

  async #empty(sequence: number): Promise<void> {
    await this.#setup.engine.context.removeSequence(sequence);
    this.#held = [];
  }

  #require(): number {
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
