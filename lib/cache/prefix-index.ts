import type { Engine } from '../engine/engine.js';
import type { Sequence } from '../engine/sequence.js';
import { checkpointsOf, partialCheckpointLength } from '../engine/sequence-contents.js';
import type { StateStore, StoredState } from '../engine/state-store.js';
import { commonPrefixLength, prefixOfAtLeast } from '../tokens.js';
import { BranchPoints } from './branch-points.js';
import { type ConversationStore, hasMark } from './conversation-store.js';
import type { DiskStore } from './disk/disk-store.js';
import type { IndexedEntry } from './disk/entry.js';
import { readTokens } from './disk/read-tokens.js';
import type { NearestPrefix } from './loaded-prefix.js';
import { likelyShared, MIN_SHARED_TOKENS, prefixHashes } from './prefix-hash.js';
import { PromptsInProgress } from './prompts-in-progress.js';
import type { ResidentTemplate, ResidentTemplates } from './resident-templates.js';
import type { StateSource } from './start-report.js';

interface TokenCounts {
  /** Number of tokens of the candidate that the prompt can reuse. */
  shared: number;
  /** Number of all tokens of the candidate. */
  tokens: number;
}

/** A state in memory that holds a prefix of a prompt. */
type StoredCandidate = TokenCounts & { source: 'memory'; stored: StoredState };

/** A sequence that holds a prefix of a prompt. */
type SequenceCandidate = TokenCounts & { source: 'sequence'; sequence: Sequence };

/** A conversation that holds a prefix of a prompt. */
export type ConversationCandidate = StoredCandidate | SequenceCandidate;

export interface LongestPrefix {
  /** Undefined if no conversation shares enough tokens. */
  candidate: ConversationCandidate | undefined;
  /**
   * The length at which the prompt branches off from tokens that cannot be trimmed to this length. 0 if there are no
   * such tokens.
   */
  branch: number;
}

/** A cached template or a conversation that holds a prefix of another template. */
export type TemplateCandidate =
  | SequenceCandidate
  | StoredCandidate
  | (TokenCounts & { source: 'resident'; resident: ResidentTemplate })
  | DiskCandidate;

/** A file that holds a prefix of a prompt. */
export type DiskCandidate = TokenCounts & { source: 'disk'; disk: DiskStore; entry: IndexedEntry };

/** A sequence, state or file that holds a prefix of a prompt. */
export type PrefixCandidate = ConversationCandidate | TemplateCandidate;

/** The source of a prefix, for reports. */
export function sourceOf({ source }: PrefixCandidate): StateSource {
  return source === 'sequence' ? 'resident' : source;
}

/** The maximum number of entries to read if several are equally near according to the index. */
const MAX_READ = 4;

export interface PrefixQuery {
  /** The key group: nothing of another group is a candidate. */
  group: string;
  /** The prompt, or the part of it that may be reused. */
  tokens: Int32Array;
  /**
   * Whether a restored state can be trimmed. If not, only a state whose tokens are all in the prompt is a candidate.
   */
  canTrim: boolean;
  /** Whether only the own states of the sequence to load into are candidates. @default false */
  ownOnly?: boolean | undefined;
  /** Of candidates that share equally many tokens, one with this affinity is preferred. @default no preference */
  affinity?: string | undefined;
}

export interface PrefixIndexParts {
  engine: Engine;
  states: StateStore;
  residents: ResidentTemplates;
  disk: DiskStore | undefined;
}

/** Finds the longest usable prefix of a prompt in the KV cache, in memory and on disk. */
export class PrefixIndex {
  /** Prompts that will soon be in the KV cache. */
  readonly prompts = new PromptsInProgress();
  /** Templates that will soon be in the KV cache. */
  readonly templates = new PromptsInProgress();
  /** Where earlier prompts have branched off. */
  readonly branches = new BranchPoints();
  /** Undefined if conversations are not kept on disk. */
  conversations: ConversationStore | undefined;
  readonly #parts: PrefixIndexParts;

  constructor(parts: PrefixIndexParts) {
    this.#parts = parts;
  }

  /**
   * Finds the cached template, the template in progress, or the conversation that shares the longest prefix with a
   * template. If several of them share equally many tokens, the result is the one that is cheapest to load.
   *
   * @returns undefined if no template shares enough tokens to be worth a restore
   */
  async nearestTemplate(query: PrefixQuery): Promise<TemplateCandidate | undefined> {
    const { engine, states, residents, disk } = this.#parts;
    const candidates: TemplateCandidate[] = [];
    // Cells of a sliding window that sequences share are never freed. So with a window, only stored states are used.
    for (const resident of engine.hasWindow ? [] : residents.values()) {
      const { shared, tokens } = measure({ ...query, canTrim: true }, resident);
      candidates.push({ source: 'resident', resident, shared: resident.sequence.trimmableLength(shared), tokens });
    }
    for (const stored of states.values('template')) {
      candidates.push({ source: 'memory', stored, ...measure(query, stored) });
    }
    for (const sequence of [...engine.sessions.leased, ...residents.loading()]) {
      if (sequence.group === query.group) {
        const shared = copyableLength(sequence, engine.canTrim, commonPrefixLength(sequence.tokens, query.tokens));
        candidates.push({ source: 'sequence', sequence, shared, tokens: sequence.length });
      }
    }
    if (disk !== undefined) {
      await disk.index.readTail();
      candidates.push(...(await candidatesOn(disk, query, longestOf(candidates)?.shared ?? 0)));
    }
    const longest = longestOf(candidates);
    return longest !== undefined && longest.shared >= MIN_SHARED_TOKENS ? longest : undefined;
  }

  /**
   * Finds the conversation that shares the longest prefix with a prompt: a sequence, or a state in memory.
   *
   * @param sequence the sequence to load into. Its own states are always worth a restore.
   * @param baseline number of tokens that the sequence can get without a candidate
   */
  longest(query: PrefixQuery, sequence: Sequence, baseline: number): LongestPrefix {
    let longest: (Holder & { shared: number }) | undefined;
    let branch = 0;
    for (const holder of this.#holders(query, sequence)) {
      const minimum = Math.max(baseline + Math.ceil(holder.minimumGain), minimumAfter(longest, holder, query));
      const common = prefixOfAtLeast(minimum, holder.tokens, query.tokens);
      const shared = holder.trimmableLength(common);
      if (shared >= minimum) {
        longest = { ...holder, shared };
      }
      if (shared < common && common < Math.min(holder.tokens.length, query.tokens.length)) {
        branch = Math.max(branch, common);
      }
    }
    const candidate = longest && { ...longest.candidate, shared: longest.shared, tokens: longest.tokens.length };
    return { candidate, branch };
  }

  /**
   * Finds the conversation on disk that shares the longest prefix with a prompt.
   *
   * @param available number of tokens that are available without a read
   * @returns undefined at once if no file may be worth a read
   */
  longestOnDisk(query: PrefixQuery, available: number): Promise<DiskCandidate | undefined> | undefined {
    const { conversations } = this;
    const isPossible =
      conversations !== undefined &&
      query.ownOnly !== true &&
      conversations.disk.index.size > 0 &&
      query.tokens.length - available >= MIN_SHARED_TOKENS;
    return isPossible ? this.#longestOn(conversations, query, available) : undefined;
  }

  async #longestOn(
    store: ConversationStore,
    query: PrefixQuery,
    available: number,
  ): Promise<DiskCandidate | undefined> {
    const { prefillMsPerToken } = this.#parts.engine;
    const candidates = await candidatesOn(store.disk, query, available + MIN_SHARED_TOKENS);
    const longest = longestOf(candidates);
    if (longest === undefined || longest.shared < available + MIN_SHARED_TOKENS) {
      return undefined;
    }
    const savedMs = (longest.shared - available) * prefillMsPerToken;
    const isFaster = prefillMsPerToken === 0 || savedMs > store.minimumGainMs(longest.entry.bytes);
    return isFaster ? longest : undefined;
  }

  /**
   * The idle sequence that can keep the longest prefix of a prompt, and the number of tokens that both share. Undefined
   * if no sequence can keep at least {@link MIN_SHARED_TOKENS} more tokens than `baseline`.
   */
  longestIdle(query: PrefixQuery, baseline: number): { sequence: Sequence; common: number } | undefined {
    const { group, tokens, ownOnly = false } = query;
    let longest: { sequence: Sequence; affinity: string | undefined; shared: number; common: number } | undefined;
    for (const sequence of ownOnly ? [] : this.#parts.engine.sessions.leased) {
      if (!sequence.busy && sequence.group === group) {
        const { affinity } = sequence;
        const minimum = Math.max(baseline + MIN_SHARED_TOKENS, minimumAfter(longest, sequence, query));
        const common = prefixOfAtLeast(minimum, sequence.tokens, tokens);
        const shared = sequence.trimmableLength(common);
        if (shared >= minimum) {
          longest = { sequence, affinity, shared, common };
        }
      }
    }
    return longest;
  }

  /**
   * The sequence, state or template in this process that shares the longest prefix with a prompt, even if the prompt
   * cannot use the prefix.
   *
   * @param earlier the result of an earlier search. It is returned if no prefix shares more tokens now.
   * @returns undefined if none shares a token
   */
  nearest(
    { group, tokens, ownOnly = false }: PrefixQuery,
    sequence: Sequence,
    earlier?: NearestPrefix,
  ): NearestPrefix | undefined {
    const { engine, states, residents } = this.#parts;
    const all = [...engine.sessions.leased, ...states.values(), ...residents.values()];
    let nearest: NearestPrefix | undefined;
    for (const held of ownOnly ? [sequence, ...ownStates(sequence)] : [sequence, ...all]) {
      if (held !== undefined && held.group === group) {
        const minimum = ((nearest ?? earlier)?.shared ?? 0) + 1;
        const shared = prefixOfAtLeast(minimum, held.tokens, tokens);
        nearest = shared === 0 ? nearest : { tokens: held.tokens, shared };
      }
    }
    return nearest ?? earlier;
  }

  /** The sequences and states of a query's group that hold tokens of conversations. */
  *#holders(query: PrefixQuery, sequence: Sequence): Iterable<Holder> {
    const { engine, states } = this.#parts;
    const { group, canTrim, ownOnly = false } = query;
    const { tokensPerCopiedByte } = engine;
    const minimumGain = (bytes: number) => Math.max(MIN_SHARED_TOKENS, bytes * tokensPerCopiedByte);
    const isUnified = engine.context.info.kvLayout === 'unified';
    for (const other of ownOnly ? [] : engine.sessions.leased) {
      if (other !== sequence && other.group === group) {
        // Without a shared KV cache, the state is captured and restored.
        const bytes = isUnified ? 0 : 2 * (engine.states.captures.expectedBytes(other.length) ?? 0);
        yield {
          affinity: other.affinity,
          candidate: { source: 'sequence', sequence: other },
          tokens: other.tokens,
          minimumGain: minimumGain(bytes),
          trimmableLength: (length) => copyableLength(other, engine.canTrim, length),
        };
      }
    }
    const own = ownStates(sequence);
    for (const stored of [...states.values('conversation'), ...states.values('request')]) {
      const isOwn = own.includes(stored);
      if (!stored.isPartial && stored.group === group && (isOwn || !ownOnly)) {
        const trimmableLength = (length: number) =>
          canTrim || length === stored.tokens.length ? length : engine.states.trimmableLength(stored, length);
        yield {
          affinity: stored.affinity,
          candidate: { source: 'memory', stored },
          tokens: stored.tokens,
          minimumGain: isOwn ? 1 : minimumGain(stored.state.byteLength),
          trimmableLength,
        };
      }
    }
  }
}

/**
 * The largest length up to `length` to which a copy of a sequence can be trimmed. A busy sequence may get more tokens
 * before it is copied, so on memory that cannot be trimmed a copy of it is trimmed to a checkpoint.
 */
function copyableLength(sequence: Sequence, canTrim: boolean, length: number): number {
  return sequence.busy && !canTrim ? partialCheckpointLength(sequence, length) : sequence.trimmableLength(length);
}

/**
 * How many tokens the next candidate must share to be better than `longest`. If both share equally many, only the
 * query's affinity makes the next one better.
 */
function minimumAfter(
  longest: { affinity: string | undefined; shared: number } | undefined,
  next: { affinity: string | undefined },
  { affinity }: PrefixQuery,
): number {
  if (longest === undefined) {
    return 1;
  }
  const isPreferred = affinity !== undefined && next.affinity === affinity && longest.affinity !== affinity;
  return longest.shared + (isPreferred ? 0 : 1);
}

/** Holds tokens that a prompt may reuse. */
interface Holder {
  affinity: string | undefined;
  candidate: { source: 'sequence'; sequence: Sequence } | { source: 'memory'; stored: StoredState };
  tokens: Int32Array;
  /** How many tokens a copy must save, so that it is faster than decoding them. */
  minimumGain: number;
  /** The largest length up to `length` to which a copy can be trimmed. */
  trimmableLength(length: number): number;
}

/** The states that a sequence can continue from. */
function ownStates(sequence: Sequence): (StoredState | undefined)[] {
  return [sequence.swapped?.stored, ...checkpointsOf(sequence)];
}

/** The first of the candidates with the most shared tokens. */
function longestOf<Candidate extends TokenCounts>(candidates: readonly Candidate[]): Candidate | undefined {
  let longest: Candidate | undefined;
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

/** The candidates among the entries that are nearest according to the index. Reads their tokens. */
async function candidatesOn(disk: DiskStore, query: PrefixQuery, atLeast: number): Promise<DiskCandidate[]> {
  const candidates: DiskCandidate[] = [];
  for (const entry of likelyNearest(query, disk, atLeast)) {
    const tokens = await readTokens(disk.directory.join(entry.name), entry.tokens);
    candidates.push({ source: 'disk', disk, entry, ...measure(query, { group: query.group, tokens }) });
  }
  return candidates;
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
      const { shared, atMost } = sharedRange(entry, hashes);
      if (shared >= MIN_SHARED_TOKENS && atMost >= atLeast && (canTrim || shared === entry.tokens)) {
        scored.push({ entry, shared });
      }
    }
  }
  scored.sort((a, b) => b.shared - a.shared);
  const nearest = scored[0]?.shared ?? 0;
  return scored
    .filter(({ shared }) => shared === nearest)
    .slice(0, MAX_READ)
    .map(({ entry }) => entry);
}

/** The smallest and the largest number of tokens that an entry probably shares with a prompt. */
function sharedRange(entry: IndexedEntry, hashes: Uint32Array): { shared: number; atMost: number } {
  const { tokens, conversation } = entry;
  const { promptTokens = 0 } = conversation ?? {};
  const isInPrompt = conversation !== undefined && hasMark(hashes, conversation);
  const shared = Math.max(likelyShared(entry, hashes), isInPrompt ? promptTokens : 0);
  // The index knows only certain prefix lengths, so the real shared prefix may be up to 1.5 times as long.
  const atMost = Math.min(tokens, promptTokens > 0 && !isInPrompt ? promptTokens : tokens);
  return { shared, atMost: Math.min(atMost, shared * 1.5) };
}
