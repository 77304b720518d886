import type { StateStore, StoredState } from '../engine/state-store.js';
import type { Logger } from '../logger.js';
import { CacheDirectory } from './disk/cache-directory.js';
import { CumulativeCounts } from './disk/cumulative-counts.js';
import { DirectoryIndex } from './disk/directory-index.js';
import { DiskStore } from './disk/disk-store.js';
import { pinnedKey } from './disk/entry.js';
import type { DirectoryBudget } from './disk/eviction.js';
import { publish } from './events.js';
import type { PrefixCacheOptions } from './prefix-cache.js';
import { ResidentTemplates } from './resident-templates.js';
import type { StatsCounter } from './stats-counter.js';
import { WriteBehind } from './write-behind.js';

/** The tiers that keep templates, and the objects that belong to them. */
export interface CacheStores {
  residents: ResidentTemplates;
  /** Holds the memory tier, and all other states of the agent that are outside the KV cache. */
  states: StateStore;
  /** Undefined if the cache has no directory. */
  disk: DiskStore | undefined;
  writeBehind: WriteBehind;
  /** Counts of all processes that used the directory. Undefined if the cache has no directory. */
  cumulative: CumulativeCounts | undefined;
  /** Budget of the directory. */
  budget: DirectoryBudget;
}

export function createStores(options: PrefixCacheOptions, stats: StatsCounter): CacheStores {
  const { engine, logger, dir, maxDiskBytes, maxEntries, maxAgeMs, maxResidentCells } = options;
  const states = engine.states.store;
  const residents = new ResidentTemplates(engine, maxResidentCells, () => stats.evictions.resident++);
  const disk = typeof dir === 'string' ? openDisk(dir, options.minFreeDiskBytes, stats, logger) : undefined;
  const cumulative = disk && new CumulativeCounts(disk.directory);
  const budget = { maxDiskBytes, maxEntries, maxAgeMs };
  const writeBehind = new WriteBehind({ states, disk, cumulative, budget, stats, logger });
  return { residents, states, disk, writeBehind, cumulative, budget };
}

/** Opens the templates of a cache directory. */
export function openDisk(
  path: string,
  minFreeBytes: number | undefined,
  stats: StatsCounter,
  logger: Logger | undefined,
): DiskStore {
  const directory = new CacheDirectory(path, minFreeBytes);
  return new DiskStore(directory, new DirectoryIndex(directory), (key, reason) => {
    stats.counts.corruptions++;
    logger?.('warn', `template cache: entry set aside, ${reason}`);
    publish({ type: 'corrupt', key, reason });
  });
}

/**
 * Pins the templates that have a pin in the directory.
 *
 * @param names all file names in the directory
 */
export function readPins({ residents, states }: CacheStores, names: readonly string[]): void {
  for (const name of names) {
    const key = pinnedKey(name);
    if (key !== undefined) {
      residents.setPinned(key, true);
      states.setPinned(key, true);
    }
  }
}

/** The templates in memory, beginning with the least recently used. */
export function storedTemplates(states: StateStore): (StoredState & { key: string })[] {
  return states
    .values('template')
    .filter((stored): stored is StoredState & { key: string } => stored.key !== undefined);
}
