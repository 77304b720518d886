// What is in the directory, without opening every entry: one line an entry in one file, which is derived from the entries'
// footers, appended to at each save and rebuilt where lines are missing. A lookup never asks it; nearest starts, statistics
// and budgets do, and whatever an entry itself says wins.
import { appendFile, open, rm, stat } from 'node:fs/promises';
import { SequenceState } from '../../native/state.js';
import { groupOf } from '../key.js';
import type { CacheDirectory } from './cache-directory.js';
import { type EntryMetadata, type IndexedEntry, isEntryName } from './entry.js';

/** The version is in the name: packages that write other lines have a file of their own. */
const INDEX_NAME = 'index-1.jsonl';
/** Lines of entries that are gone, before the file is written anew. */
const MAX_DEAD_LINES = 256;
const SCAN_CONCURRENCY = 16;

export class DirectoryIndex {
  readonly #directory: CacheDirectory;
  readonly #entries = new Map<string, IndexedEntry>();
  /** Names that are no entries, so that each is looked at once. */
  readonly #useless = new Set<string>();
  #tokens = 0;
  #bytes = 0;
  /** Of the index file: read up to here. */
  #offset = 0;
  #inode = 0n;
  #lines = 0;
  /** One look at a time: they share what they know of the file. */
  #looking: Promise<unknown> = Promise.resolve();
  /** What this process saved and deleted since the look under way began: it knows better than the list of names. */
  readonly #ownChanges = new Set<string>();

  constructor(directory: CacheDirectory) {
    this.#directory = directory;
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
   * Looks at the directory: entries of other processes come in, those that are gone go out.
   *
   * @returns all names in the directory
   */
  refresh(): Promise<string[]> {
    return this.#oneAtATime(() => this.#refresh());
  }

  /**
   * What other processes saved since the last look, without looking at the directory: what they deleted meanwhile is seen with
   * the next one.
   */
  readTail(): Promise<void> {
    return this.#oneAtATime(async () => this.#take(await this.#readLines(), () => true));
  }

  /** After a save. */
  async add(facts: IndexedEntry): Promise<void> {
    this.#ownChanges.add(facts.name);
    this.#set(facts);
    await this.#append([facts]);
  }

  /** Before and after its file goes, and where it was found gone. */
  delete(name: string): void {
    this.#ownChanges.add(name);
    this.#forget(name);
  }

  #oneAtATime<Result>(look: () => Promise<Result>): Promise<Result> {
    const mine = this.#looking.then(() => {
      this.#ownChanges.clear();
      return look();
    });
    this.#looking = mine.catch(() => undefined);
    return mine;
  }

  async #refresh(): Promise<string[]> {
    const names = await this.#directory.names();
    const present = new Set(names.filter(isEntryName));
    this.#take(await this.#readLines(), (name) => present.has(name));
    for (const name of [...this.#entries.keys()]) {
      if (!present.has(name) && !this.#ownChanges.has(name)) {
        this.#forget(name);
      }
    }
    const unknown = [...present].filter((name) => !this.#entries.has(name) && !this.#useless.has(name));
    await this.#readFooters(unknown);
    if (this.#lines > this.#entries.size + MAX_DEAD_LINES && this.#lines > 2 * this.#entries.size) {
      await this.#compact();
    }
    return names;
  }

  #take(lines: readonly IndexedEntry[], isPresent: (name: string) => boolean): void {
    for (const facts of lines) {
      if (isPresent(facts.name) && !this.#ownChanges.has(facts.name)) {
        this.#set(facts);
      }
    }
  }

  #forget(name: string): void {
    const facts = this.#entries.get(name);
    if (facts !== undefined) {
      this.#entries.delete(name);
      this.#tokens -= facts.tokens;
      this.#bytes -= facts.bytes;
    }
  }

  #set(facts: IndexedEntry): void {
    this.#forget(facts.name);
    this.#useless.delete(facts.name);
    this.#entries.set(facts.name, facts);
    this.#tokens += facts.tokens;
    this.#bytes += facts.bytes;
  }

  /** What was appended since the last look. */
  async #readLines(): Promise<IndexedEntry[]> {
    const file = await open(this.#directory.join(INDEX_NAME), 'r').catch(() => undefined);
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
      const end = buffer.subarray(0, bytesRead).lastIndexOf(0x0a) + 1; // a last line without its end is still being written
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
    return lines.map(parseLine).filter((facts) => facts !== undefined);
  }

  /** Entries that no line speaks of: the index is absent, damaged, or another version's process saved them. */
  async #readFooters(names: readonly string[]): Promise<void> {
    const found: IndexedEntry[] = [];
    const next = names[Symbol.iterator]();
    await Promise.all(
      Array.from({ length: SCAN_CONCURRENCY }, async () => {
        for (const name of next) {
          const facts = await this.#readFooter(name);
          if (this.#ownChanges.has(name)) {
            continue;
          }
          if (facts === undefined) {
            this.#useless.add(name); // a lookup will say why
          } else {
            this.#set(facts);
            found.push(facts);
          }
        }
      }),
    );
    await this.#append(found);
  }

  async #readFooter(name: string): Promise<IndexedEntry | undefined> {
    try {
      const path = this.#directory.join(name);
      const metadata = (await SequenceState.readMetadata(path)) as unknown as EntryMetadata & { tokenCount: number };
      return indexedEntry(name, metadata, metadata.tokenCount, (await stat(path)).size);
    } catch {
      return undefined;
    }
  }

  async #append(facts: readonly IndexedEntry[]): Promise<void> {
    if (facts.length === 0) {
      return;
    }
    // One write each time: appends of several processes do not mix. Losing one only costs the reading of a footer.
    const text = facts.map((each) => `${JSON.stringify(each)}\n`).join('');
    await appendFile(this.#directory.join(INDEX_NAME), text, { mode: 0o600 }).catch(() => undefined);
  }

  /** What others append meanwhile is lost, and read from the footers at the next look. */
  async #compact(): Promise<void> {
    const text = [...this.#entries.values()].map((each) => `${JSON.stringify(each)}\n`).join('');
    await this.#directory.replaceText(INDEX_NAME, text).catch(() => undefined);
  }

  /** For `clear`. */
  async remove(): Promise<void> {
    await rm(this.#directory.join(INDEX_NAME), { force: true }).catch(() => undefined);
  }
}

export function indexedEntry(
  name: string,
  metadata: EntryMetadata,
  tokens: number,
  bytes: number,
): IndexedEntry | undefined {
  const { key, components, prefillMs, createdAt, prefix } = metadata;
  const group = components === undefined ? '' : groupOf(components);
  const { hashes = [], whole = -1 } = prefix ?? {};
  const facts = { name, key, group, tokens, bytes, createdAt, prefillMs, hashes, whole };
  return isFacts(facts) ? facts : undefined;
}

function parseLine(line: string): IndexedEntry | undefined {
  try {
    const facts: unknown = JSON.parse(line);
    return isFacts(facts) ? facts : undefined;
  } catch {
    return undefined; // damaged, or two writes mixed: the footer says it again
  }
}

function isFacts(value: unknown): value is IndexedEntry {
  const facts = value as Partial<IndexedEntry> | null;
  return (
    typeof facts === 'object' &&
    facts !== null &&
    typeof facts.name === 'string' &&
    isEntryName(facts.name) &&
    typeof facts.key === 'string' &&
    typeof facts.group === 'string' &&
    typeof facts.createdAt === 'string' &&
    [facts.tokens, facts.bytes, facts.prefillMs, facts.whole].every(Number.isFinite) &&
    Array.isArray(facts.hashes)
  );
}
