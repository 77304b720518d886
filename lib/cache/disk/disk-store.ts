// The disk tier: one file for each entry. See docs/design/template-cache.md, "The disk entry".
import { lstat, rm, stat, utimes } from 'node:fs/promises';
import { LRUCache } from 'lru-cache';
import { HeadstartError } from '../../errors.js';
import { moveIntoPlace, writeFailure } from '../../files.js';
import { SequenceState } from '../../native/state.js';
import { sameTokens } from '../../tokens.js';
import { ENTRY_FORMAT } from '../key.js';
import { hashPrefixes } from '../prefix-hash.js';
import type { CacheDirectory } from './cache-directory.js';
import { type DirectoryIndex, indexedEntry } from './directory-index.js';
import type { EntryMetadata, EntryNames, IndexedEntry } from './entry.js';
import { type DirectoryBudget, entriesOverBudget, withLastUse } from './eviction.js';

/**
 * The state of an entry, or the reason why the entry cannot be used. The reason is `absent`, or a text that begins with
 * `foreign`, `corrupt` or `unreadable`.
 */
export type DiskLookup =
  | { state: SequenceState; bytes: number; prefillMs: number }
  | { state: undefined; reason: string; corrupt: boolean };

/** Minimum time between two updates of an entry's modification time, ms. */
const TOUCH_MS = 60_000;
const MAX_TOUCHED = 1024;

export class DiskStore {
  readonly directory: CacheDirectory;
  readonly index: DirectoryIndex;
  readonly names: EntryNames;
  /** For each key: the time of the last write by {@link touch}, ms since the epoch. */
  readonly #touched = new LRUCache<string, number>({ max: MAX_TOUCHED });
  readonly #onCorrupt: (key: string, reason: string) => void;

  constructor(directory: CacheDirectory, index: DirectoryIndex, onCorrupt: (key: string, reason: string) => void) {
    this.directory = directory;
    this.index = index;
    this.names = index.names;
    this.#onCorrupt = onCorrupt;
  }

  /**
   * Reads an entry, verifies its checksum, and compares its key and all of its tokens.
   *
   * @throws HeadstartError `ABORTED`, `CLOSED`. All other failures are part of the result.
   */
  async read(key: string, tokens: Int32Array, signal?: AbortSignal): Promise<DiskLookup> {
    const lookup = await this.#readName(this.names.short(key), key, signal);
    if (lookup.state !== undefined && !sameTokens(lookup.state.tokens, tokens)) {
      lookup.state.close();
      return this.#setAside(this.names.short(key), key, 'its tokens differ from those of the template');
    }
    return lookup;
  }

  /** Size in bytes of the largest file that {@link read} may read; 0 if there is none. */
  async sizeOf(key: string): Promise<number> {
    const indexed = this.index.get(this.nameOf(key));
    if (indexed !== undefined) {
      return indexed.bytes;
    }
    const paths = [this.names.short(key), this.names.full(key)].map((name) => this.directory.join(name));
    const files = await Promise.all(paths.map((path) => stat(path).catch(() => undefined)));
    return Math.max(...files.map((file) => file?.size ?? 0));
  }

  /** Reads an entry of the index. Unlike {@link read}, does not compare the tokens: the caller must do that. */
  readEntry({ name, key }: IndexedEntry, signal?: AbortSignal): Promise<DiskLookup> {
    return this.#readName(name, key, signal);
  }

  /**
   * Reads an entry completely, and lets `judge` check its metadata and tokens. Sets a damaged entry aside.
   *
   * @returns undefined if the entry was deleted or cannot be read
   */
  async verify(
    name: string,
    signal: AbortSignal | undefined,
    judge: (metadata: Partial<EntryMetadata>, tokens: Int32Array) => 'intact' | 'corrupt' | 'foreign',
  ): Promise<{ verdict: 'intact' | 'corrupt' | 'foreign'; bytes: number } | undefined> {
    const key = this.index.get(name)?.key ?? '';
    try {
      const state = await SequenceState.readFile(this.directory.join(name), { signal });
      const bytes = state.byteLength;
      const verdict = judge(state.metadata as Partial<EntryMetadata>, state.tokens);
      state.close();
      if (verdict === 'corrupt') {
        await this.#setAside(name, key, 'its key does not match its tokens');
      }
      return { verdict, bytes };
    } catch (error) {
      const lookup = this.#explain(error, name);
      if (lookup.state !== undefined || lookup.reason === 'absent' || lookup.reason.startsWith('unreadable')) {
        return undefined;
      }
      if (lookup.corrupt) {
        await this.#setAside(name, key, lookup.reason);
      }
      return { verdict: lookup.corrupt ? 'corrupt' : 'foreign', bytes: 0 };
    }
  }

  /**
   * Saves a state in one file. If the save fails, the existing entries do not change.
   *
   * @param beforeRename called when the file is complete and still has its temporary name. May refuse the save.
   * @returns the file's size in bytes
   * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`, `ABORTED`.
   */
  async write(
    state: SequenceState,
    metadata: Omit<EntryMetadata, 'format' | 'createdAt' | 'prefix'>,
    { signal, beforeRename }: { signal?: AbortSignal; beforeRename?: () => Promise<void> } = {},
  ): Promise<number> {
    await this.directory.make();
    const { tokens } = state;
    const createdAt = new Date().toISOString();
    const footer = { ...metadata, format: ENTRY_FORMAT, createdAt, prefix: hashPrefixes(tokens) };
    const name = await this.#nameFor(metadata.key);
    const bytes = await this.directory.replace(name, async (temporary) => {
      await this.directory.requireFreeSpace(state.byteLength);
      const bytes = await state.writeFile(temporary, footer, { signal });
      await beforeRename?.();
      return bytes;
    });
    const entry = indexedEntry(name, footer, tokens.length, bytes);
    if (entry !== undefined) {
      await this.index.add(entry);
    }
    return bytes;
  }

  /**
   * Makes a complete and verified file an entry.
   *
   * @param temporary the path of the file, in this directory
   * @returns the name of the entry
   * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
   */
  async adopt(temporary: string, metadata: EntryMetadata, tokens: number): Promise<string> {
    const name = await this.#nameFor(metadata.key);
    const path = this.directory.join(name);
    await moveIntoPlace(temporary, path).catch((error) => {
      throw writeFailure(error, path);
    });
    const { size } = await stat(path);
    const entry = indexedEntry(name, metadata, tokens, size);
    if (entry !== undefined) {
      await this.index.add(entry);
    }
    return name;
  }

  /**
   * Sets the modification time of the entry's file to now, because eviction takes it as the time of the last use.
   * Writes the time in the background, at most once a minute.
   */
  touch(key: string): void {
    const now = Date.now();
    if (Math.abs(now - (this.#touched.get(key) ?? 0)) > TOUCH_MS) {
      this.#touched.set(key, now);
      setLastUse(this.directory.join(this.nameOf(key)), now).catch(() => undefined);
    }
  }

  /** The file name of the key's entry. If the entry does not exist, the short name. */
  nameOf(key: string): string {
    const full = this.names.full(key);
    return this.index.get(full) === undefined ? this.names.short(key) : full;
  }

  /** Deletes the file of an entry. A process that has already opened the file can finish reading it. */
  async delete(name: string): Promise<void> {
    this.index.delete(name);
    await rm(this.directory.join(name), { force: true, recursive: true }).catch(() => undefined);
    this.index.delete(name); // a refresh may have added the entry again in between
  }

  /**
   * Deletes the entries that exceed a budget.
   *
   * @param names all file names in the directory
   * @param keep the name of an entry that must stay
   * @returns the deleted entries
   */
  async evict(budget: DirectoryBudget, names: readonly string[], keep?: string): Promise<IndexedEntry[]> {
    const entries = await withLastUse(this.directory, this.index.values(), new Set(names));
    const toDelete = entriesOverBudget(entries, budget, Date.now(), keep);
    for (const { name } of toDelete) {
      await this.delete(name);
    }
    return toDelete;
  }

  /** A text that changes when the file with the short name is replaced. Empty if the file does not exist. */
  async identity(key: string): Promise<string> {
    const stats = await lstat(this.directory.join(this.names.short(key)), { bigint: true }).catch(() => undefined);
    return stats === undefined ? '' : `${stats.ino} ${stats.mtimeNs} ${stats.size}`;
  }

  async #readName(name: string, key: string, signal: AbortSignal | undefined): Promise<DiskLookup> {
    const first = await this.#tryRead(name, key, signal);
    if (first.state === undefined && first.corrupt) {
      // Another process may have set the damaged file aside and saved a new file. The new file must not be set aside,
      // so read again.
      const before = await lstat(this.directory.join(name)).catch(() => undefined);
      const second = await this.#tryRead(name, key, signal);
      if (second.state !== undefined || !second.corrupt) {
        return second;
      }
      const after = await lstat(this.directory.join(name)).catch(() => undefined);
      return before?.ino === after?.ino ? this.#setAside(name, key, second.reason) : second;
    }
    if (first.state === undefined && first.reason.startsWith('foreign') && name !== this.names.full(key)) {
      const full = await this.#readName(this.names.full(key), key, signal);
      return full.state === undefined && full.reason === 'absent' ? first : full;
    }
    return first;
  }

  async #tryRead(name: string, key: string, signal: AbortSignal | undefined): Promise<DiskLookup> {
    try {
      const state = await SequenceState.readFile(this.directory.join(name), { signal });
      const { key: entryKey, format, prefillMs } = state.metadata as Partial<EntryMetadata>;
      if (format === ENTRY_FORMAT && entryKey === key) {
        return { state, bytes: state.byteLength, prefillMs: Number(prefillMs) || 0 };
      }
      state.close();
      return { state: undefined, reason: 'foreign: the entry belongs to another configuration', corrupt: false };
    } catch (error) {
      return this.#explain(error, name);
    }
  }

  #explain(error: unknown, name: string): DiskLookup {
    if (HeadstartError.isInstance(error, 'ABORTED') || HeadstartError.isInstance(error, 'CLOSED')) {
      throw error;
    }
    if (HeadstartError.isInstance(error, 'ENTRY_MISSING')) {
      this.index.delete(name);
      return { state: undefined, reason: 'absent', corrupt: false };
    }
    if (HeadstartError.isInstance(error, 'ENTRY_FOREIGN')) {
      return { state: undefined, reason: `foreign: ${error.message}`, corrupt: false };
    }
    const message = error instanceof Error ? error.message : String(error);
    return HeadstartError.isInstance(error, 'ENTRY_CORRUPT')
      ? { state: undefined, reason: `corrupt: ${message}`, corrupt: true }
      : { state: undefined, reason: `unreadable: ${message}`, corrupt: false };
  }

  async #setAside(name: string, key: string, why: string): Promise<DiskLookup> {
    this.index.delete(name);
    await this.directory.setAside(name);
    const reason = why.startsWith('corrupt: ') ? why : `corrupt: ${why}`;
    this.#onCorrupt(key, reason);
    return { state: undefined, reason, corrupt: true };
  }

  /** The name for a new entry: the short name, unless an intact entry of another key or version has this name. */
  async #nameFor(key: string): Promise<string> {
    const short = this.names.short(key);
    try {
      const existing = (await SequenceState.readMetadata(this.directory.join(short))) as Partial<EntryMetadata>;
      return existing.key === key && existing.format === ENTRY_FORMAT ? short : this.names.full(key);
    } catch (error) {
      return HeadstartError.isInstance(error, 'ENTRY_FOREIGN') ? this.names.full(key) : short;
    }
  }
}

/**
 * Sets the time of the last use, but never to an earlier time than before. Otherwise, after the clock was set back, the
 * most recently used entry would be evicted first.
 */
async function setLastUse(path: string, now: number): Promise<void> {
  const { mtimeMs } = await stat(path);
  if (mtimeMs < now) {
    const date = new Date(now);
    await utimes(path, date, date);
  }
}
