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
import type { HintPins } from './hint-pins.js';
import { InFlight } from './in-flight.js';
import type { PrefillEstimate } from './prefill-estimate.js';
import { type PrefixIndex, sourceOf } from './prefix-index.js';
import { SharedTemplates } from './shared-templates.js';
import type { Filled, StartRequest } from './start-request.js';
import type { CopiedState, StateCopier } from './state-copier.js';

export interface TemplateLoaderParts extends CacheStores {
  engine: Engine;
  prefillEstimate: PrefillEstimate;
  index: PrefixIndex;
  copier: StateCopier;
  candidates: CandidateLoader;
  hintPins: HintPins;
  /** Whether a start may reuse a prefix of another template. */
  nearest: boolean;
  logger: Logger | undefined;
}

/** The time limit of a wait for another process, as a multiple of the expected duration of its prefill. */
const MAX_WAIT_FACTOR = 3;
/** The minimum time limit of such a wait, ms. This time lets the other process save the entry. */
const MIN_WAIT_LIMIT_MS = 2000;

/** The prefix that a template shares with another one, after it was loaded. */
type Prefix = Omit<Filled, 'prefillMs'>;

/** The place of a cut in a prefill: a breakpoint of the template, or a place where another template branches off. */
type CutKind = 'breakpoint' | 'branch';

export class TemplateLoader {
  readonly #parts: TemplateLoaderParts;
  readonly #copier: StateCopier;
  readonly #filling = new InFlight();
  /** Undefined if a start must not reuse a prefix of another template. */
  readonly #shared: SharedTemplates | undefined;

  constructor(parts: TemplateLoaderParts) {
    this.#parts = parts;
    this.#copier = parts.copier;
    this.#shared = parts.nearest ? new SharedTemplates(parts.engine, parts.index) : undefined;
  }

  /** See {@link SharedTemplates.expecting}. */
  expecting<T>(group: string, find: () => Promise<T>): Promise<T> {
    return this.#shared === undefined ? find() : this.#shared.expecting(group, find);
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
    this.#shared?.announce(request);
    try {
      return await this.#filling.once(
        request.key,
        request.signal,
        () => (residents.admits(request.tokens.length) ? this.#forkNew(request) : this.#load(request)),
        async () => afterWait(performance.now() - begin, await this.fill(request)),
      );
    } finally {
      this.#shared?.end(request.sequence);
    }
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
    try {
      const filled = appeared ? await this.#fromDisk(request) : problem;
      if (typeof filled !== 'string') {
        await lock?.release();
        return afterWait(waitedMs, filled);
      }
      return afterWait(waitedMs, await this.#prefill(request, problem, lock));
    } catch (error) {
      await lock?.release();
      throw error;
    }
  }

  /**
   * Prefills the tokens that the nearest template does not share. After a success, the lock is released when the save
   * has ended. After an error, the caller must release the lock.
   */
  async #prefill(request: StartRequest, problem: string, lock: EntryLock | undefined): Promise<Filled> {
    try {
      const start = this.#shared && (await this.#fromNearest(this.#shared, request));
      return await this.#prefillRest(request, start, problem, lock);
    } finally {
      this.#shared?.end(request.sequence);
    }
  }

  async #prefillRest(
    request: StartRequest,
    start: Prefix | undefined,
    problem: string,
    lock: EntryLock | undefined,
  ): Promise<Filled> {
    const { prefillEstimate, writeBehind } = this.#parts;
    const { key, keyring, tokens } = request;
    const from = start?.cachedTokens ?? 0;
    const begin = performance.now();
    await this.#decode(request, from, (kind) => this.#keepBeginning(request, kind, performance.now() - begin));
    const ms = performance.now() - begin;
    prefillEstimate.notePrefill(tokens.length - from, ms);
    const prefillMs = from === 0 ? ms : Math.max(ms, prefillEstimate.expectedPrefillMs(tokens.length));
    const captured = await this.#copier.capture(request, { kind: 'template', key });
    let notSaved: string | undefined;
    if (captured === undefined) {
      await lock?.release();
    } else {
      await this.#dropMaskedCells(request, captured).finally(() => {
        const why = this.#whyInMemory(request, key);
        notSaved = writeBehind.save({ key, keyring, ...captured, tokens, prefillMs }, lock, why);
      });
    }
    const miss = { source: 'prefill', cache: 'miss', cachedTokens: 0, bytes: 0, reason: problem } as const;
    return { ...(start ?? miss), prefillMs, ...(notSaved !== undefined && { notSaved }) };
  }

  /**
   * Brings the prefix that the nearest template shares into the sequence.
   *
   * @returns undefined if there is no such prefix or it could not be restored; the sequence is then empty
   */
  async #fromNearest(shared: SharedTemplates, request: StartRequest): Promise<Prefix | undefined> {
    const { candidate, isInProgress, waitedMs } = await shared.nearest(request);
    const bytes = candidate && (await this.#parts.candidates.load(candidate, request));
    if (candidate === undefined || bytes === undefined) {
      return undefined;
    }
    const { length } = request.tokens;
    const end = candidate.shared === candidate.tokens ? 'ends there' : 'differs from there on';
    const kind = candidate.source === 'sequence' ? 'conversation' : 'cached template';
    const other = isInProgress ? 'a template in progress' : `a ${kind} of ${candidate.tokens} tokens, which ${end}`;
    const reason = `the template has no entry: it shares ${candidate.shared} of its ${length} tokens with ${other}`;
    const source = sourceOf(candidate);
    return {
      source,
      cache: 'prefix',
      cachedTokens: candidate.shared,
      bytes,
      reason,
      ...(waitedMs > 0 && { waitedMs }),
    };
  }

  /**
   * Decodes the template from position `from` on. Cuts the prefill at breakpoints, and where other templates branch off.
   *
   * @param onCut called at each cut
   */
  async #decode(
    { sequence, tokens, breakpoints, signal }: StartRequest,
    from: number,
    onCut: (kind: CutKind) => Promise<void>,
  ): Promise<void> {
    const { length } = tokens;
    const inside = breakpoints.filter((breakpoint) => breakpoint > from && breakpoint < length);
    for (let position = from; position < length; ) {
      const next = inside.find((breakpoint) => breakpoint > position) ?? length;
      const { end, isBranch } = this.#shared?.nextPiece(sequence, next) ?? { end: next, isBranch: false };
      await this.#parts.engine.prefill(sequence, tokens.slice(position, end), { signal });
      position = end;
      if (end < length && (isBranch || end === next)) {
        await onCut(end === next ? 'breakpoint' : 'branch');
        this.#shared?.noteKept(sequence);
      }
    }
  }

  /** Why an entry stays in memory. Undefined if it is written to disk. */
  #whyInMemory({ isHinted }: StartRequest, key: string): string | undefined {
    const { disk, hintPins } = this.#parts;
    const isDeferred = disk !== undefined && isHinted && !hintPins.isWritten(key);
    return isDeferred ? 'only one request with cache hints has used it' : undefined;
  }

  /** Keeps the decoded beginning of a template in memory, and the beginning up to a breakpoint also on disk. */
  async #keepBeginning(request: StartRequest, kind: CutKind, prefillMs: number): Promise<void> {
    const { states, disk, writeBehind } = this.#parts;
    const { keyring, sequence } = request;
    const tokens = sequence.tokens.slice();
    const key = keyring.keyOf(tokens);
    if (states.find(key) !== undefined || disk?.index.get(disk.nameOf(key)) !== undefined) {
      return;
    }
    const captured = await this.#copier.capture(request, { kind: 'template', key });
    if (captured === undefined) {
      return;
    }
    const beginning = { key, keyring, ...captured, tokens, prefillMs };
    if (kind === 'breakpoint') {
      writeBehind.save(beginning, undefined, this.#whyInMemory(request, key));
    } else if (writeBehind.keep(beginning) === undefined) {
      captured.transfer.end();
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

/** Adds the time of a wait to the result of a start. */
function afterWait(ms: number, filled: Filled): Filled {
  return ms === 0 ? filled : { ...filled, waitedMs: ms + (filled.waitedMs ?? 0) };
}
