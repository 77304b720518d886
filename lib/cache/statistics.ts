// The numbers that `templateCache.stats()` reports.
import { type CacheStores, storedTemplates } from './cache-stores.js';
import { largeDirectoryWarning } from './disk/eviction.js';
import type { StatsCounter, TemplateCacheCounts } from './stats-counter.js';

/**
 * Counts and sizes. `entries`, `totalTokens` and `bytesOnDisk` describe the cache directory, with the entries of all
 * configurations. These sizes are exact after a restart, and after saves and deletions of this process. Changes by
 * other processes appear within seconds, because the directory is checked every two seconds. `list()`, `verify()` and
 * `prune()` read the directory immediately. Without a directory, `entries` and `totalTokens` describe the templates
 * that this process keeps.
 */
export interface TemplateCacheStats extends TemplateCacheCounts {
  /** Number of cached templates. */
  entries: number;
  /** Number of tokens in the cached templates. */
  totalTokens: number;
  /** hits / (hits + misses), 0 to 1. 0 before the first start. */
  hitRate: number;
  /** reusedTokens / requestedTokens, 0 to 1. 0 before the first start. */
  tokenHitRate: number;
  /** Hits by the source of their state. */
  hitsByTier: {
    /** Forked from a sequence. */
    resident: number;
    /** Restored from memory. */
    memory: number;
    /** Read from a file. */
    disk: number;
  };
  /** Size of all restored states in bytes, by their source. */
  bytesByTier: {
    /** From memory. */
    memory: number;
    /** From files. */
    disk: number;
  };
  /** Evicted entries. The cause is a budget, or other templates or sessions that needed the space. */
  evictions: {
    /** From the KV cache. */
    resident: number;
    /** From memory. */
    memory: number;
    /** From the directory. */
    disk: number;
  };
  /**
   * Durations of the newest 1,024 hits from `memory` and `disk`, in ms. Waits are not counted. 0 before the first hit.
   */
  restoreMs: {
    /** The mean. */
    mean: number;
    /** The median. */
    p50: number;
    /** The 99th percentile. */
    p99: number;
  };
  /** Total time in which the context decoded nothing because a state was captured, ms. Includes states of sessions. */
  saveBlockedMs: number;
  /** Size of the directory's entries in bytes. 0 without a directory. */
  bytesOnDisk: number;
  /** Size of the templates in the memory tier in bytes. `health().states` reports all states in memory. */
  bytesInMemory: number;
  /** Number of templates in sequences of the KV cache, ready to be forked. */
  residentTemplates: number;
  /** Number of KV cells that resident templates fill. */
  residentCells: number;
  /**
   * The sums of the counts of all processes that used the directory, even of earlier runs. Processes write their counts
   * after each save and at close. Absent without a directory.
   */
  totals?: TemplateCacheCounts;
  /** A warning text. Present if the entries of the directory are larger than 10 GiB in total. */
  warning?: string;
}

/** @param saveBlockedMs see {@link TemplateCacheStats.saveBlockedMs} */
export function cacheStatistics(stats: StatsCounter, stores: CacheStores, saveBlockedMs: number): TemplateCacheStats {
  const { counts, hitsByTier, bytesByTier, evictions, hitRate, tokenHitRate, restoreMs } = stats;
  const { residents, states, disk, cumulative } = stores;
  const warning = disk && largeDirectoryWarning(disk);
  return {
    ...(disk === undefined
      ? sizesInProcess(stores)
      : { entries: disk.index.size, totalTokens: disk.index.totalTokens }),
    ...counts,
    hitRate,
    tokenHitRate,
    hitsByTier: { ...hitsByTier },
    bytesByTier: { ...bytesByTier },
    evictions: { ...evictions },
    restoreMs,
    saveBlockedMs,
    bytesOnDisk: disk?.index.totalBytes ?? 0,
    bytesInMemory: states.status().byKind.template.bytes,
    residentTemplates: residents.count,
    residentCells: residents.cells,
    ...(cumulative && { totals: cumulative.with(counts) }),
    ...(warning !== undefined && { warning }),
  };
}

/** The templates that this process keeps in the KV cache or in memory. */
function sizesInProcess({ residents, states }: CacheStores): { entries: number; totalTokens: number } {
  const tokens = new Map(storedTemplates(states).map(({ key, tokens: { length } }) => [key, length]));
  for (const resident of residents.values()) {
    tokens.set(resident.key, resident.tokens.length);
  }
  return { entries: tokens.size, totalTokens: [...tokens.values()].reduce((total, count) => total + count, 0) };
}
