// Helpers for the `cache` commands.
import type { DirectoryCache } from '../cache/directory-cache.js';
import type { CacheEntry } from '../cache/disk/operations.js';
import { HeadstartError } from '../errors.js';
import { templatesDirectory } from './directories.js';
import { CACHE_DIRECTORY } from './shared-options.js';

export const CACHE_OPTIONS = CACHE_DIRECTORY;

/**
 * Runs work on the cache directory of a command, and closes the directory afterwards.
 *
 * @throws HeadstartError `CACHE_DIR_SHARED`, `CONFIG_INVALID` if there is no home directory.
 */
export async function withCache<Result>(
  { options }: { options: { cacheDir: string | undefined } },
  work: (cache: DirectoryCache) => Promise<Result>,
): Promise<Result> {
  const { DirectoryCache: Caches } = await import('../cache/directory-cache.js');
  const cache = await Caches.open(templatesDirectory(options.cacheDir));
  try {
    return await work(cache);
  } finally {
    await cache.close();
  }
}

const MIN_DIGITS = 4;

/**
 * Finds the entry whose key begins with these digits.
 *
 * @throws HeadstartError `ENTRY_MISSING`, `INVALID_ARGUMENT` if the text is not a key or if several keys begin
 *   with it.
 */
export async function entryOf(cache: DirectoryCache, digits: string): Promise<CacheEntry> {
  if (!/^[0-9a-f]{1,64}$/i.test(digits) || digits.length < MIN_DIGITS) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected a key or its first digits, at least ${MIN_DIGITS}, got "${digits}". \`llama-headstart cache list\` shows the keys.`,
    );
  }
  const matching = (await cache.list()).filter(({ key }) => key.startsWith(digits.toLowerCase()));
  const [entry, other] = matching;
  if (entry === undefined) {
    throw new HeadstartError(
      'ENTRY_MISSING',
      `No template in ${cache.disk.directory.path} has a key that begins with ${digits}. \`llama-headstart cache list\` shows the keys.`,
    );
  }
  if (other !== undefined) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `${matching.length} keys begin with ${digits}. Write more digits, for example ${entry.key.slice(0, 16)}.`,
    );
  }
  return entry;
}

/** The argument that names entries. */
export const KEY = { about: 'the key of a template, or its first digits' };
