import type { StartReport } from '../cache/start-report.js';
import type { StartOptions, TemplateCache } from '../cache/template-cache.js';
import type { Engine } from '../engine/engine.js';
import type { SequenceHolder } from '../engine/sequence-pool.js';
import { HeadstartError } from '../errors.js';
import type { SequenceState } from '../native/state.js';
import { isPrefix } from '../tokens.js';
import type { Checkpoints } from './checkpoints.js';

export interface SequenceSetup {
  engine: Engine;
  cache: TemplateCache;
  checkpoints: Checkpoints;
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

/** What is in a sequence now. */
export interface LoadedPrefix {
  tokens: ArrayLike<number> & Iterable<number>;
  /** How many of them, from the first, did not have to be computed for it. */
  cached: number;
}

const NO_PREFIX: LoadedPrefix = { tokens: [], cached: 0 };

/**
 * What the empty sequence of a conversation can begin with: its template, a checkpoint of what it held at the end of an earlier message, or
 * what was saved of it before another took its sequence. What fails leaves the sequence empty.
 */
export class PrefixLoader {
  readonly #setup: SequenceSetup;
  readonly #owner: SequenceHolder;

  constructor(setup: SequenceSetup, owner: SequenceHolder) {
    this.#setup = setup;
    this.#owner = owner;
  }

  /** The template alone: nothing where there is none. */
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

  /** What was evicted, or else what a new conversation would begin with. */
  async resume(sequence: number, prompt: Int32Array, signal: AbortSignal): Promise<LoadedPrefix> {
    const { engine } = this.#setup;
    const restored = await engine.swapIn(this.#owner, sequence, prompt, signal);
    if (restored !== undefined) {
      return { tokens: restored, cached: restored.length };
    }
    const begun = await this.loadLongest(sequence, prompt, signal);
    try {
      const replayed = await engine.replay(this.#owner, sequence, begun.tokens.length, prompt, signal);
      return replayed === undefined ? begun : { tokens: replayed, cached: begun.cached };
    } catch (error) {
      await this.#clear(sequence).catch(() => undefined); // a part of it is there: the next turn begins again
      throw error;
    }
  }

  /** The longest known prefix of the prompt. */
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

  /** Keeps a checkpoint of what the sequence holds: as {@link Checkpoints.put}. */
  async keepCheckpoint(sequence: number, held: readonly number[], beginsTurn: boolean): Promise<void> {
    const { checkpoints, engine } = this.#setup;
    if (!checkpoints.mayFit(this.#owner, held.length)) {
      return;
    }
    try {
      const state = await engine.context.captureSequence(sequence, Int32Array.from(held));
      checkpoints.put(this.#owner, state, beginsTurn);
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      checkpoints.drop(this.#owner);
    }
  }

  /** Undefined where no checkpoint goes further than the template. */
  async #loadCheckpoint(sequence: number, prompt: Int32Array, signal: AbortSignal): Promise<Int32Array | undefined> {
    const { checkpoints, template } = this.#setup;
    const state = checkpoints.get(this.#owner, prompt)?.share(); // the budget may drop the store's own meanwhile
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

  /** @returns false where it could not be restored: the sequence is empty then */
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
