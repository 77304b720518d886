// Brings a template into an empty sequence: fork, memory, disk, the nearest template's start, or prefill. One start fills a
// template, in this process and between processes; the others wait and find it.
import type { Engine } from '../engine/engine.js';
import { HeadstartError } from '../errors.js';
import type { Logger } from '../logger.js';
import type { SequenceState } from '../native/state.js';
import { sameTokens } from '../tokens.js';
import type { DiskStore } from './disk/disk-store.js';
import { type EntryLock, waitForLock } from './disk/entry-lock.js';
import { InFlight } from './in-flight.js';
import type { Keyring } from './key.js';
import type { MemoryStore } from './memory-store.js';
import { findNearest, type Neighbour, usable } from './nearest.js';
import type { PrefillEstimate } from './prefill-estimate.js';
import type { ResidentTemplates } from './resident-templates.js';
import type { StartReport } from './start-report.js';
import type { WriteBehind } from './write-behind.js';

export interface StartRequest {
  key: string;
  keyring: Keyring;
  sequence: number;
  tokens: Int32Array;
  /** Where the prefill is cut, and a state kept as an entry of its own: rising, inside the template. */
  breakpoints: readonly number[];
  signal: AbortSignal;
}

/** What filling a sequence came to. */
export interface Filled extends Pick<StartReport, 'source' | 'cache' | 'cachedTokens' | 'bytes'> {
  reason?: string;
  notSaved?: string;
  waitedMs?: number;
  /** What the whole template takes to prefill, ms. */
  prefillMs: number;
}

export interface StarterParts {
  engine: Engine;
  residents: ResidentTemplates;
  memory: MemoryStore;
  disk: DiskStore | undefined;
  saver: WriteBehind;
  rates: PrefillEstimate;
  /** Whether a nearer template may be the start. */
  nearest: boolean;
  logger: Logger | undefined;
}

/** Who waits for another process's prefill waits this many times as long as it should take... */
const PATIENCE = 3;
/** ...and at least so long, ms: a save comes on top. */
const LEAST_PATIENCE_MS = 2000;

export class TemplateLoader {
  readonly #parts: StarterParts;
  readonly #filling = new InFlight();

  constructor(parts: StarterParts) {
    this.#parts = parts;
  }

  /** Resolves when the starts under way have ended. */
  settled(): Promise<void> {
    return this.#filling.settled();
  }

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

  /** Prefills and leaves the cache alone, cut in the same places as with it. */
  async bypass(request: StartRequest, reason: string): Promise<Filled> {
    const { engine } = this.#parts;
    await this.#decode(request, 0, () => Promise.resolve());
    if (engine.hasWindow) {
      await this.#settleWindow(request, await this.#capture(request.sequence, request.tokens));
    }
    return { source: 'prefill', cache: 'bypass', cachedTokens: 0, bytes: 0, prefillMs: 0, reason };
  }

  /**
   * Fills a sequence that sessions can fork, and forks it. Where all those are being filled now, the template is not resident this
   * time: a start never waits for another template's.
   */
  async #forkNew(request: StartRequest): Promise<Filled> {
    const { residents } = this.#parts;
    const { key, keyring, tokens, sequence } = request;
    const made = residents.tryLease(key, keyring.group, tokens, sequence);
    if (made === undefined) {
      return this.#load(request);
    }
    try {
      const filled = await this.#load({ ...request, sequence: made.sequence });
      made.prefillMs = filled.prefillMs;
      await residents.fork(made, request.sequence);
      residents.admit(made);
      return filled;
    } catch (error) {
      residents.discard(made);
      throw error;
    } finally {
      residents.settle(made);
    }
  }

  /** Memory, else disk, else prefill. */
  async #load(request: StartRequest): Promise<Filled> {
    const memory = await this.#fromMemory(request);
    if (typeof memory !== 'string') {
      return memory;
    }
    const disk = await this.#fromDisk(request);
    if (typeof disk !== 'string') {
      return disk;
    }
    return this.#compute(request, memory === 'absent' ? disk : memory);
  }

  /** @returns why not, where it is not there or cannot be restored */
  async #fromMemory(request: StartRequest): Promise<Filled | string> {
    const { memory, disk, rates } = this.#parts;
    const { key, tokens } = request;
    const held = memory.get(key);
    if (held === undefined || !sameTokens(held.tokens, tokens)) {
      return 'absent';
    }
    const state = held.state.share(); // the store may drop its own meanwhile
    const begin = performance.now();
    const bytes = state.byteLength;
    const failure = await this.#restore(request, state).finally(() => state.close());
    if (failure !== undefined) {
      memory.delete(key);
      return failure;
    }
    disk?.touch(key);
    rates.noteRestore(tokens.length, performance.now() - begin);
    return { source: 'memory', cache: 'hit', cachedTokens: tokens.length, bytes, prefillMs: held.prefillMs };
  }

  /** @returns why not, where it is not there or cannot be used */
  async #fromDisk(request: StartRequest): Promise<Filled | string> {
    const { disk, rates, saver } = this.#parts;
    const { key, keyring, tokens, signal } = request;
    if (disk === undefined) {
      return 'absent';
    }
    const begin = performance.now();
    const found = await disk.read(key, tokens, signal);
    if (found.state === undefined) {
      return found.reason;
    }
    const { state, bytes, prefillMs } = found;
    const failure = await this.#restore(request, state).catch((error: unknown) => {
      state.close();
      throw error;
    });
    if (failure !== undefined) {
      state.close();
      return failure;
    }
    saver.keep({ key, keyring, state, tokens, prefillMs });
    disk.touch(key);
    rates.noteRestore(tokens.length, performance.now() - begin);
    return { source: 'disk', cache: 'hit', cachedTokens: tokens.length, bytes, prefillMs };
  }

  /** Prefills, unless another process does: then waits, for a time, for what it saves. */
  async #compute(request: StartRequest, problem: string): Promise<Filled> {
    const { disk, rates } = this.#parts;
    if (disk === undefined) {
      return this.#prefill(request, problem, undefined);
    }
    await disk.directory.make().catch(() => undefined); // it may have been deleted meanwhile
    const limit = Math.max(LEAST_PATIENCE_MS, PATIENCE * rates.expectedPrefillMs(request.tokens.length));
    const foreign = problem.startsWith('foreign');
    const { lock, appeared, waitedMs } = await waitForLock(disk, request.key, foreign, limit, request.signal);
    const waited = waitedMs > 0 ? { waitedMs } : {};
    try {
      const found = appeared ? await this.#fromDisk(request) : problem;
      if (typeof found !== 'string') {
        await lock?.release();
        return { ...found, ...waited };
      }
      return { ...(await this.#prefill(request, problem, lock)), ...waited };
    } catch (error) {
      await lock?.release();
      throw error;
    }
  }

  /** From the nearest cached template on, or from nothing. Takes the lock over once it is done. */
  async #prefill(request: StartRequest, problem: string, lock: EntryLock | undefined): Promise<Filled> {
    const { rates, saver } = this.#parts;
    const { key, keyring, sequence, tokens } = request;
    const start = this.#parts.nearest ? await this.#fromNearest(request) : undefined;
    const from = start?.cachedTokens ?? 0;
    const begin = performance.now();
    await this.#decode(request, from, (cut) => this.#saveBreakpoint(request, cut, performance.now() - begin));
    const ms = performance.now() - begin;
    rates.notePrefill(tokens.length - from, ms);
    const prefillMs = from === 0 ? ms : Math.max(ms, rates.expectedPrefillMs(tokens.length));
    const state = await this.#capture(sequence, tokens);
    let notSaved: string | undefined;
    if (state === undefined) {
      await lock?.release();
    } else {
      notSaved = saver.save({ key, keyring, state: state.share(), tokens, prefillMs }, lock);
      await this.#settleWindow(request, state);
    }
    const none = { source: 'prefill', cache: 'miss', cachedTokens: 0, bytes: 0, reason: problem } as const;
    return { ...(start ?? none), prefillMs, ...(notSaved !== undefined && { notSaved }) };
  }

  /** Puts the head that the nearest template shares into the sequence; undefined, and nothing, where there is none. */
  async #fromNearest(request: StartRequest): Promise<Omit<Filled, 'prefillMs'> | undefined> {
    const { engine, residents, memory, disk } = this.#parts;
    const { keyring, sequence, tokens } = request;
    const search = { keyring, template: tokens, canTrim: engine.canTrim };
    await disk?.index.readTail();
    // Cells of a window that sequences share are never freed: there only states serve.
    const found = await findNearest(search, engine.hasWindow ? [] : residents.values(), memory, disk);
    if (found === undefined) {
      return undefined;
    }
    const bytes = await this.#take(found, request);
    if (bytes === undefined) {
      await engine.context.removeSequence(sequence);
      return undefined;
    }
    const ends = found.shared === found.tokens ? 'which ends there' : 'which differs from there on';
    const reason = `no entry of its own: it shares ${found.shared} of its ${tokens.length} tokens with a cached template of ${found.tokens}, ${ends}`;
    return { source: found.source, cache: 'prefix', cachedTokens: found.shared, bytes, reason };
  }

  /** @returns the bytes read; undefined where it came to nothing: the sequence may hold something then */
  async #take(found: Neighbour, request: StartRequest): Promise<number | undefined> {
    const { engine, residents } = this.#parts;
    const { sequence } = request;
    let bytes = 0;
    if (found.source === 'resident') {
      if (residents.get(found.resident.key) !== found.resident) {
        return undefined; // it left while files were read
      }
      await residents.fork(found.resident, sequence);
    } else {
      const state =
        found.source === 'memory'
          ? this.#parts.memory.get(found.key)?.state.share()
          : await this.#readNeighbour(found, request);
      bytes = state?.byteLength ?? 0;
      const restoring = state && this.#restore(request, state).finally(() => state.close());
      const failure = restoring === undefined ? 'absent' : await restoring;
      if (failure !== undefined) {
        return undefined;
      }
    }
    if (found.shared < found.tokens && !(await engine.context.removeSequence(sequence, found.shared))) {
      return undefined;
    }
    return bytes;
  }

  /** The verified state of an entry that the index proposed, if it is what the index said. */
  async #readNeighbour(
    found: Neighbour & { source: 'disk' },
    { keyring, tokens, signal }: StartRequest,
  ): Promise<SequenceState | undefined> {
    const { disk, engine } = this.#parts;
    const read = await disk?.readEntry(found.facts, signal);
    if (read?.state === undefined) {
      return undefined;
    }
    const own = read.state.tokens;
    const search = { keyring, template: tokens, canTrim: engine.canTrim };
    if (keyring.keyOf(own) !== found.facts.key || usable(search, own) !== found.shared || own.length !== found.tokens) {
      read.state.close();
      return undefined;
    }
    disk?.touch(found.facts.key);
    return read.state;
  }

  /** Decodes the template from a position on, cut at breakpoints. */
  async #decode(
    { sequence, tokens, breakpoints, signal }: StartRequest,
    from: number,
    onCut: (cut: number) => Promise<void>,
  ): Promise<void> {
    let at = from;
    for (const cut of [...breakpoints.filter((each) => each > from && each < tokens.length), tokens.length]) {
      if (cut > at) {
        await this.#parts.engine.prefill(sequence, tokens.slice(at, cut), at, { signal });
        at = cut;
      }
      if (cut < tokens.length) {
        await onCut(cut);
      }
    }
  }

  async #saveBreakpoint({ keyring, sequence, tokens }: StartRequest, cut: number, prefillMs: number): Promise<void> {
    const { memory, disk, saver } = this.#parts;
    const head = tokens.slice(0, cut);
    const key = keyring.keyOf(head);
    if (memory.has(key) || disk?.index.get(disk.nameOf(key)) !== undefined) {
      return;
    }
    const state = await this.#capture(sequence, head);
    if (state !== undefined) {
      saver.save({ key, keyring, state, tokens: head, prefillMs });
    }
  }

  /** @returns what was wrong, or undefined once the state is in the sequence */
  async #restore({ sequence, signal }: StartRequest, state: SequenceState): Promise<string | undefined> {
    const { engine, logger } = this.#parts;
    try {
      await engine.withCells(() => engine.context.restoreSequence(sequence, state), signal, sequence);
      return undefined;
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED') || HeadstartError.isInstance(error, 'ABORTED')) {
        throw error;
      }
      logger?.('warn', `template cache: ${String(error)}`);
      await engine.context.removeSequence(sequence);
      return `not restored: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  async #capture(sequence: number, tokens: Int32Array): Promise<SequenceState | undefined> {
    const { engine, logger } = this.#parts;
    try {
      return await engine.context.captureSequence(sequence, tokens);
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      logger?.('warn', `template cache: not captured, ${String(error)}`);
      return undefined;
    }
  }

  /**
   * A window's cells that a prefill left masked are never freed once sequences share them, and a state holds none: so the
   * template goes out and comes back from its own state, on the cold path as on the warm one.
   */
  async #settleWindow(request: StartRequest, state: SequenceState | undefined): Promise<void> {
    const { engine } = this.#parts;
    if (state === undefined) {
      return;
    }
    try {
      if (engine.hasWindow) {
        await engine.context.removeSequence(request.sequence);
        if ((await this.#restore(request, state)) !== undefined) {
          await this.#decode(request, 0, () => Promise.resolve());
        }
      }
    } finally {
      state.close();
    }
  }
}
