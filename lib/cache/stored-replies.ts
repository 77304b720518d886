import { createHash } from 'node:crypto';
import type { ForgetCalls } from '../engine/forget-calls.js';
import { SequenceState } from '../native/state.js';
import type { DiskStore } from './disk/disk-store.js';
import type { EntryMetadata, IndexedEntry, SavedReplies } from './disk/entry.js';
import { groupOf } from './key.js';

/** Maximum size of the replies in a footer, in bytes. The footer may have 1 MiB. */
const MAX_REPLY_BYTES = 512 * 1024;
/** The maximum number of files whose replies are read at once. The newest files are read. */
const MAX_REPLY_FILES = 256;
/** How often replies are read again because the program called `forget` during the read. */
const MAX_READS = 3;

/** The part of a footer that contains the newest replies. */
export function savedReplies(replies: readonly unknown[]): SavedReplies {
  const records = newestWithin(MAX_REPLY_BYTES, replies);
  return { records, digest: jsonDigest(records) };
}

/** Reads the replies that other processes or earlier runs have saved, once for each file. */
export class StoredReplies {
  readonly #disk: DiskStore;
  readonly #forgets: ForgetCalls;
  /** Names of the files whose replies are known. */
  readonly #known = new Set<string>();
  /** The reads in progress, by key group. */
  readonly #loading = new Map<string, Promise<void>>();
  /** Settles when no call of `forget` is deleting files. */
  #forgetting: Promise<unknown> = Promise.resolve();

  constructor(disk: DiskStore, forgets: ForgetCalls) {
    this.#disk = disk;
    this.#forgets = forgets;
  }

  /** Call it when this process saves a file. */
  noteSaved(name: string): void {
    this.#known.add(name);
  }

  /** Reads all files again at the next {@link load}. Call it when all replies from files were dropped. */
  reset(): void {
    this.#known.clear();
  }

  /** Forgets the names of deleted files, because the set would otherwise grow without a limit. */
  dropDeleted(): void {
    for (const name of this.#known) {
      if (this.#disk.index.get(name) === undefined) {
        this.#known.delete(name);
      }
    }
  }

  /** Waits for a call of `forget` that deletes files. Until then, no replies are read. */
  async duringForget<T>(deleting: Promise<T>): Promise<T> {
    const ended = deleting.finally(() => this.reset());
    this.#forgetting = Promise.allSettled([this.#forgetting, ended]);
    return ended;
  }

  /**
   * Adds the replies of the files that were not read yet.
   *
   * @returns undefined at once if there are no such files
   */
  load(group: string, add: (records: readonly unknown[]) => void): Promise<void> | undefined {
    if (!this.#loading.has(group) && this.#unread(group).length > 0) {
      const loading = this.#load(group, add).finally(() => this.#loading.delete(group));
      this.#loading.set(group, loading);
    }
    return this.#loading.get(group);
  }

  /** The replies are not added if the program called `forget` during the read: some of them may be forgotten. */
  async #load(group: string, add: (records: readonly unknown[]) => void): Promise<void> {
    for (let reads = 0; reads < MAX_READS; reads++) {
      await this.#forgetting;
      const { count } = this.#forgets;
      const entries = this.#unread(group);
      const records = await this.#read(entries, group);
      if (count === this.#forgets.count) {
        for (const { name } of entries) {
          this.#known.add(name);
        }
        add(records);
        return;
      }
    }
  }

  #unread(group: string): IndexedEntry[] {
    return [...this.#disk.index.values()].filter((entry) => entry.group === group && !this.#known.has(entry.name));
  }

  async #read(entries: readonly IndexedEntry[], group: string): Promise<readonly unknown[]> {
    const newest = [...entries].sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1)).slice(0, MAX_REPLY_FILES);
    const records = await Promise.all(newest.map(({ name }) => this.#recordsOf(name, group).catch(() => [])));
    return records.flat();
  }

  /** The group of the file decides, because the line in the index may be wrong. */
  async #recordsOf(name: string, group: string): Promise<readonly unknown[]> {
    const metadata = await SequenceState.readMetadata(this.#disk.directory.join(name));
    const { components, replies } = metadata as unknown as EntryMetadata;
    const isValid = replies !== undefined && groupOf(components) === group && Array.isArray(replies.records);
    return isValid && jsonDigest(replies.records) === replies.digest ? replies.records : [];
  }
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
