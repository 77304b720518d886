import { ownSignal, throwIfAborted } from '../abort.js';
import type { Engine } from '../engine/engine.js';
import { HeadstartError } from '../errors.js';
import { forgivingLogger, type Logger } from '../logger.js';
import { SequenceState } from '../native/state.js';
import { parseOptions } from '../parse-options.js';
import { CacheDirectory } from './disk/cache-directory.js';
import { CumulativeCounts } from './disk/cumulative-counts.js';
import { DirectoryIndex } from './disk/directory-index.js';
import { DirectoryWatcher } from './disk/directory-watcher.js';
import { DiskStore } from './disk/disk-store.js';
import { BUDGET_OPTIONS, type DirectoryBudget } from './disk/eviction.js';
import * as operations from './disk/operations.js';
import { publish } from './events.js';
import { explainMiss, type MissExplanation } from './explain.js';
import { type KeyComponents, Keyring } from './key.js';
import { MemoryStore } from './memory-store.js';
import type { CacheOptions } from './options.js';
import { PrefillEstimate } from './prefill-estimate.js';
import { ResidentTemplates } from './resident-templates.js';
import { type StartReport, startReport } from './start-report.js';
import { StatsCounter, type TemplateCacheStats } from './statistics.js';
import { type Filled, type StartRequest, TemplateLoader } from './template-loader.js';
import { largeDirectory, WriteBehind } from './write-behind.js';

/** What a template cache works with. */
export interface TemplateCacheOptions
  extends Omit<CacheOptions, 'dir' | 'breakpoints' | 'stableTools' | 'maxResidentTemplates' | 'maxSavedBytes'> {
  /** The context that templates are computed in. */
  engine: Engine;
  /** All that changes KV bytes but the tokens: see `keyComponents`. */
  components: KeyComponents;
  /** The cache directory; null or absent keeps templates in this process only. */
  dir?: string | null | undefined;
  /** @internal What was measured so far. @default nothing */
  rates?: PrefillEstimate | undefined;
  /** Gets warnings of what the cache could not do. @default none */
  logger?: Logger | undefined;
}

/** Whose template it is: entries of one tenant never serve another. */
export interface TenantOptions {
  /** Any name. @default none, which is a tenant of its own */
  tenant?: string | undefined;
}

/** How a sequence is started on a template. */
export interface StartOptions extends TenantOptions {
  /** False prefills without using the cache; the report says `cache: 'bypass'`. @default true */
  cache?: boolean;
  /** Token counts, rising: the prefill is cut there, and each head kept as an entry of its own. @default none */
  breakpoints?: readonly number[];
  /** Ends it with `ABORTED`. */
  signal?: AbortSignal | undefined;
}

const DEFAULT_MEMORY_BYTES = 256 * 1024 ** 2;
/** Keyrings remembered: one a tenant. */
const MAX_KEYRINGS = 1024;
/** See {@link SequenceState.reserve}. */
const MAX_RESERVED_BYTES = 256 * 1024 ** 2;

/**
 * The template cache: an exact-boundary, persistent prefix cache over one engine. It takes token arrays and knows nothing
 * of chat: `start` brings a template's tokens into an empty sequence by the cheapest way there is.
 *
 * A problem of the cache is a miss, never a failure: what `start` throws, a plain prefill would have thrown too.
 */
export class TemplateCache {
  readonly #options: TemplateCacheOptions;
  readonly #parts: operations.OperationsParts;
  readonly #totals: CumulativeCounts | undefined;
  readonly #starter: TemplateLoader;
  readonly #rates: PrefillEstimate;
  readonly #stats = new StatsCounter();
  readonly #keyrings = new Map<string | undefined, Keyring>();
  readonly #closing = new AbortController();
  #lookout: DirectoryWatcher | undefined;
  #components: KeyComponents;

  private constructor(options: TemplateCacheOptions) {
    const { engine, logger, dir } = options;
    this.#options = options;
    this.#components = options.components;
    this.#rates = options.rates ?? new PrefillEstimate();
    const disk = typeof dir === 'string' ? this.#openDisk(dir) : undefined;
    const memory = new MemoryStore(options.maxMemoryBytes ?? DEFAULT_MEMORY_BYTES, (key) => {
      this.#stats.evictions.memory++;
      publish({ type: 'evict', tier: 'memory', key, reason: 'the budget of the memory tier' });
    });
    const residents = new ResidentTemplates(engine, options.maxResidentCells, () => this.#stats.evictions.resident++);
    const { maxDiskBytes, maxEntries, maxAgeMs } = options;
    const budget = { maxDiskBytes, maxEntries, maxAgeMs };
    this.#totals = disk && new CumulativeCounts(disk.directory);
    const saver = new WriteBehind({ memory, disk, totals: this.#totals, budget, stats: this.#stats, logger });
    this.#parts = { residents, memory, disk, saver, budget };
    const nearest = options.reuse !== 'exact';
    this.#starter = new TemplateLoader({ engine, residents, memory, disk, saver, rates: this.#rates, nearest, logger });
  }

  /**
   * Opens the directory and counts its entries. A directory that cannot be used is a cache of misses.
   *
   * @throws HeadstartError `CACHE_DIR_SHARED` where others can write it.
   */
  static async open(options: TemplateCacheOptions): Promise<TemplateCache> {
    const logger = options.logger && forgivingLogger(options.logger);
    const cache = new TemplateCache({ ...options, logger });
    const { disk } = cache.#parts;
    if (disk !== undefined) {
      await disk.directory.make().catch(() => undefined);
      if (!options.allowSharedDirectory) {
        await disk.directory.requirePrivate();
      }
      cache.#lookout = new DirectoryWatcher(disk.directory, disk.index);
      const [names] = await Promise.all([cache.#lookout.begin(), cache.#totals?.read()]);
      cache.#readPins(names);
      await Promise.all([disk.directory.sweep(names), cache.#reserve(disk)]);
    }
    return cache;
  }

  /** The first start from disk must not wait for fresh memory. */
  async #reserve(disk: DiskStore): Promise<void> {
    const { group } = this.#keyring(undefined);
    const own = [...disk.index.values()].filter((entry) => entry.group === group && entry.bytes <= MAX_RESERVED_BYTES);
    const bytes = own.reduce((most, entry) => Math.max(most, entry.bytes), 0);
    if (bytes > 0) {
      await SequenceState.reserve(bytes).catch(() => undefined);
    }
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
    requireTokens(tokens);
    const keyring = this.#keyring(options.tenant);
    const bypassed = this.#whyBypass(tokens, options);
    const key = bypassed === undefined ? keyring.keyOf(tokens) : '';
    const signal = ownSignal(options.signal, this.#closing.signal);
    const request: StartRequest = { key, keyring, sequence, tokens, breakpoints: options.breakpoints ?? [], signal };
    try {
      const filled = await (bypassed === undefined
        ? this.#starter.fill(request)
        : this.#starter.bypass(request, bypassed));
      return this.#report(request, filled, begin);
    } catch (error) {
      await this.#options.engine.context.removeSequence(sequence).catch(() => undefined);
      this.#requireOpen();
      if (HeadstartError.isInstance(error, 'PREEMPTED')) {
        return this.start(sequence, tokens, options); // its cells were needed for a while
      }
      throw error;
    }
  }

  /** A start for which there was no template at all. */
  startWithout(reason = 'no template'): StartReport {
    this.#stats.counts.bypasses++;
    const nothing = { templateTokens: 0, cachedTokens: 0, bytes: 0, ms: 0, key: '' };
    return startReport({ source: 'prefill', cache: 'bypass', ...nothing, reason });
  }

  /** A session's prompt did not begin with the template it started from. */
  countPrefixMismatch(): void {
    this.#stats.counts.prefixMismatches++;
  }

  /** Hits, misses, sizes: see {@link TemplateCacheStats}. */
  stats(): TemplateCacheStats {
    const { counts, hitsByTier, bytesByTier, evictions, hitRate, tokenHitRate, restoreMs } = this.#stats;
    const { residents, memory, disk } = this.#parts;
    const warning = disk && largeDirectory(disk);
    return {
      ...(disk === undefined ? this.#held() : { entries: disk.index.size, totalTokens: disk.index.totalTokens }),
      ...counts,
      hitRate,
      tokenHitRate,
      hitsByTier: { ...hitsByTier },
      bytesByTier: { ...bytesByTier },
      evictions: { ...evictions },
      restoreMs,
      saveBlockedMs: this.#options.engine.context.counters().captureMs,
      bytesOnDisk: disk?.index.totalBytes ?? 0,
      bytesInMemory: memory.bytes,
      residentTemplates: residents.count,
      residentCells: residents.cells,
      ...(this.#totals && { totals: this.#totals.with(counts) }),
      ...(warning !== undefined && { warning }),
    };
  }

  /** Cached templates, in whatever tier: those of other models and configurations in the directory, too. */
  list(): Promise<operations.CacheEntry[]> {
    return operations.listEntries(this.#parts);
  }

  /**
   * One of {@link list}, with what its key is made of.
   *
   * @throws HeadstartError `ENTRY_MISSING`.
   */
  inspect(key: string): Promise<operations.CacheEntryDetails> {
    return operations.inspectEntry(this.#parts, key);
  }

  /**
   * Reads every entry of the directory to its last byte; damaged ones are set aside.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `ABORTED`.
   */
  async verify(options: operations.VerifyOptions = {}): Promise<operations.VerifyReport> {
    const context = { where: 'the options', code: 'INVALID_ARGUMENT' } as const;
    return operations.verifyEntries(this.#parts, parseOptions(operations.VERIFY_OPTIONS, options, context));
  }

  /**
   * Applies the budgets, those given here first, and sweeps up what dead processes left.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`.
   */
  async prune(budget: DirectoryBudget = {}): Promise<operations.PruneReport> {
    const context = { where: 'the budget', code: 'INVALID_ARGUMENT' } as const;
    return operations.pruneDirectory(this.#parts, parseOptions(BUDGET_OPTIONS, budget, context));
  }

  /** Deletes all entries, pinned ones too, of the directory and of this process; sessions go on. Returns how many. */
  clear(): Promise<number> {
    return operations.clearEverything(this.#parts);
  }

  /** Deletes one template in every tier; the next start prefills it. Returns whether there was anything. */
  invalidate(tokens: Int32Array, options: TenantOptions = {}): Promise<boolean> {
    return operations.invalidateKey(this.#parts, this.#keyring(options.tenant).keyOf(tokens));
  }

  /**
   * Keeps a template from eviction, also in other processes and after a restart; it need not be cached yet.
   *
   * @throws HeadstartError `WRITE_FAILED`.
   */
  pin(tokens: Int32Array, options: TenantOptions = {}): Promise<void> {
    return operations.setPinned(this.#parts, this.#keyring(options.tenant).keyOf(tokens), true);
  }

  /** Lets a pinned template be evicted again. */
  unpin(tokens: Int32Array, options: TenantOptions = {}): Promise<void> {
    return operations.setPinned(this.#parts, this.#keyring(options.tenant).keyOf(tokens), false);
  }

  /** The key of these tokens' state: all that changes its bytes. */
  keyOf(tokens: Int32Array, options: TenantOptions = {}): string {
    return this.#keyring(options.tenant).keyOf(tokens);
  }

  /** What a start with these tokens would find now, and if it is a miss, what differs from the nearest entry. */
  explainMiss(tokens: Int32Array, options: TenantOptions = {}): Promise<MissExplanation> {
    return explainMiss(this.#keyring(options.tenant), tokens, this.#parts);
  }

  /**
   * The context's adapters changed: other keys from here on, and nothing that is resident is right any more.
   *
   * @param lora see `loraComponent`
   */
  setLora(lora: readonly string[]): void {
    this.#components = { ...this.#components, lora };
    this.#keyrings.clear();
    this.#parts.residents.dropAll('the adapters changed');
  }

  /** Resolves when every save begun so far is on disk or has failed. */
  flush(): Promise<void> {
    return this.#parts.saver.flush();
  }

  /** Ends starts under way, finishes saves, frees the memory tier. Idempotent. Close it before its engine. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#lookout?.close();
    await this.#starter.settled();
    await this.flush();
    await this.#totals?.write(this.#stats.counts);
    await this.#parts.disk?.directory.close();
    this.#parts.memory.clear();
  }

  #report(request: StartRequest, filled: Filled, begin: number): StartReport {
    const { prefillMs, ...rest } = filled;
    const { tokens, key } = request;
    const ms = performance.now() - begin;
    const report = startReport({ templateTokens: tokens.length, ...rest, key, ms });
    this.#stats.record(report, (prefillMs * report.cachedTokens) / tokens.length);
    publish({ type: 'start', report });
    return report;
  }

  /** @returns why the cache is left alone, where it is */
  #whyBypass(tokens: Int32Array, { cache }: StartOptions): string | undefined {
    const { minTokens = 0, breakEven = false } = this.#options;
    if (cache === false) {
      return 'the cache was switched off for this start';
    }
    if (tokens.length < minTokens) {
      return `the template has ${tokens.length} tokens, fewer than \`minTokens\` (${minTokens})`;
    }
    return breakEven && this.#rates.prefillIsFaster()
      ? '`breakEven`: prefills were measured to be no slower than restores'
      : undefined;
  }

  #openDisk(path: string): DiskStore {
    const directory = new CacheDirectory(path, this.#options.minFreeDiskBytes);
    return new DiskStore(directory, new DirectoryIndex(directory), (key, reason) => {
      this.#stats.counts.corruptions++;
      this.#options.logger?.('warn', `template cache: entry set aside, ${reason}`);
      publish({ type: 'corrupt', key, reason });
    });
  }

  #readPins(names: readonly string[]): void {
    for (const name of names) {
      const key = /^template_([0-9a-f]{64})\.pin$/.exec(name)?.[1];
      if (key !== undefined) {
        this.#parts.residents.setPinned(key, true);
        this.#parts.memory.setPinned(key, true);
      }
    }
  }

  #keyring(tenant: string | undefined): Keyring {
    let keyring = this.#keyrings.get(tenant);
    if (keyring === undefined) {
      if (this.#keyrings.size >= MAX_KEYRINGS) {
        this.#keyrings.clear();
      }
      keyring = new Keyring(this.#components, tenant);
      this.#keyrings.set(tenant, keyring);
    }
    return keyring;
  }

  /** Templates that this process holds, in the KV cache or in memory. */
  #held(): { entries: number; totalTokens: number } {
    const { residents, memory } = this.#parts;
    const tokens = new Map([...memory.entries()].map(([key, held]) => [key, held.tokens.length]));
    for (const resident of residents.values()) {
      tokens.set(resident.key, resident.tokens.length);
    }
    return { entries: tokens.size, totalTokens: [...tokens.values()].reduce((total, count) => total + count, 0) };
  }

  #requireOpen(): void {
    if (this.#closing.signal.aborted) {
      throw new HeadstartError('CLOSED', 'Expected an open template cache, but it was closed');
    }
  }
}

function requireTokens(tokens: Int32Array): void {
  if (tokens.length === 0) {
    throw new HeadstartError('INVALID_ARGUMENT', 'Expected a template of at least one token');
  }
}
