// The file name and footer of an entry. See docs/design/template-cache.md, "The disk entry".
import type { KeyComponents } from '../key.js';
import type { PrefixHashes } from '../prefix-hash.js';

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
}

const PIN_NAME = /^template_([0-9a-f]{64})\.pin$/;
const ENTRY_NAME = /^template_[0-9a-f]{16}([0-9a-f]{48})?\.kv$/;

export function isEntryName(name: string): boolean {
  return ENTRY_NAME.test(name);
}

/** The short name of an entry, with the first 16 digits of its key. */
export function entryName(key: string): string {
  return `template_${key.slice(0, 16)}.kv`;
}

/** The name that an entry gets if an entry of another key already has the short name. */
export function fullEntryName(key: string): string {
  return `template_${key}.kv`;
}

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
