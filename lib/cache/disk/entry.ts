// An entry's file name and what its footer says. See docs/design/template-cache.md, "The disk entry".
import type { KeyComponents } from '../key.js';
import type { PrefixHashes } from '../prefix-hash.js';

/** What a saved entry says about itself, beside the token count, sizes and compatibility that the addon adds. */
export interface EntryMetadata {
  format: number;
  /** Full key: the file's name holds 16 of its 64 digits. */
  key: string;
  components: KeyComponents;
  /** ISO 8601. */
  createdAt: string;
  /** What this entry saves. */
  prefillMs: number;
  /** What the index is rebuilt from. */
  prefix?: PrefixHashes;
}

/** What the index knows of an entry's file. */
export interface IndexedEntry extends PrefixHashes {
  name: string;
  key: string;
  /** Of all key components: see `groupOf`. */
  group: string;
  /** Size of the file. */
  bytes: number;
  createdAt: string;
  prefillMs: number;
}

const PIN_NAME = /^template_([0-9a-f]{64})\.pin$/;
const ENTRY_NAME = /^template_[0-9a-f]{16}([0-9a-f]{48})?\.kv$/;

export function isEntryName(name: string): boolean {
  return ENTRY_NAME.test(name);
}

/** The name that a hit opens. */
export function entryName(key: string): string {
  return `template_${key.slice(0, 16)}.kv`;
}

/** For an entry whose short name belongs to another key. */
export function fullEntryName(key: string): string {
  return `template_${key}.kv`;
}

/** A file beside the entry that keeps it from eviction. */
export function pinName(key: string): string {
  return `template_${key}.pin`;
}

/** The key that a pin protects; undefined for other files. */
export function pinnedKey(name: string): string | undefined {
  return PIN_NAME.exec(name)?.[1];
}

/** Held while a process prefills and saves the template. */
export function lockName(key: string): string {
  return `template_${key}.lock`;
}
