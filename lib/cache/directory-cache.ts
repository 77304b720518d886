import { StateStore } from '../engine/state-store.js';
import { openDisk } from './cache-stores.js';
import { CumulativeCounts } from './disk/cumulative-counts.js';
import { DirectoryIndex } from './disk/directory-index.js';
import type { DiskStore } from './disk/disk-store.js';
import { CONVERSATION_NAMES } from './disk/entry.js';
import type { DirectoryBudget } from './disk/eviction.js';
import {
  type CacheEntry,
  type CacheEntryDetails,
  clearEverything,
  inspectEntry,
  invalidateKey,
  listEntries,
  type OperatedStores,
  type PruneReport,
  pruneDirectory,
  setPinned,
  type VerifyOptions,
  type VerifyReport,
  verifyEntries,
} from './disk/operations.js';
import { NO_COUNTS, StatsCounter, type TemplateCacheCounts } from './stats-counter.js';
import { WriteBehind } from './write-behind.js';

/** What a cache directory contains. */
export interface DirectoryStatus {
  /** The path of the directory. */
  directory: string;
  /** Number of templates. */
  entries: number;
  /** Number of tokens in the templates. */
  totalTokens: number;
  /** Size of the templates in bytes. */
  bytes: number;
  /** Number of pinned templates. */
  pinned: number;
  /** Conversations in the directory. */
  conversations: { count: number; bytes: number };
  /** The sums of the counts of all processes that used the directory. */
  totals: TemplateCacheCounts;
}

/** The operations of `agent.templateCache` on a cache directory, without an agent and its model. */
export class DirectoryCache {
  readonly disk: DiskStore;
  readonly #stores: OperatedStores;
  readonly #cumulative: CumulativeCounts;

  private constructor(path: string) {
    const stats = new StatsCounter();
    const states = new StateStore(0);
    this.disk = openDisk(path, undefined, stats, undefined);
    this.#cumulative = new CumulativeCounts(this.disk.directory);
    const budget = {};
    const writeBehind = new WriteBehind({
      states,
      disk: this.disk,
      cumulative: this.#cumulative,
      budget,
      stats,
      logger: undefined,
    });
    this.#stores = { residents: NO_RESIDENTS, states, disk: this.disk, writeBehind, budget };
  }

  /**
   * Opens a directory, which need not exist.
   *
   * @throws HeadstartError `CACHE_DIR_SHARED` if other users can write to the directory.
   */
  static async open(path: string): Promise<DirectoryCache> {
    const cache = new DirectoryCache(path);
    await cache.disk.directory.requirePrivate();
    return cache;
  }

  /** All templates, the most recently used first. */
  async list(): Promise<CacheEntry[]> {
    const entries = await listEntries(this.#stores);
    return entries.sort((a, b) => Number(b.lastUsedAt ?? 0) - Number(a.lastUsedAt ?? 0));
  }

  /** @throws HeadstartError `ENTRY_MISSING`. */
  inspect(key: string): Promise<CacheEntryDetails> {
    return inspectEntry(this.#stores, key);
  }

  /** @throws HeadstartError `ABORTED`. */
  verify(options: VerifyOptions): Promise<VerifyReport> {
    return verifyEntries(this.#stores, options);
  }

  prune(budget: DirectoryBudget): Promise<PruneReport> {
    return pruneDirectory(this.#stores, budget);
  }

  /** Deletes all templates, even pinned ones, and returns their number. */
  clear(): Promise<number> {
    return clearEverything(this.#stores);
  }

  /** Deletes one template and returns whether it was there. */
  invalidate(key: string): Promise<boolean> {
    return invalidateKey(this.#stores, key);
  }

  /** @throws HeadstartError `WRITE_FAILED`. */
  setPinned(key: string, pinned: boolean): Promise<void> {
    return setPinned(this.#stores, key, pinned);
  }

  async status(): Promise<DirectoryStatus> {
    const { directory, index } = this.disk;
    const conversations = new DirectoryIndex(directory, CONVERSATION_NAMES);
    const entries = await this.list();
    await Promise.all([conversations.refresh(), this.#cumulative.read()]);
    return {
      directory: directory.path,
      entries: index.size,
      totalTokens: index.totalTokens,
      bytes: index.totalBytes,
      pinned: entries.filter(({ pinned }) => pinned).length,
      conversations: { count: conversations.size, bytes: conversations.totalBytes },
      totals: this.#cumulative.with(NO_COUNTS),
    };
  }

  /** Frees the lock of temporary files. */
  close(): Promise<void> {
    return this.disk.directory.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The resident templates of no agent. */
const NO_RESIDENTS: OperatedStores['residents'] = {
  values: () => [],
  get: () => undefined,
  isPinned: () => false,
  setPinned: () => undefined,
  drop: () => undefined,
  dropAll: () => undefined,
};
