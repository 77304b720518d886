// Conversations on disk: one file for the newest state of each conversation. See docs/design/template-cache.md,
// "Conversations on disk".
import { rm } from 'node:fs/promises';
import { throwIfAborted } from '../abort.js';
import type { DatedContents, ForgetCalls, IsForgotten } from '../engine/forget-calls.js';
import type { ContentsCopy } from '../engine/sequence-states.js';
import { HeadstartError } from '../errors.js';
import type { Logger } from '../logger.js';
import { SequenceState } from '../native/state.js';
import { defaultConversationBytes, type ResolvedConversationOptions } from './conversation-options.js';
import type { CacheDirectory } from './disk/cache-directory.js';
import { DirectoryIndex } from './disk/directory-index.js';
import { DirectoryWatcher } from './disk/directory-watcher.js';
import { DiskStore } from './disk/disk-store.js';
import { CONVERSATION_NAMES, type ConversationMark, type IndexedEntry, isConversationMark } from './disk/entry.js';
import type { DirectoryBudget } from './disk/eviction.js';
import { ForgetNotices } from './disk/forget-notices.js';
import { digestsOf, hasNames } from './disk/owner-digests.js';
import { type ForgetOptions, isOf } from './forget-options.js';
import type { Keyring } from './key.js';
import { RunningMean } from './prefill-estimate.js';
import { prefixHashes } from './prefix-hash.js';
import { StoredReplies, savedReplies } from './stored-replies.js';

/** Conversations on disk. */
export interface ConversationsStatus {
  /** Number of conversations in the cache directory, including those of other models and processes. */
  count: number;
  /** Their size in bytes. */
  bytes: number;
  /** The budget: `cache.conversations.maxBytes`. */
  maxBytes: number;
}

/** A conversation to save. */
export interface UnsavedConversation extends DatedContents {
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
/** The assumed duration of a write and a read before the first measurement, ms per byte. */
const ASSUMED_WRITE_MS = 5e-6;
const ASSUMED_READ_MS = 1e-6;
/** A conversation is saved again if it has grown by this many tokens, or by {@link MIN_GROWTH} of its length. */
const MIN_GROWN_TOKENS = 2048;
const MIN_GROWTH = 0.25;

export interface ConversationStoreParts {
  directory: CacheDirectory;
  options: ResolvedConversationOptions;
  forgets: ForgetCalls;
  /** Called when another process that uses the directory has forgotten conversations. */
  onForgotten: (isForgotten: IsForgotten) => void;
  logger: Logger | undefined;
}

export class ConversationStore {
  readonly disk: DiskStore;
  readonly options: ResolvedConversationOptions;
  /** Undefined if replies are not kept. */
  replies: ReplyRecords | undefined;
  readonly #storedReplies: StoredReplies;
  readonly #forgets: ForgetCalls;
  readonly #notices: ForgetNotices;
  readonly #logger: Logger | undefined;
  readonly #watcher: DirectoryWatcher;
  readonly #saves = new Set<Save>();
  readonly #writeMs = new RunningMean();
  readonly #readMs = new RunningMean();
  /** The writes of the last hour. */
  #written: { at: number; bytes: number }[] = [];
  #maxBytes = 0;
  #sweeping: NodeJS.Timeout | undefined;

  constructor({ directory, options, forgets, onForgotten, logger }: ConversationStoreParts) {
    this.options = options;
    this.#forgets = forgets;
    const index = new DirectoryIndex(directory, CONVERSATION_NAMES);
    this.disk = new DiskStore(directory, index, (_, reason) =>
      logger?.('warn', `conversation cache: entry set aside, ${reason}`),
    );
    this.#storedReplies = new StoredReplies(this.disk, forgets);
    this.#notices = new ForgetNotices(directory, (isForgotten) => {
      onForgotten(isForgotten);
      this.#storedReplies.reset();
    });
    index.onListed = (names) => this.#notices.read(names);
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
    const { components } = keyring;
    const metadata = { key, components, prefillMs, conversation: mark, replies: savedReplies(conversation.replies) };
    const begin = performance.now();
    this.#written.push({ at: begin, bytes: state.byteLength });
    const beforeRename = () => this.#requireUnforgotten(conversation, signal);
    const bytes = await this.disk.write(state, metadata, { signal, beforeRename });
    this.#writeMs.add((performance.now() - begin) / bytes);
    const name = this.disk.nameOf(key);
    this.#storedReplies.noteSaved(name);
    for (const entry of this.#superseded(keyring.group, prefixHashes(tokens)).filter((each) => each.name !== name)) {
      await this.disk.delete(entry.name);
    }
    await this.#evict(conversation.isOneOff ? undefined : name); // a one-off request may be deleted right away
  }

  /**
   * Refuses a save whose file would come back after a call of `forget`, in this or in another process. Another process
   * first posts its notice, then deletes temporary files, and then deletes the files of the conversations. So if the
   * notice is later than this check, the other process deletes the file.
   */
  async #requireUnforgotten(conversation: UnsavedConversation, signal: AbortSignal): Promise<void> {
    await this.#notices.read(await this.disk.directory.names());
    throwIfAborted(signal);
    if (this.#forgets.concern(conversation)) {
      throw new HeadstartError('ABORTED', 'Another process has forgotten the conversation');
    }
  }

  /** See {@link StoredReplies.load}. */
  loadReplies(group: string, add: (records: readonly unknown[]) => void): Promise<void> | undefined {
    return this.#storedReplies.load(group, add);
  }

  /** The saved states that a conversation whose tokens have these prefix hashes continues. */
  #superseded(keyGroup: string, hashes: Uint32Array): IndexedEntry[] {
    return [...this.disk.index.values()].filter(
      ({ group: other, conversation }) => other === keyGroup && conversation && hasMark(hashes, conversation),
    );
  }

  /**
   * Deletes the files of conversations, and the files that may belong to any conversation: damaged files, and files that
   * other processes are writing or have left incomplete. Aborts the matching saves of this process.
   *
   * @returns the number of deleted conversations
   */
  forget(options: ForgetOptions): Promise<number> {
    return this.#storedReplies.duringForget(this.#forget(options));
  }

  async #forget(options: ForgetOptions): Promise<number> {
    const matching = [...this.#saves].filter(({ conversation }) => isOf(conversation, options));
    for (const { controller } of matching) {
      controller.abort();
    }
    await Promise.all(matching.map(({ ended }) => ended));
    await this.#post(options);
    await this.#deleteUnknown(await this.disk.directory.names());
    const deleted = await this.#deleteOf(options);
    await this.#post(options); // another process may have read a file after the first notice
    await this.#notices.deleteOld(await this.disk.directory.names());
    return deleted;
  }

  async #post(options: ForgetOptions): Promise<void> {
    await this.#notices.post(options).catch((error: unknown) => {
      this.#logger?.('warn', `conversation cache: \`forget\` could not tell other processes, ${String(error)}`);
    });
  }

  /** Deletes the files of conversations whose owners are unknown. */
  async #deleteUnknown(names: readonly string[]): Promise<void> {
    const { directory } = this.disk;
    await directory.deleteTemporary(names.filter((name) => name.startsWith('conversation_')));
    for (const name of names.filter((each) => /^conversation_.*\.corrupt$/.test(each))) {
      await rm(directory.join(name), { force: true, recursive: true }).catch(() => undefined);
    }
  }

  /** Deletes the files of some conversations. */
  async #deleteOf(options: ForgetOptions): Promise<number> {
    const { index } = this.disk;
    const names = (await index.refresh()).filter((name) => index.names.isEntry(name));
    const isOfOptions = await Promise.all(names.map((name) => this.#isFileOf(name, options)));
    const toDelete = names.filter((_, at) => isOfOptions[at]);
    for (const name of toDelete) {
      await this.disk.delete(name);
    }
    if (toDelete.length > 0) {
      await index.rewrite();
    }
    const left = new Set(toDelete.length === 0 ? [] : await index.refresh());
    const kept = toDelete.filter((name) => left.has(name)).length;
    if (kept > 0) {
      this.#logger?.('warn', `conversation cache: files that \`forget\` could not delete: ${kept}`);
    }
    return toDelete.length - kept;
  }

  /** Whether a file belongs to some conversations. The file decides, because its line in the index may be wrong. */
  async #isFileOf(name: string, options: ForgetOptions): Promise<boolean> {
    try {
      const { conversation } = await SequenceState.readMetadata(this.disk.directory.join(name));
      return !isConversationMark(conversation) || hasNames(conversation, options);
    } catch (error) {
      return HeadstartError.isInstance(error, 'ENTRY_CORRUPT');
    }
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
    this.#storedReplies.dropDeleted();
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

function markOf(conversation: UnsavedConversation): ConversationMark {
  const { tokens, promptTokens, isOneOff } = conversation;
  const promptHash = prefixHashes(tokens.subarray(0, promptTokens))[promptTokens] as number;
  return { promptTokens, promptHash, isOneOff, ...digestsOf(conversation) };
}

/**
 * Whether some tokens continue the conversation with this mark.
 *
 * @param hashes the hashes of the prefixes of the tokens
 */
export function hasMark(hashes: Uint32Array, { promptTokens, promptHash }: ConversationMark): boolean {
  return promptTokens < hashes.length && hashes[promptTokens] === promptHash;
}
