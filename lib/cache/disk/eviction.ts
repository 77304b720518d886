// Chooses the entries that exceed the budgets of the directory. Without a budget no entry is deleted.
import { stat } from 'node:fs/promises';
import { group, type OptionsOf, size } from '../../option-types.js';
import type { CacheDirectory } from './cache-directory.js';
import { type IndexedEntry, pinName } from './entry.js';

export const BUDGET = {
  /** Budget of the cache directory, in bytes of entries. The least recently used entries are deleted first. @default none */
  maxDiskBytes: size().optional(),
  /** Maximum number of entries in the cache directory. The least recently used entries are deleted first. @default none */
  maxEntries: size().optional(),
  /** Entries that no session has started from for this time are deleted, in ms. @default none */
  maxAgeMs: size().optional(),
};

/** Limits of a cache directory. */
export interface DirectoryBudget extends OptionsOf<typeof BUDGET> {}

export const BUDGET_OPTIONS = group(BUDGET);

/** An entry with the time of its last use and its pin, on which eviction depends. */
export interface DatedEntry extends IndexedEntry {
  /** Time of the last read by a start, or of the save, ms since the epoch. */
  lastUsedAt: number;
  pinned: boolean;
}

/**
 * If the entries of a directory are larger than this, statistics contain a warning. Without a budget the logger gets it
 * too.
 */
export const LARGE_DIRECTORY_BYTES = 10 * 1024 ** 3;

/**
 * Reads the last use of each entry from its file. Entries without a file are left out.
 *
 * @param names all file names in the directory, among them the pins
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
 * The entries to delete, beginning with the least recently used. Pinned entries and the entry just saved stay.
 *
 * @param keep the name of the entry just saved
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
  // If the clock was set back, some times of use are in the future. Such entries are not too old, and come last in the
  // order.
  for (const entry of [...entries].sort((a, b) => a.lastUsedAt - b.lastUsedAt)) {
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
