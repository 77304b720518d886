import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Engine } from '../engine/engine.js';
import type { Sequence } from '../engine/sequence.js';
import type { StateStore, StoredState } from '../engine/state-store.js';
import { commonPrefixLength, isPrefix } from '../tokens.js';
import type { DiskStore } from './disk/disk-store.js';
import type { IndexedEntry } from './disk/entry.js';
import { likelyShared, MIN_SHARED_TOKENS, prefixHashes } from './prefix-hash.js';
import type { ResidentTemplate, ResidentTemplates } from './resident-templates.js';

/** A sequence, state or file that holds a prefix of a prompt. */
export type PrefixCandidate = {
  /** Number of its tokens that the prompt can reuse. */
  shared: number;
  /** Number of all its tokens. */
  tokens: number;
} & (
  | { source: 'sequence'; sequence: Sequence }
  | { source: 'resident'; resident: ResidentTemplate }
  | { source: 'memory'; stored: StoredState }
  | { source: 'disk'; entry: IndexedEntry }
);

/** If a named pipe or a link has the name of an entry, opening it must not wait for a writer or follow the link. */
const READ_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

/** The maximum number of entries to read if several are equally near according to the index. */
const MAX_READ = 4;

export interface PrefixQuery {
  /** The key group: nothing of another group is a candidate. */
  group: string;
  /** The prompt, or the part of it that may be reused. */
  tokens: Int32Array;
  /** Whether a state can be trimmed. If not, only a state whose tokens are all in the prompt is a candidate. */
  canTrim: boolean;
}

export interface PrefixIndexParts {
  engine: Engine;
  states: StateStore;
  residents: ResidentTemplates;
  disk: DiskStore | undefined;
}

/** Finds the longest usable prefix of a prompt in the KV cache, in memory and on disk. */
export class PrefixIndex {
  readonly #parts: PrefixIndexParts;

  constructor(parts: PrefixIndexParts) {
    this.#parts = parts;
  }

  /**
   * Finds the cached template that shares the longest prefix with a template. If several share equally many tokens, the
   * result is the one that is cheapest to load.
   *
   * @returns undefined if no template shares enough tokens to be worth a restore
   */
  async nearestTemplate(query: PrefixQuery): Promise<PrefixCandidate | undefined> {
    const { engine, states, residents, disk } = this.#parts;
    const candidates: PrefixCandidate[] = [];
    // Cells of a sliding window that sequences share are never freed, so only stored states are used there.
    for (const resident of engine.hasWindow ? [] : residents.values()) {
      candidates.push({ source: 'resident', resident, ...measure(query, resident) });
    }
    for (const stored of states.values('template')) {
      candidates.push({ source: 'memory', stored, ...measure(query, stored) });
    }
    if (disk !== undefined) {
      await disk.index.readTail();
      for (const entry of likelyNearest(query, disk, longestOf(candidates)?.shared ?? 0)) {
        const tokens = await readTokens(disk.directory.join(entry.name), entry.tokens);
        candidates.push({ source: 'disk', entry, ...measure(query, { group: query.group, tokens }) });
      }
    }
    const longest = longestOf(candidates);
    return longest !== undefined && longest.shared >= MIN_SHARED_TOKENS ? longest : undefined;
  }

  /**
   * Finds the conversation that shares the longest prefix with a prompt: an idle sequence, or a state in memory. If the
   * memory can be trimmed, the result may also be a busy sequence.
   *
   * @param sequence the sequence to load into. Its own states are always worth a restore.
   * @param baseline number of tokens that the sequence can get without a candidate
   */
  longest(query: PrefixQuery, sequence: Sequence, baseline: number): PrefixCandidate | undefined {
    const { engine, states } = this.#parts;
    const candidates: PrefixCandidate[] = [];
    for (const other of engine.context.info.kvLayout === 'unified' ? engine.sessions.leased : []) {
      if (other !== sequence && (!other.busy || query.canTrim)) {
        const shared = other.trimmableLength(measure({ ...query, canTrim: true }, other).shared);
        candidates.push({ source: 'sequence', sequence: other, shared, tokens: other.length });
      }
    }
    for (const stored of [...states.values('conversation'), ...states.values('request')]) {
      if (!stored.isPartial) {
        candidates.push({ source: 'memory', stored, ...measure(query, stored) });
      }
    }
    candidates.push(...swappedCandidates(query, sequence, states));
    const isWorth = (candidate: PrefixCandidate) =>
      candidate.shared >= baseline + (isOwn(candidate, sequence) ? 1 : MIN_SHARED_TOKENS);
    return longestOf(candidates.filter(isWorth));
  }

  /** The idle sequence that shares the longest prefix with a prompt, if it is worth more than the `baseline` tokens. */
  longestIdle(query: PrefixQuery, baseline: number): Sequence | undefined {
    let longest: Sequence | undefined;
    let most = baseline + MIN_SHARED_TOKENS - 1;
    for (const sequence of this.#parts.engine.sessions.leased) {
      const shared = sequence.trimmableLength(measure({ ...query, canTrim: true }, sequence).shared);
      if (!sequence.busy && shared > most) {
        [longest, most] = [sequence, shared];
      }
    }
    return longest;
  }
}

/** The sequence's own swapped-out state, if it can be trimmed to one of the sequence's checkpoints afterwards. */
function swappedCandidates(query: PrefixQuery, sequence: Sequence, states: StateStore): PrefixCandidate[] {
  const { swapped, checkpoints } = sequence;
  const stored = swapped?.stored;
  if (stored === undefined || stored.group !== query.group || !states.has(stored)) {
    return [];
  }
  const common = commonPrefixLength(stored.tokens, query.tokens);
  return [checkpoints.turn, checkpoints.step]
    .filter((each) => each?.isPartial && states.has(each))
    .filter((each) => each !== undefined && each.tokens.length <= common && isPrefix(each.tokens, stored.tokens))
    .map((each) => ({
      source: 'memory',
      stored,
      shared: (each as StoredState).tokens.length,
      tokens: stored.tokens.length,
    }));
}

/** Whether the candidate is a state of the sequence itself. */
function isOwn(candidate: PrefixCandidate, { swapped, checkpoints }: Sequence): boolean {
  const own = [swapped?.stored, checkpoints.turn, checkpoints.step];
  return candidate.source === 'memory' && own.includes(candidate.stored);
}

/** The first of the candidates with the most shared tokens. */
function longestOf(candidates: readonly PrefixCandidate[]): PrefixCandidate | undefined {
  let longest: PrefixCandidate | undefined;
  for (const candidate of candidates) {
    longest = candidate.shared > (longest?.shared ?? 0) ? candidate : longest;
  }
  return longest;
}

function measure(query: PrefixQuery, { group, tokens }: { group: string; tokens: Int32Array }) {
  return { shared: group === query.group ? usableTokens(query, tokens) : 0, tokens: tokens.length };
}

/** The number of these tokens that the prompt can reuse. */
export function usableTokens({ tokens: prompt, canTrim }: Omit<PrefixQuery, 'group'>, tokens: Int32Array): number {
  const shared = commonPrefixLength(tokens, prompt);
  return canTrim || shared === tokens.length ? shared : 0;
}

/** The entries that are nearest according to the index, if they may share at least `atLeast` tokens. */
function likelyNearest(
  { group, tokens: prompt, canTrim }: PrefixQuery,
  disk: DiskStore,
  atLeast: number,
): IndexedEntry[] {
  const hashes = prefixHashes(prompt);
  const scored: { entry: IndexedEntry; shared: number }[] = [];
  for (const entry of disk.index.values()) {
    if (entry.group === group) {
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
