// The disk tier: one file an entry, written beside and renamed. See docs/design/template-cache.md, "The disk entry".
import { lstat, rm, stat, utimes } from 'node:fs/promises';
import { LRUCache } from 'lru-cache';
import { HeadstartError } from '../../errors.js';
import { SequenceState } from '../../native/state.js';
import { sameTokens } from '../../tokens.js';
import { ENTRY_FORMAT } from '../key.js';
import { hashPrefixes } from '../prefix-hash.js';
import type { CacheDirectory } from './cache-directory.js';
import { type DirectoryIndex, indexedEntry } from './directory-index.js';
import { type EntryMetadata, entryName, fullEntryName, type IndexedEntry } from './entry.js';

/** Found, or why not: `absent`, or a reason that names what was wrong. */
export type DiskLookup =
  | { state: SequenceState; bytes: number; prefillMs: number }
  | { state: undefined; reason: string; corrupt: boolean };

/** A use is noted on the file at most this often. */
const TOUCH_MS = 60_000;
const MAX_TOUCHED = 1024;

export class DiskStore {
  readonly directory: CacheDirectory;
  readonly index: DirectoryIndex;
  /** When a use of each entry was last written to its file. */
  readonly #touched = new LRUCache<string, number>({ max: MAX_TOUCHED });
  readonly #onCorrupt: (key: string, reason: string) => void;

  constructor(directory: CacheDirectory, index: DirectoryIndex, onCorrupt: (key: string, reason: string) => void) {
    this.directory = directory;
    this.index = index;
    this.#onCorrupt = onCorrupt;
  }

  /** Reads, verifies and compares: the key whole, and the tokens one by one. Throws `ABORTED` and `CLOSED` alone. */
  async read(key: string, tokens: Int32Array, signal?: AbortSignal): Promise<DiskLookup> {
    const found = await this.#readName(entryName(key), key, signal);
    if (found.state !== undefined && !sameTokens(found.state.tokens, tokens)) {
      found.state.close();
      return this.#setAside(entryName(key), key, "its tokens are not the template's");
    }
    return found;
  }

  /** As {@link read}, of an entry that the index names; its tokens are the caller's to compare. */
  readEntry(facts: IndexedEntry, signal?: AbortSignal): Promise<DiskLookup> {
    return this.#readName(facts.name, facts.key, signal);
  }

  /**
   * Reads an entry to its last byte and asks `judge` about the rest; a damaged one is set aside.
   *
   * @returns undefined where it is gone or cannot be read
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
        await this.#setAside(name, key, 'its key is not that of its tokens');
      }
      return { verdict, bytes };
    } catch (error) {
      const found = this.#explain(error, name);
      if (found.state !== undefined || found.reason === 'absent' || found.reason.startsWith('unreadable')) {
        return undefined;
      }
      if (found.corrupt) {
        await this.#setAside(name, key, found.reason);
      }
      return { verdict: found.corrupt ? 'corrupt' : 'foreign', bytes: 0 };
    }
  }

  /**
   * Saves a state as one whole file, or leaves the directory as it was.
   *
   * @returns the file's size in bytes
   * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
   */
  async write(state: SequenceState, metadata: Omit<EntryMetadata, 'prefix'>): Promise<number> {
    await this.directory.make();
    const { tokens } = state;
    const whole = { ...metadata, prefix: hashPrefixes(tokens) };
    const name = await this.#nameFor(metadata.key);
    const bytes = await this.directory.replace(name, async (temporary) => {
      await this.directory.requireRoom(state.byteLength);
      return state.writeFile(temporary, whole);
    });
    const facts = indexedEntry(name, whole, tokens.length, bytes);
    if (facts !== undefined) {
      await this.index.add(facts);
    }
    return bytes;
  }

  /** Notes a use of the entry on its file, for eviction by last use: now and then, and without waiting. */
  touch(key: string): void {
    const now = Date.now();
    if (Math.abs(now - (this.#touched.get(key) ?? 0)) > TOUCH_MS) {
      this.#touched.set(key, now);
      noteUse(this.directory.join(this.nameOf(key)), now).catch(() => undefined);
    }
  }

  /** The name that the entry has, or would get. */
  nameOf(key: string): string {
    const full = fullEntryName(key);
    return this.index.get(full) === undefined ? entryName(key) : full;
  }

  /** Deletes entries' files. A process that reads one meanwhile reads on. */
  async delete(name: string): Promise<void> {
    this.index.delete(name);
    await rm(this.directory.join(name), { force: true, recursive: true }).catch(() => undefined);
    this.index.delete(name); // whoever looked meanwhile may have seen it
  }

  /** Whether the entry's file is another than it was: what who waits for another process looks at. */
  async identity(key: string): Promise<string> {
    const facts = await lstat(this.directory.join(entryName(key)), { bigint: true }).catch(() => undefined);
    return facts === undefined ? '' : `${facts.ino} ${facts.mtimeNs} ${facts.size}`;
  }

  async #readName(name: string, key: string, signal: AbortSignal | undefined): Promise<DiskLookup> {
    const first = await this.#tryRead(name, key, signal);
    if (first.state === undefined && first.corrupt) {
      // Once more: meanwhile another process may have set it aside and saved it anew, which must not be thrown away.
      const before = await lstat(this.directory.join(name)).catch(() => undefined);
      const second = await this.#tryRead(name, key, signal);
      if (second.state !== undefined || !second.corrupt) {
        return second;
      }
      const after = await lstat(this.directory.join(name)).catch(() => undefined);
      return before?.ino === after?.ino ? this.#setAside(name, key, second.reason) : second;
    }
    if (first.state === undefined && first.reason.startsWith('foreign') && name !== fullEntryName(key)) {
      const full = await this.#readName(fullEntryName(key), key, signal);
      return full.state === undefined && full.reason === 'absent' ? first : full;
    }
    return first;
  }

  async #tryRead(name: string, key: string, signal: AbortSignal | undefined): Promise<DiskLookup> {
    try {
      const state = await SequenceState.readFile(this.directory.join(name), { signal });
      const { key: foundKey, format, prefillMs } = state.metadata as Partial<EntryMetadata>;
      if (format === ENTRY_FORMAT && foundKey === key) {
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

  /** The short name, unless an intact entry of another key or version has it: that one stays. */
  async #nameFor(key: string): Promise<string> {
    const short = entryName(key);
    try {
      const holder = (await SequenceState.readMetadata(this.directory.join(short))) as Partial<EntryMetadata>;
      return holder.key === key && holder.format === ENTRY_FORMAT ? short : fullEntryName(key);
    } catch (error) {
      return HeadstartError.isInstance(error, 'ENTRY_FOREIGN') ? fullEntryName(key) : short;
    }
  }
}

/** Never backwards: a clock that jumped back would make the newest use the oldest. */
async function noteUse(path: string, now: number): Promise<void> {
  const { mtimeMs } = await stat(path);
  if (mtimeMs < now) {
    const date = new Date(now);
    await utimes(path, date, date);
  }
}
