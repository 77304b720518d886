// Chooses the entries to delete because a budget of the directory is exceeded. Without a budget, no entry is deleted.
import { stat } from 'node:fs/promises';
import { group, type OptionsOf, size } from '../../option-types.js';
import type { CacheDirectory } from './cache-directory.js';
import type { DiskStore } from './disk-store.js';
import { type IndexedEntry, pinName } from './entry.js';

export const BUDGET = {
  /**
   * Maximum size of all entries in the cache directory, in bytes. The least recently used entries are deleted first.
   * @default none
   */
  maxDiskBytes: size().optional(),
  /**
   * Maximum number of entries in the cache directory. The least recently used entries are deleted first. @default none
   */
  maxEntries: size().optional(),
  /**
   * Maximum time since a session last started from an entry, in ms. Entries that exceed this time are deleted. @default
   * none
   */
  maxAgeMs: size().optional(),
};

/** Limits of a cache directory. */
export interface DirectoryBudget extends OptionsOf<typeof BUDGET> {}

export const BUDGET_OPTIONS = group(BUDGET);

/** An entry with the data that eviction needs: the time of its last use, and whether it is pinned. */
export interface DatedEntry extends IndexedEntry {
  /** The time at which a start last read the entry, or else the time of its save, ms since the epoch. */
  lastUsedAt: number;
  pinned: boolean;
}

/**
 * If the entries of a directory are larger than this, in bytes, the statistics contain a warning. If there is no
 * budget, the logger also gets this warning.
 */
const LARGE_DIRECTORY_BYTES = 10 * 1024 ** 3;

/**
 * Reads the time of each entry's last use from its file. Leaves out entries without a file.
 *
 * @param names all file names in the directory, including the pins
 */
export async function withLastUse(
  directory: CacheDirectory,
  entries: Iterable<IndexedEntry>,
  names: ReadonlySet<string>,
): Promise<DatedEntry[]> {
  const all = await Promise.all(
    [...entries].map(async (entry) => {
      const stats = await stat(directory.join(entry.name)).catch(() => undefined);
      const pinned = names.has(pinName(entry.key));
      return stats && { ...entry, bytes: stats.size, lastUsedAt: stats.mtimeMs, pinned };
    }),
  );
  return all.filter((entry) => entry !== undefined);
}

/**
 * Returns the entries to delete: first those of one-off requests, and of these the least recently used one first. Pinned
 * entries and the entry `keep` stay.
 *
 * @param keep the name of the entry that was just saved
 */
export function entriesOverBudget(
  entries: readonly DatedEntry[],
  budget: DirectoryBudget,
  now: number,
  keep?: string,
): DatedEntry[] {
  const { maxDiskBytes = Infinity, maxEntries = Infinity, maxAgeMs = Infinity } = budget;
  let bytes = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  let count = entries.length;
  const toDelete: DatedEntry[] = [];
  // If the clock was set back, the last use of some entries is in the future. Such entries are not too old, and they
  // come last in the order.
  const rank = ({ conversation }: DatedEntry) => (conversation?.isOneOff ? 0 : 1);
  for (const entry of [...entries].sort((a, b) => rank(a) - rank(b) || a.lastUsedAt - b.lastUsedAt)) {
    if (entry.pinned || entry.name === keep) {
      continue;
    }
    if (bytes > maxDiskBytes || count > maxEntries || now - entry.lastUsedAt > maxAgeMs) {
      toDelete.push(entry);
      bytes -= entry.bytes;
      count--;
    }
  }
  return toDelete;
}

export function hasBudget({ maxDiskBytes, maxEntries, maxAgeMs }: DirectoryBudget): boolean {
  return maxDiskBytes !== undefined || maxEntries !== undefined || maxAgeMs !== undefined;
}

/** Returns a warning if the entries of the directory are very large in total. */
export function largeDirectoryWarning({ directory, index: { totalBytes, size } }: DiskStore): string | undefined {
  return totalBytes > LARGE_DIRECTORY_BYTES
    ? `${directory.path} holds ${size} entries of ${(totalBytes / 1024 ** 3).toFixed(1)} GiB: set \`maxDiskBytes\`, \`maxEntries\` or \`maxAgeMs\`, or call prune() with them`
    : undefined;
}
