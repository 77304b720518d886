// Budgets of the directory: which entries leave. Nothing is deleted unless a budget was asked for.
import { stat } from 'node:fs/promises';
import { group, type OptionsOf, size } from '../../option-types.js';
import type { CacheDirectory } from './cache-directory.js';
import { type IndexedEntry, pinName } from './entry.js';

export const BUDGET = {
  /** Budget of the cache directory, in bytes of entries; least recently used ones are deleted. @default none */
  maxDiskBytes: size().optional(),
  /** Most entries in the cache directory; least recently used ones are deleted. @default none */
  maxEntries: size().optional(),
  /** Entries that no session started from for so long are deleted, ms. @default none */
  maxAgeMs: size().optional(),
};

/** How much a cache directory may hold. */
export interface DirectoryBudget extends OptionsOf<typeof BUDGET> {}

export const BUDGET_OPTIONS = group(BUDGET);

/** An entry's file with what decides when it leaves. */
export interface DatedEntry extends IndexedEntry {
  /** When a start last read it, or it was saved; ms since the epoch. */
  lastUsedAt: number;
  pinned: boolean;
}

/** From here on statistics and log say that the directory is large, where it has no budget. */
export const LARGE_DIRECTORY_BYTES = 10 * 1024 ** 3;

/** What each entry's file says of its last use. Files that are gone are left out. */
export async function dated(
  directory: CacheDirectory,
  entries: Iterable<IndexedEntry>,
  names: ReadonlySet<string>,
): Promise<DatedEntry[]> {
  const all = await Promise.all(
    [...entries].map(async (facts) => {
      const found = await stat(directory.join(facts.name)).catch(() => undefined);
      const pinned = names.has(pinName(facts.key));
      return found && { ...facts, bytes: found.size, lastUsedAt: found.mtimeMs, pinned };
    }),
  );
  return all.filter((entry) => entry !== undefined);
}

/**
 * The entries to delete, least recently used first. Pinned ones stay, and so does the newest save.
 *
 * @param keep the name of the entry just saved
 */
export function surplus(
  entries: readonly DatedEntry[],
  budget: DirectoryBudget,
  now: number,
  keep?: string,
): DatedEntry[] {
  const { maxDiskBytes = Infinity, maxEntries = Infinity, maxAgeMs = Infinity } = budget;
  let bytes = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  let count = entries.length;
  const leaving: DatedEntry[] = [];
  // A clock that jumped back leaves uses in the future: they count as just now, and order among themselves.
  for (const entry of [...entries].sort((a, b) => a.lastUsedAt - b.lastUsedAt)) {
    if (entry.pinned || entry.name === keep) {
      continue;
    }
    if (bytes > maxDiskBytes || count > maxEntries || now - entry.lastUsedAt > maxAgeMs) {
      leaving.push(entry);
      bytes -= entry.bytes;
      count--;
    }
  }
  return leaving;
}

export function isBounded({ maxDiskBytes, maxEntries, maxAgeMs }: DirectoryBudget): boolean {
  return maxDiskBytes !== undefined || maxEntries !== undefined || maxAgeMs !== undefined;
}
