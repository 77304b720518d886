import { orAborted, throwIfAborted } from '../abort.js';
import type { Reproducibility } from '../engine/reproducible/reproducibility.js';
import type { Sequence } from '../engine/sequence.js';
import { checkpointsOf } from '../engine/sequence-contents.js';
import type { SequenceStates } from '../engine/sequence-states.js';
import { commonPrefixLength, isPrefix } from '../tokens.js';
import {
  type LoadedPrefix,
  type LoadedSource,
  loadedPrefix,
  type NearestPrefix,
  type ReuseLimit,
  templatePrefix,
} from './loaded-prefix.js';
import { MIN_SHARED_TOKENS } from './prefix-hash.js';
import { type ConversationCandidate, type DiskCandidate, type PrefixQuery, sourceOf } from './prefix-index.js';
import type { PrefixSetup } from './prefix-setup.js';
import type { SharedPrefill } from './shared-prefill.js';
import type { StartReport } from './start-report.js';

/**
 * Brings prompts into a sequence in the cheapest way: the sequence keeps the tokens that it holds, copies another
 * sequence, or restores a state from memory or disk. The caller then decodes the rest of the prompt.
 */
export class PrefixLoader {
  readonly #setup: PrefixSetup;
  readonly #sequence: Sequence;
  readonly #prefill: SharedPrefill;
  /** The nearest stored prefix before the newest lease, which may evict the sequence that holds this prefix. */
  #nearest: NearestPrefix | undefined;

  constructor(setup: PrefixSetup, sequence: Sequence, prefill: SharedPrefill) {
    this.#setup = setup;
    this.#sequence = sequence;
    this.#prefill = prefill;
  }

  /**
   * Leases an id for the sequence, or takes over the id and the tokens of an idle sequence that shares tokens with the
   * prompt.
   *
   * @param prompt undefined if only the template will be loaded
   * @param inProgress as `SequencePool.lease`
   */
  async lease(prompt: Int32Array | undefined, signal: AbortSignal | undefined, inProgress: boolean): Promise<void> {
    const { sessions, states, reproducible } = this.#setup.engine;
    const sequence = this.#sequence;
    sequence.group = this.#prefill.group;
    throwIfAborted(signal);
    const tokens = prompt?.subarray(0, -1) ?? new Int32Array();
    const mayReuse = prompt !== undefined && reproducible === undefined;
    this.#nearest = mayReuse ? this.#setup.cache.index.nearest(this.#queryFor(prompt), sequence) : undefined;
    const idle = mayReuse ? this.#findIdle(tokens) : undefined;
    if (idle === undefined) {
      await sessions.lease(sequence, signal, inProgress);
      return;
    }
    this.#nearest = copyOf(this.#nearest);
    const isContinued = continues(tokens, idle.sequence, idle.common);
    this.#noteShared(idle.sequence, isContinued);
    states.setCheckpoints(sequence, { ...idle.sequence.checkpoints }); // before the eviction, which may drop them
    sessions.takeOver(idle.sequence, sequence, !isContinued);
    if (isContinued) {
      states.dropContinued(idle.sequence);
    }
    // The prompt's own request must never keep the other tokens, for example because `forget` names only their owner.
    const kept = this.#usable(tokens);
    if (kept === 0 || !(await this.#trim(kept, signal))) {
      await this.#empty();
    }
  }

  /**
   * Finds the idle sequence to take over instead of copying it. Either the request of the idle sequence has ended and
   * the prompt continues it, or the idle sequence would be evicted anyway.
   */
  #findIdle(tokens: Int32Array): { sequence: Sequence; common: number } | undefined {
    const { cache, engine } = this.#setup;
    const { sessions } = engine;
    const idle = cache.index.longestIdle(this.#queryFor(tokens), this.#templateLengthIn(tokens));
    if (idle === undefined) {
      return undefined;
    }
    const isEvicted = !sessions.hasFreeId && idle.sequence === sessions.nextEvicted();
    return isEvicted || continues(tokens, idle.sequence, idle.common) ? idle : undefined;
  }

  /**
   * Notes that a prompt shares the tokens of an ended request. The request is then no longer a one-off request.
   *
   * @param isContinued whether the prompt continues the request. If not, the prompt's own request may be a one-off.
   */
  #noteShared(source: Sequence, isContinued: boolean): void {
    if (source.isAbandoned) {
      source.kind = 'conversation';
      if (isContinued) {
        this.#sequence.kind = 'conversation';
      }
    }
  }

  /** Loads the template into the empty sequence. Loads nothing if there is no template. */
  async loadTemplate(signal: AbortSignal | undefined): Promise<StartReport> {
    const { template, templateReason, useCache, tenant, breakpoints = [], isHinted, cache } = this.#setup;
    if (template.length === 0) {
      return cache.startWithout(templateReason);
    }
    return cache.start(this.#sequence, template, { cache: useCache, tenant, breakpoints, isHinted, signal });
  }

  /**
   * Makes the leased sequence hold the longest possible prefix of a prompt, without the prompt's last token, which is
   * always decoded. After a failure the sequence is empty or holds a prefix of the prompt.
   *
   * @returns the source of the prefix, and why it is not longer
   */
  async load(prompt: Int32Array, signal: AbortSignal): Promise<LoadedPrefix> {
    const { engine } = this.#setup;
    const sequence = this.#sequence;
    await sequence.swapped?.ready;
    throwIfAborted(signal);
    const loaded = await (engine.reproducible === undefined
      ? this.#load(prompt, signal)
      : this.#loadReproducible(engine.reproducible, prompt, signal));
    engine.states.dropSwapped(sequence); // the sequence now holds newer contents
    return loaded;
  }

  #queryFor(tokens: Int32Array): PrefixQuery {
    const { engine, useCache, affinity } = this.#setup;
    return { group: this.#sequence.group, tokens, canTrim: engine.canTrimRestored, ownOnly: !useCache, affinity };
  }

  async #load(prompt: Int32Array, signal: AbortSignal): Promise<LoadedPrefix> {
    const sequence = this.#sequence;
    const { index } = this.#setup.cache;
    const tokens = prompt.subarray(0, -1);
    const template = this.#templateLengthIn(tokens);
    let found = this.#find(tokens, template);
    const arrivals = tokens.length - found.available < MIN_SHARED_TOKENS ? undefined : this.#prefill.arrivals();
    if (arrivals !== undefined) {
      await orAborted(arrivals, signal);
      found = this.#find(tokens, template);
    }
    while (found.wait !== undefined) {
      await this.#prefill.waitIdle(found.wait, signal);
      if (!sequence.isLeased) {
        await this.lease(prompt, signal, true);
      }
      await sequence.swapped?.ready;
      found = this.#find(tokens, template);
    }
    const nearest = index.nearest(this.#queryFor(prompt), sequence, this.#nearest);
    this.#nearest = undefined;
    this.#prefill.begin(tokens, found);
    const searching = index.longestOnDisk(this.#queryFor(tokens), found.available);
    if (searching !== undefined) {
      if (await this.#loadFromDisk(await searching, tokens, signal)) {
        return loadedPrefix({ source: 'disk', cachedTokens: sequence.length }, nearest);
      }
      found = this.#find(tokens, template); // the search took time
    }
    const { kept, candidate } = found;
    let limit = this.#limitOf(candidate);
    if (candidate !== undefined && limit !== 'cells') {
      await this.#empty();
      if (await this.#loadCandidate(candidate, tokens, signal)) {
        return loadedPrefix({ source: sourceOf(candidate), cachedTokens: sequence.length, limit }, nearest);
      }
      limit = 'copy-failed';
    } else if (kept > 0 && kept >= template && (await this.#trim(kept, signal))) {
      return loadedPrefix({ source: 'resident', cachedTokens: kept, limit }, nearest);
    }
    await this.#empty();
    return loadedPrefix({ limit, ...(await this.#loadTemplateOf(tokens, signal)) }, nearest);
  }

  /**
   * Finds what {@link lease} and {@link load} would reuse now, if the sequence holds no tokens. Leases, copies and
   * decodes nothing, and does not count as a use of a template or conversation.
   */
  async peek(prompt: Int32Array): Promise<{ prefix: LoadedPrefix; nearest: NearestPrefix | undefined }> {
    const { cache, engine, tenant, template, useCache } = this.#setup;
    this.#sequence.group = this.#prefill.group;
    const tokens = prompt.subarray(0, -1);
    const templateLength = this.#templateLengthIn(tokens);
    // The disk is searched first, because everything in memory may change during the search.
    const start = templateLength === 0 ? undefined : await cache.peek(template, { tenant, cache: useCache });
    const onDisk = await cache.index.longestOnDisk(this.#queryFor(tokens), templateLength);
    const fromTemplate: LoadedSource = start ?? { source: 'prefill', cachedTokens: 0 };
    if (engine.reproducible !== undefined) {
      const prefix = loadedPrefix({ ...fromTemplate, limit: 'reproducible' }, undefined);
      return { prefix, nearest: undefined };
    }
    const nearest = copyOf(cache.index.nearest(this.#queryFor(prompt), this.#sequence));
    const idle = this.#findIdle(tokens);
    const kept = idle === undefined ? 0 : idle.sequence.trimmableLength(idle.common);
    const own = idle?.sequence ?? this.#sequence; // a takeover also transfers the checkpoints
    const { candidate } = cache.index.longest(this.#queryFor(tokens), own, Math.max(kept, templateLength));
    const limit = this.#limitOf(candidate);
    const loaded: LoadedSource =
      candidate !== undefined && limit !== 'cells'
        ? { source: sourceOf(candidate), cachedTokens: candidate.shared, limit }
        : kept >= templateLength && kept > 0
          ? { source: 'resident', cachedTokens: kept, limit }
          : { limit, ...fromTemplate };
    if (onDisk !== undefined && onDisk.shared >= loaded.cachedTokens + MIN_SHARED_TOKENS) {
      return { prefix: loadedPrefix({ source: 'disk', cachedTokens: onDisk.shared }, nearest), nearest };
    }
    return { prefix: loadedPrefix(loaded, nearest), nearest };
  }

  /** Why a prompt cannot reuse more tokens than those of `candidate`. */
  #limitOf(candidate: ConversationCandidate | undefined): ReuseLimit {
    if (candidate !== undefined && !this.#isAffordable(candidate)) {
      return 'cells';
    }
    return this.#setup.engine.canTrim ? 'not-worth' : 'no-checkpoint';
  }

  /** Loads the template if the tokens begin with it. */
  async #loadTemplateOf(tokens: Int32Array, signal: AbortSignal): Promise<LoadedSource> {
    return this.#templateLengthIn(tokens) === 0
      ? { source: 'prefill', cachedTokens: 0 }
      : templatePrefix(await this.loadTemplate(signal));
  }

  /** @returns whether the candidate was loaded. If not, the sequence has its old contents or is empty. */
  async #loadFromDisk(candidate: DiskCandidate | undefined, tokens: Int32Array, signal: AbortSignal): Promise<boolean> {
    if (candidate === undefined || !this.#isAffordable(candidate)) {
      return false;
    }
    const begin = performance.now();
    await this.#empty();
    const isLoaded = await this.#loadCandidate(candidate, tokens, signal);
    if (isLoaded) {
      this.#setup.cache.conversations?.noteRead(candidate.entry.bytes, performance.now() - begin);
    }
    return isLoaded;
  }

  #find(tokens: Int32Array, template: number) {
    const kept = this.#usable(tokens);
    const baseline = Math.max(kept, template);
    const query = this.#queryFor(tokens);
    const { candidate, branch } = this.#setup.cache.index.longest(query, this.#sequence, baseline);
    const available = candidate?.shared ?? baseline;
    return { kept, candidate, branch, available, wait: this.#prefill.worthWaitingFor(query, available) };
  }

  /** Number of tokens that the sequence can keep of those that it holds. */
  #usable(tokens: Int32Array): number {
    return this.#sequence.trimmableLength(commonPrefixLength(this.#sequence.tokens, tokens));
  }

  /** Length of the template, if the tokens begin with it. */
  #templateLengthIn(tokens: Int32Array): number {
    const { template } = this.#setup;
    return isPrefix(template, tokens) ? template.length : 0;
  }

  /**
   * Whether a candidate is worth its cells. A restored sequence shares no cells with its template. So if cells are
   * scarce, and the template is the larger part of the candidate, a fork of the template is better.
   */
  #isAffordable(candidate: ConversationCandidate | DiskCandidate): boolean {
    const { engine, template } = this.#setup;
    const { info, model } = engine.context;
    const { swapped, ownCells } = this.#sequence;
    const isShared = candidate.source === 'sequence' || info.kvLayout === 'split' || model.recurrent;
    const isOwn = candidate.source === 'memory' && checkpointsOf(this.#sequence).includes(candidate.stored);
    if (isShared || isOwn || candidate.tokens >= 2 * template.length || swapped?.isCopy) {
      return true;
    }
    return info.kvCells - engine.usedCells + ownCells >= 2 * candidate.tokens;
  }

  async #loadCandidate(
    candidate: ConversationCandidate | DiskCandidate,
    tokens: Int32Array,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { cache, tenant } = this.#setup;
    const sequence = this.#sequence;
    const request = {
      key: '',
      keyring: cache.keyring(tenant),
      sequence,
      tokens,
      breakpoints: [],
      isHinted: false,
      signal,
    };
    const { states } = this.#setup.engine;
    const sources = sourcesOf(candidate, states);
    if ((await cache.candidates.load(candidate, request)) === undefined) {
      return false;
    }
    for (const source of sources) {
      const isContinued = !source.isLeased && continues(tokens, source, candidate.shared);
      this.#noteShared(source, isContinued);
      if (isContinued) {
        states.dropContinued(source);
      }
    }
    if (candidate.source === 'disk' && candidate.shared >= (candidate.entry.conversation?.promptTokens ?? 0)) {
      sequence.kind = 'conversation';
    }
    return true;
  }

  /** With `reproducible`, a sequence continues only from its own contents or from the template. */
  async #loadReproducible(rules: Reproducibility, prompt: Int32Array, signal: AbortSignal): Promise<LoadedPrefix> {
    const sequence = this.#sequence;
    const tokens = prompt.subarray(0, -1);
    if (sequence.swapped !== undefined) {
      await this.#empty(); // the sequence holds only the template or a part of the swapped-out contents
    }
    let start: LoadedSource | undefined;
    if (sequence.isEmpty) {
      if (!(await rules.swapIn(sequence, prompt, signal))) {
        start = await this.#loadTemplateOf(tokens, signal);
        await rules.replay(sequence, prompt, signal).catch(async (error: unknown) => {
          await this.#empty().catch(() => undefined); // only a part was replayed: the next turn starts over
          throw error;
        });
      }
    }
    const limit = 'reproducible';
    const nearest = { tokens: sequence.tokens, shared: commonPrefixLength(sequence.tokens, prompt) };
    const kept = this.#usable(tokens);
    if (kept === sequence.length || (kept >= this.#setup.template.length && (await this.#trim(kept, signal)))) {
      const loaded = start ?? { source: 'resident' as const, cachedTokens: kept };
      return loadedPrefix({ ...loaded, cachedTokens: Math.min(kept, loaded.cachedTokens), limit }, nearest);
    }
    await this.#empty();
    return loadedPrefix({ ...(await this.#loadTemplateOf(tokens, signal)), limit }, nearest);
  }

  async #trim(length: number, signal: AbortSignal | undefined): Promise<boolean> {
    const sequence = this.#sequence;
    const { engine } = this.#setup;
    return length === sequence.length || engine.withCells(() => sequence.trim(length), signal, sequence);
  }

  async #empty(): Promise<void> {
    if (!this.#sequence.isEmpty) {
      await this.#sequence.clear();
    }
    this.#sequence.group = this.#prefill.group;
  }
}

/** Copies the tokens, because the sequence that holds them may change at any time. */
function copyOf(nearest: NearestPrefix | undefined): NearestPrefix | undefined {
  return nearest && { ...nearest, tokens: nearest.tokens.slice() };
}

/** The sequences whose tokens a candidate holds. A file has no such sequence. */
function sourcesOf(candidate: ConversationCandidate | DiskCandidate, states: SequenceStates): Sequence[] {
  if (candidate.source === 'sequence') {
    return [candidate.sequence];
  }
  return candidate.source === 'memory' ? states.owners.of(candidate.stored) : [];
}

/**
 * Whether a prompt continues an ended request: it contains the prompt of the request and more. It need not contain the
 * reply, because many chat templates change replies. The last few tokens may differ too, because many chat templates
 * repeat the text that starts a reply only in the newest turn.
 *
 * @param shared number of tokens that the prompt shares with the sequence of the request
 */
function continues(prompt: Int32Array, { isAbandoned, nextPrompt, length }: Sequence, shared: number): boolean {
  const promptLength = nextPrompt?.promptLength ?? 0;
  const isExtended = shared > promptLength - MIN_SHARED_TOKENS && prompt.length >= promptLength;
  return isAbandoned && (isExtended || (length > 0 && shared > length - MIN_SHARED_TOKENS));
}
