import type { PrefixCache, StartOptions } from '../cache/prefix-cache.js';
import type { StartReport } from '../cache/start-report.js';
import type { Engine } from '../engine/engine.js';
import type { SequenceHolder } from '../engine/sequence-pool.js';
import { HeadstartError } from '../errors.js';
import type { SequenceState } from '../native/state.js';
import { isPrefix } from '../tokens.js';
import type { Checkpoints } from './checkpoints.js';

export interface SequenceSetup {
  engine: Engine;
  cache: PrefixCache;
  checkpoints: Checkpoints;
  /** The template's tokens; empty if there is no template. */
  template: Int32Array;
  /** Why `template` is empty. */
  templateReason?: string | undefined;
  useCache: boolean;
  /** Only cache entries of this tenant are used. */
  tenant?: string | undefined;
  /** Token counts at which the template's prefill is cut, so that its prefixes can be kept. */
  breakpoints?: readonly number[] | undefined;
}

/** The contents of a sequence after loading. */
export interface LoadedPrefix {
  tokens: ArrayLike<number> & Iterable<number>;
  /** How many tokens, counted from the first, did not have to be decoded. */
  cached: number;
}

const NO_PREFIX: LoadedPrefix = { tokens: [], cached: 0 };

/**
 * Brings a prefix into the empty sequence of a conversation: its template, a checkpoint from the end of an earlier
 * message, or the state that was swapped out when another session took the sequence. After a failure the sequence is
 * empty.
 */
export class PrefixLoader {
  readonly #setup: SequenceSetup;
  readonly #owner: SequenceHolder;

  constructor(setup: SequenceSetup, owner: SequenceHolder) {
    this.#setup = setup;
    this.#owner = owner;
  }

  /** Loads the template. Without a template it loads nothing. */
  async loadTemplate(
    sequence: number,
    signal: AbortSignal | undefined,
  ): Promise<{ report: StartReport; tokens: Int32Array }> {
    const { template, templateReason, useCache, tenant, breakpoints = [], cache } = this.#setup;
    if (template.length === 0) {
      return { report: cache.startWithout(templateReason), tokens: template };
    }
    const options: StartOptions = { cache: useCache, tenant, breakpoints, signal };
    return { report: await cache.start(sequence, template, options), tokens: template };
  }

  /** Swaps the evicted state in. If there is none, it loads the longest known prefix and replays recorded batches. */
  async resume(sequence: number, prompt: Int32Array, signal: AbortSignal): Promise<LoadedPrefix> {
    const { engine } = this.#setup;
    const restored = await engine.swap.swapIn(this.#owner, sequence, prompt, signal);
    if (restored !== undefined) {
      return { tokens: restored, cached: restored.length };
    }
    const loaded = await this.loadLongest(sequence, prompt, signal);
    try {
      const replayed = await engine.swap.replay(this.#owner, sequence, loaded.tokens.length, prompt, signal);
      return replayed === undefined ? loaded : { tokens: replayed, cached: loaded.cached };
    } catch (error) {
      await this.#clear(sequence).catch(() => undefined); // only a part was replayed: the next turn starts over
      throw error;
    }
  }

  /** Loads the longest known prefix of the prompt: a checkpoint or the template. */
  async loadLongest(sequence: number, prompt: Int32Array, signal: AbortSignal): Promise<LoadedPrefix> {
    const { template } = this.#setup;
    const checkpoint = await this.#loadCheckpoint(sequence, prompt, signal);
    if (checkpoint !== undefined) {
      return { tokens: checkpoint, cached: checkpoint.length };
    }
    if (template.length === 0 || template.length >= prompt.length || !isPrefix(template, prompt)) {
      return NO_PREFIX;
    }
    const { report, tokens } = await this.loadTemplate(sequence, signal);
    return { tokens, cached: report.cachedTokens };
  }

  /** Captures the sequence as a checkpoint: see {@link Checkpoints.put}. */
  async keepCheckpoint(sequence: number, tokens: readonly number[], beginsTurn: boolean): Promise<void> {
    const { checkpoints, engine } = this.#setup;
    if (!checkpoints.mayFit(this.#owner, tokens.length)) {
      return;
    }
    try {
      const state = await engine.context.captureSequence(sequence, Int32Array.from(tokens));
      checkpoints.put(this.#owner, state, beginsTurn);
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      checkpoints.drop(this.#owner);
    }
  }

  /** @returns the checkpoint's tokens; undefined if no checkpoint is longer than the template */
  async #loadCheckpoint(sequence: number, prompt: Int32Array, signal: AbortSignal): Promise<Int32Array | undefined> {
    const { checkpoints, template } = this.#setup;
    // Shared, because the store may drop its own reference during the restore.
    const state = checkpoints.get(this.#owner, prompt)?.share();
    if (state === undefined) {
      return undefined;
    }
    try {
      const { tokens } = state;
      const isUseful = tokens.length > template.length;
      return isUseful && (await this.#restore(sequence, state, signal)) ? tokens : undefined;
    } finally {
      state.close();
    }
  }

  /** @returns false if the state could not be restored: then the sequence is empty */
  async #restore(sequence: number, state: SequenceState, signal: AbortSignal): Promise<boolean> {
    const { engine, checkpoints } = this.#setup;
    try {
      await engine.withCells(() => engine.context.restoreSequence(sequence, state), signal, sequence);
      return true;
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED') || HeadstartError.isInstance(error, 'ABORTED')) {
        throw error;
      }
      checkpoints.drop(this.#owner); // a checkpoint only saves work
      await this.#clear(sequence);
      return false;
    }
  }

  async #clear(sequence: number): Promise<void> {
    await this.#setup.engine.context.removeSequence(sequence);
  }
}
