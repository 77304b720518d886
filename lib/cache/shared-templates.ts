import { setImmediate } from 'node:timers/promises';
import { orAborted } from '../abort.js';
import type { Engine } from '../engine/engine.js';
import type { Sequence } from '../engine/sequence.js';
import { MIN_SHARED_TOKENS } from './prefix-hash.js';
import type { PrefixIndex, PrefixQuery, TemplateCandidate } from './prefix-index.js';
import type { StartRequest } from './start-request.js';

/** The longest prefix of a template that can be loaded. */
export interface NearestTemplate {
  /** Undefined if no template shares enough tokens. */
  candidate: TemplateCandidate | undefined;
  /** Whether the candidate is a template that is being prefilled. */
  isInProgress: boolean;
  /** How long the start waited for other prefills, ms. */
  waitedMs: number;
}

/**
 * Lets starts of different templates share the prefill of their common beginning. One start decodes the beginning. The
 * other starts wait until the beginning is decoded, and copy it. If the memory cannot be trimmed, only a state that ends
 * with the beginning can be copied. So the prefill is then cut there, and the state is kept in memory. Later prefills
 * are also cut where earlier templates have branched off.
 */
export class SharedTemplates {
  readonly #engine: Engine;
  readonly #index: PrefixIndex;

  constructor(engine: Engine, index: PrefixIndex) {
    this.#engine = engine;
    this.#index = index;
  }

  /** Whether prefills are cut where other templates branch off. */
  get #isCut(): boolean {
    const { canTrim, states } = this.#engine;
    return !canTrim && states.captures.mayFit();
  }

  /**
   * Call it while a template is looked up that will be loaded. Prefills that may be cut for this template then wait until
   * the template is known.
   */
  async expecting<T>(group: string, find: () => Promise<T>): Promise<T> {
    if (!this.#isCut) {
      return find();
    }
    const expected = {};
    this.#index.templates.expect(expected, group);
    try {
      return await find();
    } finally {
      this.#index.templates.end(expected);
    }
  }

  /** Call it when a start begins. Prefills of other templates can then be cut where its template branches off. */
  announce({ sequence, keyring, tokens }: StartRequest): void {
    if (this.#isCut) {
      this.#index.templates.wait(sequence, keyring.group, tokens);
    }
  }

  /**
   * Finds the template that shares the longest prefix. Waits while another start is decoding a longer common beginning.
   * Then registers the prefill of this template. Call {@link end} after the prefill.
   */
  async nearest({ keyring, tokens, sequence, signal }: StartRequest): Promise<NearestTemplate> {
    const { canTrim, canTrimRestored } = this.#engine;
    const { templates } = this.#index;
    const query = { group: keyring.group, tokens, canTrim: canTrimRestored };
    await this.#untilKnown(keyring.group, signal);
    for (let waitedMs = 0; ; ) {
      const candidate = await this.#index.nearestTemplate(query);
      const available = candidate?.shared ?? 0;
      const terms = { available, minimumGain: MIN_SHARED_TOKENS, needsCut: !canTrim };
      const untilShared = canTrim || this.#isCut ? templates.worthWaitingFor(query, terms) : undefined;
      if (untilShared === undefined) {
        const isInProgress = candidate?.source === 'sequence' && templates.isRunning(candidate.sequence);
        templates.begin(sequence, tokens, available, this.#isCut ? this.#cutsIn(query, sequence, available) : []);
        return { candidate, isInProgress, waitedMs };
      }
      const begin = performance.now();
      await orAborted(untilShared, signal);
      waitedMs += performance.now() - begin;
    }
  }

  /** The lengths at which templates have branched off from this template, ascending. */
  #cutsIn(query: PrefixQuery, sequence: Sequence, available: number): number[] {
    const { group, tokens } = query;
    const branch = this.#index.nearest(query, sequence)?.shared ?? 0;
    if (branch - available >= MIN_SHARED_TOKENS) {
      this.#index.branches.note(group, tokens, branch);
    }
    return this.#index.branches.in(group, tokens);
  }

  /** If prefills are cut, waits until the templates and prompts that are being rendered are known. */
  async #untilKnown(group: string, signal: AbortSignal): Promise<void> {
    const { templates, prompts } = this.#index;
    for (const arrivals of this.#isCut ? [() => templates.arrivals(group), () => prompts.arrivals(group)] : []) {
      await orAborted(Promise.resolve(arrivals()), signal);
      await setImmediate(); // the starts with these templates announce them now
    }
  }

  /**
   * Returns the end of the next piece of a prefill, and whether another template branches off there.
   *
   * @param end number of tokens to which the prefill continues
   */
  nextPiece(sequence: Sequence, end: number): { end: number; isBranch: boolean } {
    const { batchSize } = this.#engine.context.info;
    return this.#isCut ? this.#index.templates.nextPiece(sequence, end, batchSize) : { end, isBranch: false };
  }

  /** Call it when a state of the sequence was kept. Starts that wait for it continue. */
  noteKept(sequence: Sequence): void {
    this.#index.templates.noteKept(sequence);
  }

  /** Call it when the template was loaded or has failed, so that other starts do not wait any longer. Idempotent. */
  end(sequence: Sequence): void {
    this.#index.templates.end(sequence);
  }
}
