// The file name and footer of an entry. See docs/design/template-cache.md, "The disk entry".
import type { KeyComponents } from '../key.js';
import type { PrefixHashes } from '../prefix-hash.js';
import { isOwnerDigests, type OwnerDigests } from './owner-digests.js';

/** The metadata in the footer of an entry. The addon adds the token count, sizes and compatibility. */
export interface EntryMetadata {
  /** See `ENTRY_FORMAT`. */
  format: number;
  /** The full key. The short file name contains only 16 of its 64 digits. */
  key: string;
  components: KeyComponents;
  /** The time of the save, in ISO 8601. */
  createdAt: string;
  /** Duration of the prefill that this entry replaces, ms. */
  prefillMs: number;
  /** The hashes for the index, so that the index can be rebuilt from the footers. */
  prefix?: PrefixHashes;
  /** Present in entries of conversations. */
  conversation?: ConversationMark;
  /** Present in entries of conversations. */
  replies?: SavedReplies;
}

/** The replies of a conversation as they were sampled. */
export interface SavedReplies {
  /** JSON data: see `SampledReply`. */
  records: readonly unknown[];
  /** SHA-256 of the JSON, hex, because the replies are read without the rest of the file and its checksum. */
  digest: string;
}

/** What an entry of a conversation contains in addition to the data of a template. */
export interface ConversationMark extends OwnerDigests {
  /**
   * The first tokens of the entry, up to the end of the message that began the newest turn. A later state of the
   * conversation begins with these tokens.
   */
  promptTokens: number;
  /** Hash of these tokens, as in `PrefixHashes`. */
  promptHash: number;
  /** Whether no later request had continued the conversation when it was saved. Such entries are evicted first. */
  isOneOff: boolean;
}

export function isConversationMark(value: unknown): value is ConversationMark {
  const { promptTokens, promptHash, isOneOff } = (value ?? {}) as Partial<ConversationMark>;
  return [promptTokens, promptHash].every(Number.isFinite) && typeof isOneOff === 'boolean' && isOwnerDigests(value);
}

/** The data of one entry in the index. */
export interface IndexedEntry extends PrefixHashes {
  name: string;
  key: string;
  /** Hash of all key components: see `groupOf`. */
  group: string;
  /** Size of the file in bytes. */
  bytes: number;
  createdAt: string;
  prefillMs: number;
  conversation?: ConversationMark;
}

const PIN_NAME = /^template_([0-9a-f]{64})\.pin$/;

/** The file names of one kind of entries. */
export class EntryNames {
  readonly kind: 'template' | 'conversation';
  readonly #entry: RegExp;

  constructor(kind: 'template' | 'conversation') {
    this.kind = kind;
    this.#entry = new RegExp(`^${kind}_[0-9a-f]{16}([0-9a-f]{48})?\\.kv$`);
  }

  isEntry(name: string): boolean {
    return this.#entry.test(name);
  }

  /** The short name of an entry, with the first 16 digits of its key. */
  short(key: string): string {
    return `${this.kind}_${key.slice(0, 16)}.kv`;
  }

  /** The name that an entry gets if an entry of another key already has the short name. */
  full(key: string): string {
    return `${this.kind}_${key}.kv`;
  }
}

export const TEMPLATE_NAMES = new EntryNames('template');
export const CONVERSATION_NAMES = new EntryNames('conversation');

/** The name of the file that protects an entry from eviction. */
export function pinName(key: string): string {
  return `template_${key}.pin`;
}

/** The key that a pin file protects. Undefined for other files. */
export function pinnedKey(name: string): string | undefined {
  return PIN_NAME.exec(name)?.[1];
}

/** The name of the lock file that a process holds while it prefills and saves the template. */
export function lockName(key: string): string {
  return `template_${key}.lock`;
}
