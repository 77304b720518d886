// Finds the cached template that shares the longest prefix with a template that has no entry.
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { StateStore, StoredState } from '../engine/state-store.js';
import { commonPrefixLength } from '../tokens.js';
import type { DiskStore } from './disk/disk-store.js';
import type { IndexedEntry } from './disk/entry.js';
import type { Keyring } from './key.js';
import { likelyShared, MIN_SHARED_TOKENS, prefixHashes } from './prefix-hash.js';
import type { ResidentTemplate } from './resident-templates.js';

/** The cached template that shares the longest prefix. */
export type NearestTemplate = {
  /** Usable tokens of the shared prefix. */
  shared: number;
  /** Tokens of the cached template. */
  tokens: number;
} & (
  | { source: 'resident'; resident: ResidentTemplate }
  | { source: 'memory'; stored: StoredState }
  | { source: 'disk'; entry: IndexedEntry }
);

/** If a named pipe or a link has the name of an entry, opening it must not wait for a writer or follow the link. */
const READ_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

/** If several entries are equally near according to the index: the maximum number of them to read. */
const MAX_READ = 4;

export interface NearestSearch {
  keyring: Keyring;
  template: Int32Array;
  /**
   * Whether a state can be trimmed to fewer tokens. If not, an entry is usable only if the template begins with all of
   * its tokens.
   */
  canTrim: boolean;
}

/**
 * Finds the nearest cached template of the same configuration and tenant. If several are equally near, returns the one
 * that is cheapest to restore.
 *
 * @returns undefined if no template shares enough tokens to be worth a restore
 */
export async function findNearest(
  search: NearestSearch,
  residents: Iterable<ResidentTemplate>,
  states: StateStore,
  disk: DiskStore | undefined,
): Promise<NearestTemplate | undefined> {
  let best: NearestTemplate | undefined;
  const consider = (candidate: NearestTemplate) => {
    if (candidate.shared >= MIN_SHARED_TOKENS && candidate.shared > (best?.shared ?? 0)) {
      best = candidate;
    }
  };
  for (const resident of residents) {
    if (resident.group === search.keyring.group) {
      const shared = usableTokens(search, resident.tokens);
      consider({ source: 'resident', shared, tokens: resident.tokens.length, resident });
    }
  }
  for (const stored of states.values('template')) {
    if (stored.group === search.keyring.group) {
      const shared = usableTokens(search, stored.tokens);
      consider({ source: 'memory', shared, tokens: stored.tokens.length, stored });
    }
  }
  if (disk !== undefined) {
    for (const entry of likelyNearest(search, disk, best?.shared ?? 0)) {
      const tokens = await readTokens(disk.directory.join(entry.name), entry.tokens);
      consider({ source: 'disk', shared: usableTokens(search, tokens), tokens: entry.tokens, entry });
    }
  }
  return best;
}

/** The number of tokens of an entry that the template can reuse. */
export function usableTokens({ template, canTrim }: NearestSearch, tokens: Int32Array): number {
  const shared = commonPrefixLength(tokens, template);
  return canTrim || shared === tokens.length ? shared : 0;
}

/** The entries that are nearest according to the index, if they may share at least `atLeast` tokens. */
function likelyNearest(
  { keyring, template, canTrim }: NearestSearch,
  disk: DiskStore,
  atLeast: number,
): IndexedEntry[] {
  const hashes = prefixHashes(template);
  const scored: { entry: IndexedEntry; shared: number }[] = [];
  for (const entry of disk.index.values()) {
    if (entry.group === keyring.group) {
      const shared = likelyShared(entry, hashes);
      if (shared >= MIN_SHARED_TOKENS && (canTrim || shared === entry.tokens)) {
        scored.push({ entry, shared });
      }
    }
  }
  scored.sort((a, b) => b.shared - a.shared);
  const nearest = scored[0]?.shared ?? 0;
  // The index knows only certain prefix lengths, so the real shared prefix may be up to 1.5 times as long.
  return scored
    .filter(({ shared }) => shared === nearest && shared * 1.5 >= atLeast)
    .slice(0, MAX_READ)
    .map(({ entry }) => entry);
}

/**
 * Reads the token ids after the 12-byte header of an entry. They are unverified: the caller must compare them with the
 * tokens of the verified state.
 */
export async function readTokens(path: string, count: number): Promise<Int32Array> {
  const tokens = new Int32Array(count);
  const file = await open(path, READ_FLAGS).catch(() => undefined);
  try {
    await file?.read(new Uint8Array(tokens.buffer), 0, tokens.byteLength, 12);
  } catch {
    tokens.fill(-1);
  } finally {
    await file?.close();
  }
  return tokens;
}
