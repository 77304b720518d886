// Where no exact entry exists: the cached template that shares the longest head with the new one.
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { commonPrefixLength } from '../tokens.js';
import type { DiskStore } from './disk/disk-store.js';
import type { EntryFacts } from './disk/entry.js';
import type { Keyring } from './key.js';
import type { MemoryStore } from './memory-store.js';
import { likelyShared, MIN_SHARED_TOKENS, prefixHashes } from './prefix-hash.js';
import type { ResidentTemplate } from './resident-templates.js';

/** A cached template and the head that it shares. */
export type Neighbour = { shared: number; tokens: number } & (
  | { source: 'resident'; resident: ResidentTemplate }
  | { source: 'memory'; key: string }
  | { source: 'disk'; facts: EntryFacts }
);

/** A named pipe in an entry's place must not wait for its writer, nor a link lead elsewhere. */
const READ_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

/** Entries whose own tokens are read, of those that the index finds equally near. */
const MAX_READ = 4;

export interface NearestSearch {
  keyring: Keyring;
  template: Int32Array;
  /** Whether a state can be cut to a part of its tokens; else only whole entries serve. */
  canTrim: boolean;
}

/**
 * The nearest cached template of the same configuration and tenant; of equally near ones the cheapest to restore.
 *
 * @returns undefined where none shares enough to be worth a restore
 */
export async function findNearest(
  search: NearestSearch,
  residents: Iterable<ResidentTemplate>,
  memory: MemoryStore,
  disk: DiskStore | undefined,
): Promise<Neighbour | undefined> {
  let best: Neighbour | undefined;
  const offer = (neighbour: Neighbour) => {
    if (neighbour.shared >= MIN_SHARED_TOKENS && neighbour.shared > (best?.shared ?? 0)) {
      best = neighbour;
    }
  };
  for (const resident of residents) {
    if (resident.group === search.keyring.group) {
      const shared = usable(search, resident.tokens);
      offer({ source: 'resident', shared, tokens: resident.tokens.length, resident });
    }
  }
  for (const [key, { tokens, group }] of memory.entries()) {
    if (group === search.keyring.group) {
      offer({ source: 'memory', shared: usable(search, tokens), tokens: tokens.length, key });
    }
  }
  if (disk !== undefined) {
    for (const facts of likely(search, disk, best?.shared ?? 0)) {
      const tokens = await readTokens(disk.directory.join(facts.name), facts.tokens);
      offer({ source: 'disk', shared: usable(search, tokens), tokens: facts.tokens, facts });
    }
  }
  return best;
}

/** How many tokens of an entry can be a template's start. */
export function usable({ template, canTrim }: NearestSearch, tokens: Int32Array): number {
  const shared = commonPrefixLength(tokens, template);
  return canTrim || shared === tokens.length ? shared : 0;
}

/** The entries that the index finds nearest, if they can be nearer than what there is. */
function likely({ keyring, template, canTrim }: NearestSearch, disk: DiskStore, atLeast: number): EntryFacts[] {
  const hashes = prefixHashes(template);
  const scored: { facts: EntryFacts; shared: number }[] = [];
  for (const facts of disk.index.values()) {
    if (facts.group === keyring.group) {
      const shared = likelyShared(facts, hashes);
      if (shared >= MIN_SHARED_TOKENS && (canTrim || shared === facts.tokens)) {
        scored.push({ facts, shared });
      }
    }
  }
  scored.sort((a, b) => b.shared - a.shared);
  const nearest = scored[0]?.shared ?? 0;
  // A hashed length is at least two thirds of the real one.
  return scored
    .filter(({ shared }) => shared === nearest && shared * 1.5 >= atLeast)
    .slice(0, MAX_READ)
    .map(({ facts }) => facts);
}

/** An entry's token ids, from behind its 12-byte header: a hint, which the verified state must confirm. */
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
