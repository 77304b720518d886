import type { PrefixCache, StartOptions } from '../cache/prefix-cache.js';
import type { StartReport } from '../cache/start-report.js';
import type { Engine } from '../engine/engine.js';
import type { Sequence } from '../engine/sequence.js';
import { HeadstartError } from '../errors.js';
import type { SequenceState } from '../native/state.js';
import { isPrefix } from '../tokens.js';
import type { CheckpointOwner, Checkpoints } from './checkpoints.js';

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

/**
 * Brings a prefix into the empty sequence of a conversation: its template, a checkpoint from the end of an earlier
 * message, or the state that was swapped out when another session took the sequence. After a failure the sequence is
 * empty.
 */
export class PrefixLoader {
  readonly #setup: SequenceSetup;
  readonly #sequence: Sequence;
  readonly #owner: CheckpointOwner;

  constructor(setup: SequenceSetup, sequence: Sequence, owner: CheckpointOwner) {
    this.#setup = setup;
    this.#sequence = sequence;
    this.#owner = owner;
  }

  /** Loads the template. Without a template it loads nothing. */
  async loadTemplate(signal: AbortSignal | undefined): Promise<StartReport> {
    const { template, templateReason, useCache, tenant, breakpoints = [], cache } = this.#setup;
    if (template.length === 0) {
      return cache.startWithout(templateReason);
    }
    const options: StartOptions = { cache: useCache, tenant, breakpoints, signal };
    return cache.start(this.#sequence, template, options);
  }

  /**
   * Swaps the evicted state in. If there is none, it loads the longest known prefix and replays recorded batches.
   *
   * @returns how many of the loaded tokens did not have to be decoded
   */
  async resume(prompt: Int32Array, signal: AbortSignal): Promise<number> {
    const { engine } = this.#setup;
    if (await engine.swap.swapIn(this.#sequence, prompt, signal)) {
      return this.#sequence.length;
    }
    const cached = await this.loadLongest(prompt, signal);
    try {
      await engine.swap.replay(this.#sequence, prompt, signal);
      return cached;
    } catch (error) {
      await this.#clear().catch(() => undefined); // only a part was replayed: the next turn starts over
      throw error;
    }
  }

  /**
   * Loads the longest known prefix of the prompt: a checkpoint or the template.
   *
   * @returns how many of the loaded tokens did not have to be decoded
   */
  async loadLongest(prompt: Int32Array, signal: AbortSignal): Promise<number> {
    const { template } = this.#setup;
    if (await this.#loadCheckpoint(prompt, signal)) {
      return this.#sequence.length;
    }
    if (template.length === 0 || template.length >= prompt.length || !isPrefix(template, prompt)) {
      return 0;
    }
    const { cachedTokens } = await this.loadTemplate(signal);
    return cachedTokens;
  }

  /** Captures the sequence as a checkpoint: see {@link Checkpoints.keep}. */
  async keepCheckpoint(beginsTurn: boolean): Promise<void> {
    const { checkpoints, cache, tenant } = this.#setup;
    const { group } = cache.keyring(tenant);
    const tokens = this.#sequence.tokens.slice();
    try {
      const request = { owner: this.#owner, group, tokens, beginsTurn };
      await checkpoints.keep(request, () => this.#sequence.capture());
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      checkpoints.drop(this.#owner);
    }
  }

  /** @returns whether a checkpoint that is longer than the template was loaded */
  async #loadCheckpoint(prompt: Int32Array, signal: AbortSignal): Promise<boolean> {
    const { checkpoints, template } = this.#setup;
    const checkpoint = checkpoints.get(this.#owner, prompt);
    if (checkpoint === undefined || checkpoint.tokens.length <= template.length) {
      return false;
    }
    const release = checkpoints.hold(checkpoint);
    try {
      return await this.#restore(checkpoint.state, signal);
    } finally {
      release();
    }
  }

  /** @returns false if the state could not be restored: then the sequence is empty */
  async #restore(state: SequenceState, signal: AbortSignal): Promise<boolean> {
    const { engine, checkpoints } = this.#setup;
    try {
      await engine.withCells(() => this.#sequence.restore(state), signal, this.#sequence);
      return true;
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED') || HeadstartError.isInstance(error, 'ABORTED')) {
        throw error;
      }
      checkpoints.drop(this.#owner); // a checkpoint only saves work
      await this.#clear();
      return false;
    }
  }

  async #clear(): Promise<void> {
    await this.#sequence.clear();
  }
}
