// Brings a template into an empty sequence: by a fork, from memory, from disk, from the nearest template, or by a
// prefill. If several starts in this or other processes need the same template, one start computes the template and
// the other starts wait.
import type { Engine } from '../engine/engine.js';
import { HeadstartError } from '../errors.js';
import type { Logger } from '../logger.js';
import { sameTokens } from '../tokens.js';
import type { CacheStores } from './cache-stores.js';
import type { CandidateLoader } from './candidate-loader.js';
import { type EntryLock, waitForLock } from './disk/entry-lock.js';
import { InFlight } from './in-flight.js';
import type { PrefillEstimate } from './prefill-estimate.js';
import { type PrefixIndex, sourceOf } from './prefix-index.js';
import type { Filled, StartRequest } from './start-request.js';
import type { CopiedState, StateCopier } from './state-copier.js';

export interface TemplateLoaderParts extends CacheStores {
  engine: Engine;
  prefillEstimate: PrefillEstimate;
  index: PrefixIndex;
  copier: StateCopier;
  candidates: CandidateLoader;
  /** Whether a start may reuse a prefix of another template. */
  nearest: boolean;
  logger: Logger | undefined;
}

/** The time limit of a wait for another process, as a multiple of the expected duration of its prefill. */
const MAX_WAIT_FACTOR = 3;
/** The minimum time limit of such a wait, ms. This time lets the other process save the entry. */
const MIN_WAIT_LIMIT_MS = 2000;

export class TemplateLoader {
  readonly #parts: TemplateLoaderParts;
  readonly #copier: StateCopier;
  readonly #filling = new InFlight();

  constructor(parts: TemplateLoaderParts) {
    this.#parts = parts;
    this.#copier = parts.copier;
  }

  /** Resolves when the starts in progress have ended. */
  settled(): Promise<void> {
    return this.#filling.settled();
  }

  /** Fills the sequence in the cheapest possible way. */
  async fill(request: StartRequest): Promise<Filled> {
    const { residents } = this.#parts;
    const resident = residents.find(request.key, request.tokens);
    if (resident !== undefined) {
      this.#parts.disk?.touch(request.key);
      await residents.fork(resident, request.sequence);
      const { prefillMs } = resident;
      return { source: 'resident', cache: 'hit', cachedTokens: request.tokens.length, bytes: 0, prefillMs };
    }
    const begin = performance.now();
    return this.#filling.once(
      request.key,
      request.signal,
      () => (residents.admits(request.tokens.length) ? this.#forkNew(request) : this.#load(request)),
      async () => {
        const waitedMs = performance.now() - begin;
        const filled = await this.fill(request);
        return { ...filled, waitedMs: waitedMs + (filled.waitedMs ?? 0) };
      },
    );
  }

  /** Prefills without using the cache. The prefill is cut at the same places as with the cache. */
  async bypass(request: StartRequest, reason: string): Promise<Filled> {
    const { engine } = this.#parts;
    await this.#decode(request, 0, () => Promise.resolve());
    if (engine.hasWindow) {
      const captured = await this.#copier.capture(request, { kind: 'request' });
      await this.#dropMaskedCells(request, captured).finally(() => captured?.transfer.end());
    }
    return { source: 'prefill', cache: 'bypass', cachedTokens: 0, bytes: 0, prefillMs: 0, reason };
  }

  /**
   * Brings the template into a resident sequence and forks that sequence, so that later sessions can fork it too. If no
   * resident sequence is available now, fills the session's sequence directly, because a start never waits for another
   * template.
   */
  async #forkNew(request: StartRequest): Promise<Filled> {
    const { residents } = this.#parts;
    const { key, keyring, tokens, sequence } = request;
    const resident = residents.tryLease(key, keyring.group, tokens, sequence);
    if (resident === undefined) {
      return this.#load(request);
    }
    resident.sequence.onDecoded = sequence.onDecoded;
    try {
      const filled = await this.#load({ ...request, sequence: resident.sequence });
      resident.prefillMs = filled.prefillMs;
      await residents.fork(resident, request.sequence);
      residents.admit(resident);
      return filled;
    } catch (error) {
      if (HeadstartError.isInstance(error, 'ABORTED') && !resident.sequence.isEmpty) {
        await residents.fork(resident, sequence).catch(() => undefined); // the repeat of the request continues there
      }
      residents.discard(resident);
      throw error;
    } finally {
      resident.sequence.onDecoded = undefined;
      residents.settle(resident);
    }
  }

  /** Tries memory, then disk, then prefills. */
  async #load(request: StartRequest): Promise<Filled> {
    const memory = await this.#fromMemory(request);
    if (typeof memory !== 'string') {
      return memory;
    }
    const disk = await this.#fromDisk(request);
    if (typeof disk !== 'string') {
      return disk;
    }
    return this.#prefillOrWait(request, memory === 'absent' ? disk : memory);
  }

  /** @returns the reason, as text, if the template is not in memory or cannot be restored */
  async #fromMemory(request: StartRequest): Promise<Filled | string> {
    const { states, disk, prefillEstimate } = this.#parts;
    const { key, tokens } = request;
    const stored = states.find(key);
    if (stored === undefined || !sameTokens(stored.tokens, tokens)) {
      return 'absent';
    }
    const begin = performance.now();
    const { prefillMs = 0, state } = stored;
    const bytes = state.byteLength;
    const failure = await this.#parts.candidates.restoreStored(request, stored);
    if (failure !== undefined) {
      states.drop(stored);
      return failure;
    }
    disk?.touch(key);
    prefillEstimate.noteRestore(tokens.length, performance.now() - begin);
    return { source: 'memory', cache: 'hit', cachedTokens: tokens.length, bytes, prefillMs };
  }

  /** @returns the reason, as text, if the entry is not on disk or cannot be used */
  async #fromDisk(request: StartRequest): Promise<Filled | string> {
    const { disk, prefillEstimate, writeBehind } = this.#parts;
    const { key, keyring, tokens, signal } = request;
    if (disk === undefined) {
      return 'absent';
    }
    const read = await this.#copier.read(request, await disk.sizeOf(key), () => disk.read(key, tokens, signal));
    if (typeof read === 'string') {
      return read;
    }
    const { state, transfer, prefillMs, begin } = read;
    const bytes = state.byteLength;
    try {
      const failure = await this.#copier.restore(request, state, transfer);
      if (failure !== undefined) {
        return failure;
      }
      writeBehind.keep({ key, keyring, state, transfer, tokens, prefillMs });
    } finally {
      transfer.end(); // closes the state unless it was kept
    }
    disk.touch(key);
    prefillEstimate.noteRestore(tokens.length, performance.now() - begin);
    return { source: 'disk', cache: 'hit', cachedTokens: tokens.length, bytes, prefillMs };
  }

  /** Prefills. If another process is prefilling the same template, first waits for its entry, within a time limit. */
  async #prefillOrWait(request: StartRequest, problem: string): Promise<Filled> {
    const { disk, prefillEstimate } = this.#parts;
    if (disk === undefined) {
      return this.#prefill(request, problem, undefined);
    }
    await disk.directory.make().catch(() => undefined); // the directory may have been deleted since the cache was opened
    const limit = Math.max(
      MIN_WAIT_LIMIT_MS,
      MAX_WAIT_FACTOR * prefillEstimate.expectedPrefillMs(request.tokens.length),
    );
    const foreign = problem.startsWith('foreign');
    const { lock, appeared, waitedMs } = await waitForLock(disk, request.key, foreign, limit, request.signal);
    const waited = waitedMs > 0 ? { waitedMs } : {};
    try {
      const filled = appeared ? await this.#fromDisk(request) : problem;
      if (typeof filled !== 'string') {
        await lock?.release();
        return { ...filled, ...waited };
      }
      return { ...(await this.#prefill(request, problem, lock)), ...waited };
    } catch (error) {
      await lock?.release();
      throw error;
    }
  }

  /**
   * Prefills the tokens that the nearest cached template does not share. After a success, the lock is released when the
   * save has ended. After an error, the caller must release the lock.
   */
  async #prefill(request: StartRequest, problem: string, lock: EntryLock | undefined): Promise<Filled> {
    const { prefillEstimate, writeBehind } = this.#parts;
    const { key, keyring, tokens } = request;
    const start = this.#parts.nearest ? await this.#fromNearest(request) : undefined;
    const from = start?.cachedTokens ?? 0;
    const begin = performance.now();
    await this.#decode(request, from, (cut) => this.#saveBreakpoint(request, cut, performance.now() - begin));
    const ms = performance.now() - begin;
    prefillEstimate.notePrefill(tokens.length - from, ms);
    const prefillMs = from === 0 ? ms : Math.max(ms, prefillEstimate.expectedPrefillMs(tokens.length));
    const captured = await this.#copier.capture(request, { kind: 'template', key });
    let notSaved: string | undefined;
    if (captured === undefined) {
      await lock?.release();
    } else {
      await this.#dropMaskedCells(request, captured).finally(() => {
        notSaved = writeBehind.save({ key, keyring, ...captured, tokens, prefillMs }, lock);
      });
    }
    const miss = { source: 'prefill', cache: 'miss', cachedTokens: 0, bytes: 0, reason: problem } as const;
    return { ...(start ?? miss), prefillMs, ...(notSaved !== undefined && { notSaved }) };
  }

  /**
   * Brings the prefix that the nearest cached template shares into the sequence.
   *
   * @returns undefined if there is no such prefix or it could not be restored; the sequence is then empty
   */
  async #fromNearest(request: StartRequest): Promise<Omit<Filled, 'prefillMs'> | undefined> {
    const { engine, index, candidates } = this.#parts;
    const { keyring, tokens } = request;
    const nearest = await index.nearestTemplate({ group: keyring.group, tokens, canTrim: engine.canTrimRestored });
    const bytes = nearest && (await candidates.load(nearest, request));
    if (nearest === undefined || bytes === undefined) {
      return undefined;
    }
    const end = nearest.shared === nearest.tokens ? 'ends there' : 'differs from there on';
    const what = nearest.source === 'sequence' ? 'conversation' : 'cached template';
    const reason = `the template has no entry: it shares ${nearest.shared} of its ${tokens.length} tokens with a ${what} of ${nearest.tokens} tokens, which ${end}`;
    return { source: sourceOf(nearest), cache: 'prefix', cachedTokens: nearest.shared, bytes, reason };
  }

  /** Decodes the template from position `from` on. Cuts the prefill at breakpoints. */
  async #decode(
    { sequence, tokens, breakpoints, signal }: StartRequest,
    from: number,
    onCut: (cut: number) => Promise<void>,
  ): Promise<void> {
    let position = from;
    for (const cut of [
      ...breakpoints.filter((breakpoint) => breakpoint > from && breakpoint < tokens.length),
      tokens.length,
    ]) {
      if (cut > position) {
        await this.#parts.engine.prefill(sequence, tokens.slice(position, cut), { signal });
        position = cut;
      }
      if (cut < tokens.length) {
        await onCut(cut);
      }
    }
  }

  async #saveBreakpoint(request: StartRequest, cut: number, prefillMs: number): Promise<void> {
    const { states, disk, writeBehind } = this.#parts;
    const { keyring, tokens } = request;
    const head = tokens.slice(0, cut);
    const key = keyring.keyOf(head);
    if (states.find(key) !== undefined || disk?.index.get(disk.nameOf(key)) !== undefined) {
      return;
    }
    const captured = await this.#copier.capture(request, { kind: 'template', key });
    if (captured !== undefined) {
      writeBehind.save({ key, keyring, ...captured, tokens: head, prefillMs });
    }
  }

  /**
   * Removes the masked cells that a prefill leaves in a sliding window, because these cells are never freed once
   * sequences share them. A state contains no masked cells. So the sequence is cleared and restored from the captured
   * state. Warm starts restore the same state.
   */
  async #dropMaskedCells(request: StartRequest, captured: CopiedState | undefined): Promise<void> {
    const { engine } = this.#parts;
    if (captured === undefined || !engine.hasWindow) {
      return;
    }
    const { state, transfer } = captured;
    await request.sequence.clear();
    if ((await this.#copier.restore(request, state, transfer)) !== undefined) {
      await this.#decode(request, 0, () => Promise.resolve());
    }
  }
}
