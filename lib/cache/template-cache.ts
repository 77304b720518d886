import type { Engine } from '../engine/engine.js';
import type { SequenceHolder } from '../engine/sequences.js';
import { HeadstartError } from '../errors.js';
import { throwIfAborted } from '../native/addon.js';
import type { Logger } from '../native/log.js';
import type { SequenceState } from '../native/state.js';
import { sameTokens } from '../template/tokens.js';
import { DiskStore } from './disk.js';
import { ENTRY_FORMAT, type KeyComponents, templateKey } from './key.js';
import { MemoryStore } from './memory.js';
import { type StartReport, StatsCounter, type TemplateCacheStats, type Tier } from './stats.js';

export interface TemplateCacheOptions {
  engine: Engine;
  /** All that changes KV bytes but the tokens: see `keyComponents`. */
  components: KeyComponents;
  /** The cache directory; undefined keeps templates in this process only. */
  directory?: string | undefined;
  /** Budget of the memory tier in bytes. @default 256 MiB */
  maxMemoryBytes?: number | undefined;
  /** Nothing is saved that would leave less free disk. @default the larger of 5 % and 2 GiB */
  minFreeDiskBytes?: number | undefined;
  logger?: Logger | undefined;
}

export interface StartOptions {
  /** False prefills and leaves the cache alone: tier `bypass`. @default true */
  cache?: boolean;
  signal?: AbortSignal | undefined;
}

/** A template in a sequence of its own, which sessions fork. */
class Resident implements SequenceHolder {
  readonly tokens: Int32Array;
  readonly onEvicted: () => void;
  sequence = -1;
  /** While it is being filled nobody may take its sequence. */
  busy = true;

  constructor(tokens: Int32Array, onEvicted: () => void) {
    this.tokens = tokens;
    this.onEvicted = onEvicted;
  }
}

/** What filling a sequence came to. */
interface Filled {
  tier: Tier;
  bytes: number;
  reason?: string;
}

const DEFAULT_MEMORY_BYTES = 256 * 1024 ** 2;

/**
 * The template cache: an exact-boundary, persistent prefix cache over one engine. It takes token arrays and knows nothing
 * of chat: `start` brings a template's tokens into an empty sequence by the cheapest way there is.
 *
 * A problem of the cache is a miss, never a failure: what `start` throws, a plain prefill would have thrown too.
 */
export class TemplateCache {
  readonly #engine: Engine;
  readonly #components: KeyComponents;
  readonly #disk: DiskStore | undefined;
  readonly #memory: MemoryStore;
  readonly #logger: Logger | undefined;
  readonly #stats = new StatsCounter();
  readonly #residents = new Map<string, Resident>();
  /** Templates being filled: who comes meanwhile waits, and finds them. */
  readonly #filling = new Map<string, Promise<void>>();
  readonly #saving = new Set<Promise<void>>();
  readonly #closing = new AbortController();

  private constructor(options: TemplateCacheOptions) {
    this.#engine = options.engine;
    this.#components = options.components;
    this.#disk =
      options.directory === undefined ? undefined : new DiskStore(options.directory, options.minFreeDiskBytes);
    this.#memory = new MemoryStore(options.maxMemoryBytes ?? DEFAULT_MEMORY_BYTES);
    this.#logger = options.logger;
  }

  /** Opens the directory and counts its entries. A directory that cannot be used is a cache of misses. */
  static async open(options: TemplateCacheOptions): Promise<TemplateCache> {
    const cache = new TemplateCache(options);
    await cache.#disk?.scan();
    return cache;
  }

  /**
   * Brings a template into an empty sequence.
   *
   * @param sequence an empty sequence of the engine's session pool
   * @param tokens the template's token ids, at least one; do not change the array while this runs
   * @throws HeadstartError `ABORTED`, `CLOSED`, `CONTEXT_FULL`, `TOKEN_OUT_OF_RANGE`, `DECODE_FAILED`; the sequence is
   *   empty then.
   */
  async start(sequence: number, tokens: Int32Array, options: StartOptions = {}): Promise<StartReport> {
    const begin = performance.now();
    this.#requireOpen();
    throwIfAborted(options.signal);
    if (tokens.length === 0) {
      throw new HeadstartError('INVALID_ARGUMENT', 'Expected a template of at least one token');
    }
    const key = options.cache === false ? '' : templateKey(this.#components, tokens);
    // One of its own for each start: many may wait at the same time, and a signal warns of its eleventh listener.
    const signal = AbortSignal.any([...(options.signal ? [options.signal] : []), this.#closing.signal]);
    try {
      const filled = await (key === ''
        ? this.#bypass(sequence, tokens, signal)
        : this.#fill(key, sequence, tokens, signal));
      this.#stats.count(filled.tier);
      const cachedTokens = filled.tier === 'miss' || filled.tier === 'bypass' ? 0 : tokens.length;
      return { templateTokens: tokens.length, cachedTokens, ...filled, key, ms: performance.now() - begin };
    } catch (error) {
      await this.#engine.context.removeSequence(sequence).catch(() => undefined);
      this.#requireOpen();
      throw error;
    }
  }

  /** A start for which there was no template at all. */
  countBypass(): void {
    this.#stats.count('bypass');
  }

  /** A session's prompt did not begin with the template it started from. */
  countPrefixMismatch(): void {
    this.#stats.prefixMismatches++;
  }

  stats(): TemplateCacheStats {
    const { hits, misses, hitRate, hitsByTier, bypasses, corruptions, saves, failedSaves, prefixMismatches } =
      this.#stats;
    const { entries, totalTokens } = this.#disk ?? this.#held();
    return {
      entries,
      totalTokens,
      hits,
      misses,
      hitRate,
      hitsByTier: { ...hitsByTier },
      bypasses,
      corruptions,
      saves,
      failedSaves,
      prefixMismatches,
      bytesOnDisk: this.#disk?.totalBytes ?? 0,
      bytesInMemory: this.#memory.bytes,
      residentTemplates: this.#residents.size,
    };
  }

  /** Resolves when every save begun so far is on disk or has failed. */
  async flush(): Promise<void> {
    await Promise.all(this.#saving);
  }

  /** Ends starts under way, finishes saves, frees the memory tier. Idempotent. Close it before its engine. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#filling.values());
    await this.flush();
    this.#memory.clear();
  }

  /** Templates that this process holds, in the KV cache or in memory. */
  #held(): { entries: number; totalTokens: number } {
    const tokens = new Map(this.#memory.tokenCounts());
    for (const [key, resident] of this.#residents) {
      tokens.set(key, resident.tokens.length);
    }
    return { entries: tokens.size, totalTokens: [...tokens.values()].reduce((total, count) => total + count, 0) };
  }

  async #bypass(sequence: number, tokens: Int32Array, signal: AbortSignal): Promise<Filled> {
    await this.#engine.prefill(sequence, tokens, 0, { signal });
    if (this.#engine.hasWindow) {
      await this.#settleWindow(sequence, tokens, await this.#capture(sequence, tokens), signal);
    }
    return { tier: 'bypass', bytes: 0, reason: 'the cache was switched off for this start' };
  }

  async #fill(key: string, sequence: number, tokens: Int32Array, signal: AbortSignal): Promise<Filled> {
    if (this.#engine.residents.size === 0) {
      return this.#once(
        key,
        signal,
        () => this.#load(key, sequence, tokens, signal),
        () => this.#fill(key, sequence, tokens, signal),
      );
    }
    const resident = this.#residents.get(key);
    if (resident !== undefined && sameTokens(resident.tokens, tokens)) {
      return this.#fork(resident, sequence, { tier: 'resident', bytes: 0 });
    }
    return this.#once(
      key,
      signal,
      () => this.#forkNew(key, sequence, tokens, signal),
      () => this.#fill(key, sequence, tokens, signal),
    );
  }

  /** Runs `first` if nobody fills this key now; else waits for who does, however that ends, and runs `then`. */
  async #once(
    key: string,
    signal: AbortSignal,
    first: () => Promise<Filled>,
    then: () => Promise<Filled>,
  ): Promise<Filled> {
    const other = this.#filling.get(key);
    if (other !== undefined) {
      await abortable(other, signal);
      return then();
    }
    const mine = first();
    const done = mine.then(
      () => undefined,
      () => undefined,
    );
    this.#filling.set(key, done);
    try {
      return await mine;
    } finally {
      this.#filling.delete(key);
    }
  }

  async #fork(resident: Resident, sequence: number, filled: Filled): Promise<Filled> {
    this.#engine.residents.touch(resident.sequence);
    await this.#engine.context.copySequence(resident.sequence, sequence);
    return filled;
  }

  /** Fills a sequence that sessions can fork, and forks it; waits while all of them are being filled. */
  async #forkNew(key: string, sequence: number, tokens: Int32Array, signal: AbortSignal): Promise<Filled> {
    const { residents } = this.#engine;
    const made = new Resident(tokens.slice(), () => this.#residents.delete(key));
    made.sequence = await residents.lease(made, signal);
    try {
      const filled = await this.#load(key, made.sequence, tokens, signal);
      await this.#fork(made, sequence, filled);
      this.#residents.set(key, made);
      return filled;
    } catch (error) {
      residents.release(made.sequence);
      throw error;
    } finally {
      made.busy = false;
      residents.idle();
    }
  }

  /** Memory, else disk, else prefill. */
  async #load(key: string, sequence: number, tokens: Int32Array, signal: AbortSignal): Promise<Filled> {
    let problem = 'absent';
    const held = this.#memory.get(key)?.share(); // the store may drop its own meanwhile
    if (held !== undefined && sameTokens(held.tokens, tokens)) {
      const bytes = held.byteLength;
      const failure = await this.#restore(sequence, held);
      if (failure === undefined) {
        held.close();
        return { tier: 'memory', bytes };
      }
      problem = failure;
      this.#memory.delete(key);
    }
    held?.close();
    const found = await this.#disk?.read(key, tokens, signal);
    if (found?.state !== undefined) {
      const failure = await this.#restore(sequence, found.state);
      if (failure === undefined) {
        this.#keep(key, found.state);
        return { tier: 'disk', bytes: found.bytes };
      }
      problem = failure;
      found.state.close();
    } else if (found !== undefined && problem === 'absent') {
      problem = found.reason;
    }
    if (found?.state === undefined && found?.corrupt) {
      this.#stats.corruptions++;
      this.#logger?.('warn', `template cache: entry set aside, ${found.reason}`);
    }
    return this.#prefill(key, sequence, tokens, signal, problem);
  }

  /** @returns what was wrong, or undefined once the state is in the sequence */
  async #restore(sequence: number, state: SequenceState): Promise<string | undefined> {
    try {
      await this.#engine.withRoom(() => this.#engine.context.restoreSequence(sequence, state));
      return undefined;
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      this.#logger?.('warn', `template cache: ${String(error)}`);
      await this.#engine.context.removeSequence(sequence);
      return `not restored: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  async #prefill(
    key: string,
    sequence: number,
    tokens: Int32Array,
    signal: AbortSignal,
    reason: string,
  ): Promise<Filled> {
    const begin = performance.now();
    await this.#engine.prefill(sequence, tokens, 0, { signal });
    const prefillMs = performance.now() - begin;
    const state = await this.#capture(sequence, tokens);
    if (state !== undefined) {
      this.#save(key, state.share(), prefillMs);
      await this.#settleWindow(sequence, tokens, state, signal);
    }
    return { tier: 'miss', bytes: 0, reason };
  }

  async #capture(sequence: number, tokens: Int32Array): Promise<SequenceState | undefined> {
    try {
      return await this.#engine.context.captureSequence(sequence, tokens);
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      this.#logger?.('warn', `template cache: not captured, ${String(error)}`);
      return undefined;
    }
  }

  /**
   * A window's cells that a prefill left masked are never freed once sequences share them, and a state holds none: so the
   * template goes out and comes back from its own state, on the cold path as on the warm one.
   */
  async #settleWindow(
    sequence: number,
    tokens: Int32Array,
    state: SequenceState | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    if (state === undefined) {
      return;
    }
    if (this.#engine.hasWindow) {
      await this.#engine.context.removeSequence(sequence);
      if ((await this.#restore(sequence, state)) !== undefined) {
        await this.#engine.prefill(sequence, tokens, 0, { signal });
      }
    }
    state.close();
  }

  /** Writes in the background: the first session is already running. */
  #save(key: string, captured: SequenceState, prefillMs: number): void {
    const state = captured.share(); // the memory tier may drop its own before the file is written
    this.#keep(key, captured);
    const disk = this.#disk;
    if (disk === undefined) {
      state.close();
      return;
    }
    const metadata = {
      format: ENTRY_FORMAT,
      key,
      components: this.#components,
      createdAt: new Date().toISOString(),
      prefillMs,
    };
    const saving = disk
      .write(state, metadata)
      .then(
        () => {
          this.#stats.saves++;
        },
        (error: unknown) => {
          this.#stats.failedSaves++;
          this.#logger?.('warn', `template cache: not saved, ${String(error)}`);
        },
      )
      .finally(() => {
        this.#saving.delete(saving);
        state.close();
      });
    this.#saving.add(saving);
  }

  #keep(key: string, state: SequenceState): void {
    if (!this.#memory.put(key, state)) {
      state.close();
    }
  }

  #requireOpen(): void {
    if (this.#closing.signal.aborted) {
      throw new HeadstartError('CLOSED', 'Expected an open template cache, but it was closed');
    }
  }
}

/** Waits for `promise` (which never rejects), or throws `ABORTED` as soon as the signal fires. */
async function abortable(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  throwIfAborted(signal);
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<void>((resolve) => {
    onAbort = resolve;
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    if (onAbort !== undefined) {
      signal.removeEventListener('abort', onAbort);
    }
  }
  throwIfAborted(signal);
}
