import type { Engine } from '../engine/engine.js';
import type { StateStore, StoredState } from '../engine/state-store.js';
import { isPrefix, prefixOfAtLeast } from '../tokens.js';
import { type PrefixCandidate, usableTokens } from './prefix-index.js';
import type { ResidentTemplates } from './resident-templates.js';
import type { StartRequest } from './start-request.js';
import { rethrowStop, type StateCopier } from './state-copier.js';

export interface CandidateLoaderParts {
  engine: Engine;
  states: StateStore;
  residents: ResidentTemplates;
  copier: StateCopier;
}

/** Brings the shared prefix of a candidate into an empty sequence: by a fork, from memory or from disk. */
export class CandidateLoader {
  readonly #parts: CandidateLoaderParts;

  constructor(parts: CandidateLoaderParts) {
    this.#parts = parts;
  }

  /**
   * Loads a candidate. A candidate may have been evicted since the index found it.
   *
   * @returns the number of bytes that were copied; undefined if the candidate could not be loaded. The sequence is then
   *   empty.
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  async load(candidate: PrefixCandidate, request: StartRequest): Promise<number | undefined> {
    const { sequence } = request;
    const bytes = await this.#copy(candidate, request);
    // A copy of a busy sequence may hold more tokens than were known when the copy was requested.
    const isExact = candidate.shared === candidate.tokens && candidate.source !== 'sequence';
    if (bytes !== undefined && (isExact || (await this.#trim(candidate.shared, request)))) {
      if (isPrefix(sequence.tokens, request.tokens)) {
        return bytes; // otherwise the source got other tokens after the index had found it
      }
    }
    await sequence.clear();
    return undefined;
  }

  async #trim(length: number, { sequence, signal }: StartRequest): Promise<boolean> {
    try {
      return await this.#parts.engine.withCells(() => sequence.trim(length), signal, sequence);
    } catch (error) {
      rethrowStop(error);
      return false;
    }
  }

  /** Restores a state of the store. @returns the reason if the restore failed: the sequence is then empty */
  async restoreStored(request: StartRequest, stored: StoredState): Promise<string | undefined> {
    const release = this.#parts.states.hold(stored);
    return this.#parts.copier.restore(request, stored.state).finally(release);
  }

  /** @returns as {@link load}, but after a failure the sequence may hold tokens */
  async #copy(candidate: PrefixCandidate, request: StartRequest): Promise<number | undefined> {
    switch (candidate.source) {
      case 'sequence':
        return (await this.#fork(candidate, request)) ?? (await this.#copyState(candidate, request));
      case 'resident':
        if (this.#parts.residents.get(candidate.resident.key) !== candidate.resident) {
          return undefined;
        }
        await this.#parts.residents.fork(candidate.resident, request.sequence);
        return 0;
      case 'memory': {
        const { stored } = candidate;
        this.#parts.engine.states.inheritCheckpoints(request.sequence, stored);
        const bytes = this.#parts.states.has(stored) ? stored.state.byteLength : 0;
        return bytes > 0 && (await this.restoreStored(request, stored)) === undefined ? bytes : undefined;
      }
      case 'disk':
        return this.#read(candidate, request);
    }
  }

  async #fork(
    { sequence: source }: PrefixCandidate & { source: 'sequence' },
    { sequence }: StartRequest,
  ): Promise<number | undefined> {
    const { engine } = this.#parts;
    const isUnified = engine.context.info.kvLayout === 'unified';
    if (!isUnified || !source.canBeForked || !engine.window.admitsFork(source)) {
      return undefined;
    }
    try {
      await sequence.forkFrom(source);
    } catch {
      return undefined; // the source was preempted
    }
    engine.states.setCheckpoints(sequence, { ...source.checkpoints });
    return 0;
  }

  /**
   * Captures the state of a sequence and restores it. A busy sequence is captured between two decodes, when its tokens
   * are known.
   */
  async #copyState(
    { sequence: source, shared }: PrefixCandidate & { source: 'sequence' },
    request: StartRequest,
  ): Promise<number | undefined> {
    const { engine, copier } = this.#parts;
    const checkpoints = { ...source.checkpoints };
    const copy = await engine.states
      .copyLive(source, request.signal, (capture) => engine.betweenSteps(capture))
      .catch((error: unknown) => {
        rethrowStop(error);
        return undefined;
      });
    if (copy === undefined) {
      return undefined;
    }
    try {
      const { state, transfer, tokens } = copy;
      if (state === undefined || prefixOfAtLeast(shared, tokens, request.tokens) === 0) {
        return undefined;
      }
      engine.states.setCheckpoints(request.sequence, checkpoints);
      const bytes = state.byteLength;
      return (await copier.restore(request, state, transfer)) === undefined ? bytes : undefined;
    } finally {
      copy.end();
    }
  }

  /** Restores an entry from disk, unless its tokens differ from those in the index. */
  async #read(candidate: PrefixCandidate & { source: 'disk' }, request: StartRequest): Promise<number | undefined> {
    const { engine, copier } = this.#parts;
    const { keyring, tokens, signal } = request;
    const { disk, entry } = candidate;
    const read = await copier.read(request, entry.bytes, () => disk.readEntry(entry, signal));
    if (typeof read === 'string') {
      return undefined;
    }
    const { state, transfer } = read;
    try {
      const entryTokens = state.tokens;
      const isAsIndexed =
        keyring.keyOf(entryTokens) === entry.key &&
        usableTokens({ tokens, canTrim: engine.canTrimRestored }, entryTokens) === candidate.shared &&
        entryTokens.length === candidate.tokens;
      if (!isAsIndexed) {
        return undefined;
      }
      disk.touch(entry.key);
      const bytes = state.byteLength;
      return (await copier.restore(request, state, transfer)) === undefined ? bytes : undefined;
    } finally {
      transfer.end();
    }
  }
}
