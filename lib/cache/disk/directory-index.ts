// An index of the entries in the directory, so that the entries need not be opened one by one. The index is a file with
// one line for each entry. A line contains data from the footer of its entry. Each save appends a line, and missing
// lines are rebuilt. The cache needs the index to find the nearest template, and for statistics and budgets. A start
// with a known key does not need the index. If the index and an entry disagree, the entry counts.
import { appendFile, open, rm, stat } from 'node:fs/promises';
import { SequenceState } from '../../native/state.js';
import { groupOf } from '../key.js';
import type { CacheDirectory } from './cache-directory.js';
import { type EntryMetadata, type EntryNames, type IndexedEntry, isConversationMark, TEMPLATE_NAMES } from './entry.js';

/**
 * The index of each kind of entries. The name contains the version of the line format. A package version with another
 * format uses another file.
 */
const INDEX_NAMES = { template: 'index-1.jsonl', conversation: 'conversations-1.jsonl' } as const;
/** If the file has more lines of deleted entries than this number, it is rewritten without these lines. */
const MAX_DEAD_LINES = 256;
const SCAN_CONCURRENCY = 16;

export class DirectoryIndex {
  readonly names: EntryNames;
  readonly #directory: CacheDirectory;
  readonly #entries = new Map<string, IndexedEntry>();
  /** Names of files that are not valid entries. The names are remembered, so that each file is read only once. */
  readonly #invalid = new Set<string>();
  #tokens = 0;
  #bytes = 0;
  /** The offset up to which the index file was read. */
  #offset = 0;
  #inode = 0n;
  #lines = 0;
  /** The newest refresh. Refreshes run one after another, because they share the offset. */
  #refreshing: Promise<unknown> = Promise.resolve();
  /**
   * Names of files that this process saved or deleted since the current refresh began. The refresh ignores these
   * files, because it may have listed the directory before the changes.
   */
  readonly #changed = new Set<string>();

  /** Called after each listing of the directory, with all file names. */
  onListed: ((names: readonly string[]) => void) | undefined;

  /** @param names the kind of the entries */
  constructor(directory: CacheDirectory, names = TEMPLATE_NAMES) {
    this.#directory = directory;
    this.names = names;
  }

  get size(): number {
    return this.#entries.size;
  }

  get totalTokens(): number {
    return this.#tokens;
  }

  get totalBytes(): number {
    return this.#bytes;
  }

  values(): IterableIterator<IndexedEntry> {
    return this.#entries.values();
  }

  get(name: string): IndexedEntry | undefined {
    return this.#entries.get(name);
  }

  /**
   * Lists the directory to find the entries that other processes saved or deleted.
   *
   * @returns all file names in the directory
   */
  refresh(): Promise<string[]> {
    return this.#oneAtATime(() => this.#refresh());
  }

  /**
   * Reads the lines that other processes have appended since the last refresh. Does not list the directory, and so does
   * not notice deleted entries.
   */
  readTail(): Promise<void> {
    return this.#oneAtATime(async () => this.#addLines(await this.#readLines(), () => true));
  }

  /** Call this after a save. */
  async add(entry: IndexedEntry): Promise<void> {
    this.#changed.add(entry.name);
    this.#set(entry);
    await this.#append([entry]);
  }

  /** Call this before and after the deletion of a file, and if a file is missing. */
  delete(name: string): void {
    this.#changed.add(name);
    this.#remove(name);
  }

  #oneAtATime<Result>(refresh: () => Promise<Result>): Promise<Result> {
    const result = this.#refreshing.then(() => {
      this.#changed.clear();
      return refresh();
    });
    this.#refreshing = result.catch(() => undefined);
    return result;
  }

  async #refresh(): Promise<string[]> {
    const names = await this.#directory.names();
    const present = new Set(names.filter((name) => this.names.isEntry(name)));
    this.#addLines(await this.#readLines(), (name) => present.has(name));
    for (const name of [...this.#entries.keys()]) {
      if (!present.has(name) && !this.#changed.has(name)) {
        this.#remove(name);
      }
    }
    const unknown = [...present].filter((name) => !this.#entries.has(name) && !this.#invalid.has(name));
    await this.#readFooters(unknown);
    if (this.#lines > this.#entries.size + MAX_DEAD_LINES && this.#lines > 2 * this.#entries.size) {
      await this.rewrite();
    }
    this.onListed?.(names);
    return names;
  }

  #addLines(lines: readonly IndexedEntry[], isPresent: (name: string) => boolean): void {
    for (const entry of lines) {
      if (isPresent(entry.name) && !this.#changed.has(entry.name)) {
        this.#set(entry);
      }
    }
  }

  #remove(name: string): void {
    const entry = this.#entries.get(name);
    if (entry !== undefined) {
      this.#entries.delete(name);
      this.#tokens -= entry.tokens;
      this.#bytes -= entry.bytes;
    }
  }

  #set(entry: IndexedEntry): void {
    this.#remove(entry.name);
    this.#invalid.delete(entry.name);
    this.#entries.set(entry.name, entry);
    this.#tokens += entry.tokens;
    this.#bytes += entry.bytes;
  }

  /** Reads the lines that were appended since the last refresh. */
  async #readLines(): Promise<IndexedEntry[]> {
    const file = await open(this.#path, 'r').catch(() => undefined);
    if (file === undefined) {
      return [];
    }
    try {
      const { ino, size } = await file.stat({ bigint: true });
      if (ino !== this.#inode || Number(size) < this.#offset) {
        this.#inode = ino;
        this.#offset = 0;
        this.#lines = 0;
      }
      const buffer = Buffer.alloc(Number(size) - this.#offset);
      const { bytesRead } = await file.read(buffer, 0, buffer.length, this.#offset);
      const end = buffer.subarray(0, bytesRead).lastIndexOf(0x0a) + 1; // the last line may still be incomplete
      this.#offset += end;
      return this.#parse(buffer.toString('utf8', 0, end));
    } catch {
      return [];
    } finally {
      await file.close();
    }
  }

  #parse(text: string): IndexedEntry[] {
    const lines = text.split('\n');
    lines.pop();
    this.#lines += lines.length;
    return lines.map(parseLine).filter((entry) => entry !== undefined && this.#isEntry(entry)) as IndexedEntry[];
  }

  /**
   * Reads the footers of entries that have no line in the index. A line is missing if the index file is missing or
   * damaged, or if another version of the package saved the entry.
   */
  async #readFooters(names: readonly string[]): Promise<void> {
    const entries: IndexedEntry[] = [];
    const next = names[Symbol.iterator]();
    await Promise.all(
      Array.from({ length: SCAN_CONCURRENCY }, async () => {
        for (const name of next) {
          const entry = await this.#readFooter(name);
          if (this.#changed.has(name)) {
            continue;
          }
          if (entry === undefined) {
            this.#invalid.add(name); // a start that reads this entry reports the reason
          } else {
            this.#set(entry);
            entries.push(entry);
          }
        }
      }),
    );
    await this.#append(entries);
  }

  async #readFooter(name: string): Promise<IndexedEntry | undefined> {
    try {
      const path = this.#directory.join(name);
      const metadata = (await SequenceState.readMetadata(path)) as unknown as EntryMetadata & { tokenCount: number };
      const entry = indexedEntry(name, metadata, metadata.tokenCount, (await stat(path)).size);
      return entry && this.#isEntry(entry) ? entry : undefined;
    } catch {
      return undefined;
    }
  }

  get #path(): string {
    return this.#directory.join(INDEX_NAMES[this.names.kind]);
  }

  /** Whether an entry is of this index's kind. */
  #isEntry({ name, conversation }: IndexedEntry): boolean {
    return this.names.isEntry(name) && (this.names.kind === 'conversation') === (conversation !== undefined);
  }

  async #append(entries: readonly IndexedEntry[]): Promise<void> {
    if (entries.length === 0) {
      return;
    }
    // Write all lines at once, so that they do not mix with the lines of other processes. If a line is lost, the next
    // refresh reads the entry's footer instead.
    const text = entries.map((entry) => `${JSON.stringify(entry)}\n`).join('');
    await appendFile(this.#path, text, { mode: 0o600 }).catch(() => undefined);
  }

  /**
   * Rewrites the file without the lines of deleted entries. Lines that other processes append at the same time are lost. The next refresh reads the footers
   * of their entries instead.
   */
  async rewrite(): Promise<void> {
    const text = [...this.#entries.values()].map((entry) => `${JSON.stringify(entry)}\n`).join('');
    await this.#directory.replaceText(INDEX_NAMES[this.names.kind], text).catch(() => undefined);
  }

  /** Deletes the index file. */
  async remove(): Promise<void> {
    await rm(this.#path, { force: true }).catch(() => undefined);
  }
}

/** @returns undefined if the metadata is incomplete */
export function indexedEntry(
  name: string,
  metadata: EntryMetadata,
  tokens: number,
  bytes: number,
): IndexedEntry | undefined {
  const { key, components, prefillMs, createdAt, prefix, conversation } = metadata;
  const group = components === undefined ? '' : groupOf(components);
  const { hashes = [], whole = -1 } = prefix ?? {};
  const mark = conversation && { conversation };
  const entry = { name, key, group, tokens, bytes, createdAt, prefillMs, hashes, whole, ...mark };
  return isIndexedEntry(entry) ? entry : undefined;
}

function parseLine(line: string): IndexedEntry | undefined {
  try {
    const entry: unknown = JSON.parse(line);
    return isIndexedEntry(entry) ? entry : undefined;
  } catch {
    return undefined; // the line is damaged or mixed with another one: a refresh reads the entry's footer instead
  }
}

function isIndexedEntry(value: unknown): value is IndexedEntry {
  const entry = value as Partial<IndexedEntry> | null;
  return (
    typeof entry === 'object' &&
    entry !== null &&
    typeof entry.name === 'string' &&
    typeof entry.key === 'string' &&
    typeof entry.group === 'string' &&
    typeof entry.createdAt === 'string' &&
    [entry.tokens, entry.bytes].every(isCount) &&
    [entry.prefillMs, entry.whole].every(Number.isFinite) &&
    Array.isArray(entry.hashes) &&
    (entry.conversation === undefined || isConversationMark(entry.conversation))
  );
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
