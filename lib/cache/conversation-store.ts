// Conversations on disk: one file for the newest state of each conversation. See docs/design/template-cache.md,
// "Conversations on disk".
import { createHash, randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import type { ContentsCopy } from '../engine/sequence-states.js';
import type { Logger } from '../logger.js';
import { SequenceState } from '../native/state.js';
import { group, type OptionsOf, text } from '../option-types.js';
import { defaultConversationBytes, type ResolvedConversationOptions } from './conversation-options.js';
import type { CacheDirectory } from './disk/cache-directory.js';
import { DirectoryIndex } from './disk/directory-index.js';
import { DirectoryWatcher } from './disk/directory-watcher.js';
import { DiskStore } from './disk/disk-store.js';
import { CONVERSATION_NAMES, type ConversationMark, type EntryMetadata, type IndexedEntry } from './disk/entry.js';
import type { DirectoryBudget } from './disk/eviction.js';
import { ENTRY_FORMAT, type Keyring } from './key.js';
import { RunningMean } from './prefill-estimate.js';
import { prefixHashes } from './prefix-hash.js';

/** Conversations on disk. */
export interface ConversationsStatus {
  /** Number of conversations in the cache directory, including those of other models and processes. */
  count: number;
  /** Their size in bytes. */
  bytes: number;
  /** The budget: `cache.conversations.maxBytes`. */
  maxBytes: number;
}

const FORGET = {
  /** The tenant of the conversations. @default any */
  tenant: text().optional(),
  /** The `affinity` of their requests. @default any */
  affinity: text().optional(),
};

/** Names the conversations to forget. At least one field must be present, and a conversation must match all of them. */
export interface ForgetOptions extends OptionsOf<typeof FORGET> {}

export const FORGET_OPTIONS = group(FORGET);

/** What was forgotten. */
export interface ForgetReport {
  /** Number of idle sequences of the KV cache that were emptied. */
  sequences: number;
  /** Number of states in memory that were dropped. */
  states: number;
  /** Number of files that were deleted. */
  files: number;
}

/** A conversation to save. */
export interface UnsavedConversation extends ForgetOptions {
  keyring: Keyring;
  tokens: Int32Array;
  /** See {@link ConversationMark.promptTokens}. */
  promptTokens: number;
  /** Expected duration of a prefill of all tokens, ms. */
  prefillMs: number;
  /** See {@link ConversationMark.isOneOff}. */
  isOneOff: boolean;
  /** The replies as they were sampled. */
  replies: readonly unknown[];
}

/** Knows the replies of conversations as they were sampled. */
export interface ReplyRecords {
  /** The replies in a list of tokens, as JSON data. */
  recordsFor(group: string, tokens: Int32Array): readonly unknown[];
}

interface Save {
  conversation: UnsavedConversation;
  mark: ConversationMark;
  ended: Promise<void>;
  controller: AbortController;
}

const HOUR_MS = 3_600_000;
/** Maximum size of the replies in a footer, in bytes. The footer may have 1 MiB. */
const MAX_REPLY_BYTES = 512 * 1024;
/** The maximum number of files whose replies are read at once. The newest files are read. */
const MAX_REPLY_FILES = 256;
/** The assumed duration of a write and a read before the first measurement, ms per byte. */
const ASSUMED_WRITE_MS = 5e-6;
const ASSUMED_READ_MS = 1e-6;
/** A conversation is saved again if it has grown by this many tokens, or by {@link MIN_GROWTH} of its length. */
const MIN_GROWN_TOKENS = 2048;
const MIN_GROWTH = 0.25;

export interface ConversationStoreParts {
  directory: CacheDirectory;
  options: ResolvedConversationOptions;
  logger: Logger | undefined;
}

export class ConversationStore {
  readonly disk: DiskStore;
  readonly options: ResolvedConversationOptions;
  /** Undefined if replies are not kept. */
  replies: ReplyRecords | undefined;
  /** Names of the files whose replies are known. */
  readonly #withKnownReplies = new Set<string>();
  /** The reads in progress, by key group. */
  readonly #readingReplies = new Map<string, Promise<readonly unknown[]>>();
  readonly #logger: Logger | undefined;
  readonly #watcher: DirectoryWatcher;
  readonly #saves = new Set<Save>();
  readonly #writeMs = new RunningMean();
  readonly #readMs = new RunningMean();
  /** The writes of the last hour. */
  #written: { at: number; bytes: number }[] = [];
  #maxBytes = 0;
  #sweeping: NodeJS.Timeout | undefined;

  constructor({ directory, options, logger }: ConversationStoreParts) {
    this.options = options;
    const index = new DirectoryIndex(directory, CONVERSATION_NAMES);
    this.disk = new DiskStore(directory, index, (_, reason) =>
      logger?.('warn', `conversation cache: entry set aside, ${reason}`),
    );
    this.#watcher = new DirectoryWatcher(directory, index);
    this.#logger = logger;
  }

  /** Reads the index of the directory, and deletes the conversations that exceed the budget. */
  async open(): Promise<void> {
    const { directory, index } = this.disk;
    await this.#watcher.begin();
    this.#maxBytes = this.options.maxBytes ?? (await defaultConversationBytes(directory.path, index.totalBytes));
    await this.#evict();
    this.#sweeping = setInterval(() => this.#evict().catch(() => undefined), HOUR_MS);
    this.#sweeping.unref();
  }

  status(): ConversationsStatus {
    const { size, totalBytes } = this.disk.index;
    return { count: size, bytes: totalBytes, maxBytes: this.#maxBytes };
  }

  /** Whether a state of this size is worth a file, and allowed within the budgets. */
  admits(bytes: number, { prefillMs, isOneOff }: Pick<UnsavedConversation, 'prefillMs' | 'isOneOff'>): boolean {
    const writeMs = bytes * (this.#writeMs.value ?? ASSUMED_WRITE_MS);
    const isFaster = prefillMs > this.options.minSpeedup * (writeMs + this.#expectedReadMs(bytes));
    return isFaster && this.#maxBytes > 0 && bytes <= this.#maxBytes && bytes <= this.#allowedBytes(isOneOff);
  }

  /** The time that a read of a file of this size must save at least, in ms. */
  minimumGainMs(bytes: number): number {
    return Math.min(1, this.options.minSpeedup) * this.#expectedReadMs(bytes);
  }

  #expectedReadMs(bytes: number): number {
    return bytes * (this.#readMs.value ?? ASSUMED_READ_MS);
  }

  /** Records how long a read and its restore took. */
  noteRead(bytes: number, ms: number): void {
    this.#readMs.add(ms / bytes);
  }

  /** Whether the conversation was never saved, or has grown enough since its last save. */
  hasGrown({ keyring, tokens }: UnsavedConversation): boolean {
    const hashes = prefixHashes(tokens);
    const saved = [
      ...this.#superseded(keyring.group, hashes).map((entry) => entry.tokens),
      ...[...this.#saves]
        .filter(({ conversation, mark }) => conversation.keyring.group === keyring.group && hasMark(hashes, mark))
        .map(({ conversation }) => conversation.tokens.length),
    ];
    const before = Math.max(0, ...saved);
    const grown = tokens.length - before;
    return grown > 0 && (grown >= MIN_GROWN_TOKENS || grown >= MIN_GROWTH * before);
  }

  /**
   * Saves the captured state of a conversation in the background, and ends the copy. The new file replaces older files
   * of the conversation.
   */
  save(conversation: UnsavedConversation, captured: Promise<ContentsCopy | undefined>): Promise<void> {
    const mark = markOf(conversation);
    const controller = new AbortController();
    const save: Save = { conversation, mark, controller, ended: Promise.resolve() };
    this.#saves.add(save);
    save.ended = this.#save(save, captured)
      .catch((error: unknown) => {
        if (!controller.signal.aborted) {
          this.#logger?.('warn', `conversation cache: not saved, ${String(error)}`);
        }
      })
      .finally(() => this.#saves.delete(save));
    return save.ended;
  }

  async #save({ conversation, mark, controller }: Save, captured: Promise<ContentsCopy | undefined>): Promise<void> {
    const copy = await captured;
    try {
      const { state } = copy ?? {};
      if (state !== undefined && !controller.signal.aborted && this.admits(state.byteLength, conversation)) {
        await this.#write(conversation, mark, state, controller.signal);
      }
    } finally {
      copy?.end();
    }
  }

  async #write(
    conversation: UnsavedConversation,
    mark: ConversationMark,
    state: NonNullable<ContentsCopy['state']>,
    signal: AbortSignal,
  ): Promise<void> {
    const { keyring, tokens, prefillMs } = conversation;
    const key = keyring.keyOf(tokens);
    const createdAt = new Date().toISOString();
    const records = newestWithin(MAX_REPLY_BYTES, conversation.replies);
    const replies = { records, digest: jsonDigest(records) };
    const metadata = { format: ENTRY_FORMAT, key, components: keyring.components, createdAt, prefillMs, replies };
    const begin = performance.now();
    this.#written.push({ at: begin, bytes: state.byteLength });
    const bytes = await this.disk.write(state, { ...metadata, conversation: mark }, signal);
    this.#writeMs.add((performance.now() - begin) / bytes);
    const name = this.disk.nameOf(key);
    this.#withKnownReplies.add(name);
    if (signal.aborted) {
      await this.disk.delete(name); // the program called `forget` during the write
      return;
    }
    for (const entry of this.#superseded(keyring.group, prefixHashes(tokens)).filter((each) => each.name !== name)) {
      await this.disk.delete(entry.name);
    }
    await this.#evict(conversation.isOneOff ? undefined : name); // a one-off request may be deleted right away
  }

  /**
   * Reads the replies of conversations that another process or an earlier run has saved. Calls during the read return
   * the same replies. Later calls do not return these replies again.
   *
   * @returns undefined at once if there are no such files
   */
  unreadReplies(group: string): Promise<readonly unknown[]> | undefined {
    const unread = [...this.disk.index.values()].filter(
      (entry) => entry.group === group && !this.#withKnownReplies.has(entry.name),
    );
    if (unread.length > 0) {
      const reading = this.#readReplies(unread).finally(() => this.#readingReplies.delete(group));
      this.#readingReplies.set(group, reading);
    }
    return this.#readingReplies.get(group);
  }

  async #readReplies(entries: IndexedEntry[]): Promise<readonly unknown[]> {
    for (const { name } of entries) {
      this.#withKnownReplies.add(name);
    }
    entries.sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
    const records = await Promise.all(
      entries.slice(0, MAX_REPLY_FILES).map(async ({ name }) => {
        const metadata = await SequenceState.readMetadata(this.disk.directory.join(name)).catch(() => undefined);
        const { records, digest } = (metadata as Partial<EntryMetadata> | undefined)?.replies ?? {};
        return Array.isArray(records) && jsonDigest(records) === digest ? (records as unknown[]) : [];
      }),
    );
    return records.flat();
  }

  /** The saved states that a conversation whose tokens have these prefix hashes continues. */
  #superseded(keyGroup: string, hashes: Uint32Array): IndexedEntry[] {
    return [...this.disk.index.values()].filter(
      ({ group: other, conversation }) => other === keyGroup && conversation && hasMark(hashes, conversation),
    );
  }

  /**
   * Deletes the files of conversations, and damaged files, which may belong to any conversation. Aborts the matching
   * saves in progress first, so that their files do not come back.
   *
   * @returns the number of deleted conversations
   */
  async forget(options: ForgetOptions): Promise<number> {
    const matching = [...this.#saves].filter(({ mark }) => matches(mark, options));
    for (const { controller } of matching) {
      controller.abort();
    }
    await Promise.all(matching.map(({ ended }) => ended));
    const { index, directory } = this.disk;
    const names = await index.refresh();
    const entries = [...index.values()].filter(({ conversation }) => conversation && matches(conversation, options));
    for (const { name } of entries) {
      await this.disk.delete(name);
    }
    for (const name of names.filter((each) => /^conversation_.*\.corrupt$/.test(each))) {
      await rm(directory.join(name), { force: true, recursive: true }).catch(() => undefined);
    }
    // The agent drops all replies from files, so the replies in the remaining files must be read again.
    this.#withKnownReplies.clear();
    if (entries.length + matching.length > 0) {
      await index.rewrite();
    }
    const left = new Set(entries.length === 0 ? [] : await index.refresh());
    const kept = entries.filter(({ name }) => left.has(name)).length;
    if (kept > 0) {
      this.#logger?.('warn', `conversation cache: files that \`forget\` could not delete: ${kept}`);
    }
    return entries.length - kept;
  }

  /** Resolves when each save that has begun has ended. */
  async settled(): Promise<void> {
    await Promise.all([...this.#saves].map(({ ended }) => ended));
  }

  /** Waits for saves in progress. */
  async close(): Promise<void> {
    clearInterval(this.#sweeping);
    await this.#watcher.close();
    await this.settled();
  }

  async #evict(keep?: string): Promise<void> {
    const budget: DirectoryBudget = { maxDiskBytes: this.#maxBytes, maxAgeMs: this.options.maxAgeMs };
    await this.disk.evict(budget, await this.disk.index.refresh(), keep);
    for (const name of this.#withKnownReplies) {
      if (this.disk.index.get(name) === undefined) {
        this.#withKnownReplies.delete(name); // otherwise the set would grow without a limit
      }
    }
  }

  /**
   * How many bytes this process may still write within the hour. One-off requests may write only until half of the
   * budget is used.
   */
  #allowedBytes(isOneOff: boolean): number {
    const since = performance.now() - HOUR_MS;
    this.#written = this.#written.filter(({ at }) => at > since);
    const maxBytes = this.options.maxBytesPerHour / (isOneOff ? 2 : 1);
    return maxBytes - this.#written.reduce((sum, { bytes }) => sum + bytes, 0);
  }
}

function markOf({ tokens, promptTokens, isOneOff, tenant, affinity }: UnsavedConversation): ConversationMark {
  const salt = randomBytes(16).toString('hex');
  return {
    promptTokens,
    promptHash: prefixHashes(tokens.subarray(0, promptTokens))[promptTokens] as number,
    isOneOff,
    salt,
    ...(tenant !== undefined && { tenant: digest(salt, tenant) }),
    ...(affinity !== undefined && { affinity: digest(salt, affinity) }),
  };
}

/** The last records whose JSON has at most `bytes` bytes in total. */
function newestWithin(bytes: number, records: readonly unknown[]): readonly unknown[] {
  let left = bytes;
  const from = records.findLastIndex((record) => {
    left -= Buffer.byteLength(JSON.stringify(record));
    return left < 0;
  });
  return records.slice(from + 1);
}

function jsonDigest(records: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(records)).digest('hex');
}

function digest(salt: string, name: string): string {
  return createHash('sha256').update(`${salt}\0${name}`).digest('hex');
}

function matches(mark: ConversationMark, { tenant, affinity }: ForgetOptions): boolean {
  return (
    (tenant === undefined || mark.tenant === digest(mark.salt, tenant)) &&
    (affinity === undefined || mark.affinity === digest(mark.salt, affinity))
  );
}

/**
 * Whether some tokens continue the conversation with this mark.
 *
 * @param hashes the hashes of the prefixes of the tokens
 */
export function hasMark(hashes: Uint32Array, { promptTokens, promptHash }: ConversationMark): boolean {
  return promptTokens < hashes.length && hashes[promptTokens] === promptHash;
}
