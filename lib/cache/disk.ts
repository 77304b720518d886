// The disk tier: one file an entry, written beside and renamed. See docs/architecture.md, "The disk entry".
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HeadstartError } from '../errors.js';
import { SequenceState } from '../native/state.js';
import { sameTokens } from '../template/tokens.js';
import { ENTRY_FORMAT, type KeyComponents } from './key.js';

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
}

/** Found, or why not: `absent`, or a reason that names what was wrong. */
export type DiskLookup =
  | { state: SequenceState; bytes: number }
  | { state: undefined; reason: string; corrupt: boolean };

interface EntryFacts {
  tokens: number;
  bytes: number;
}

const ENTRY_NAME = /^template_[0-9a-f]{16}\.kv$/;
const CACHE_TAG =
  'Signature: 8a477f597d28d172789f06886806bc55\n# This directory holds caches of llama-headstart; it can be deleted.\n';
const MIN_FREE_RATIO = 0.05;
const MIN_FREE_BYTES = 2 * 1024 ** 3;
const SCAN_CONCURRENCY = 16;

export class DiskStore {
  readonly directory: string;
  readonly #minFreeBytes: number | undefined;
  readonly #entries = new Map<string, EntryFacts>();

  /** @param minFreeBytes nothing is saved that would leave less free; default: the larger of 5 % and 2 GiB */
  constructor(directory: string, minFreeBytes?: number) {
    this.directory = directory;
    this.#minFreeBytes = minFreeBytes;
  }

  /** Entries known to be in the directory. */
  get entries(): number {
    return this.#entries.size;
  }

  get totalTokens(): number {
    return sum(this.#entries, (facts) => facts.tokens);
  }

  get totalBytes(): number {
    return sum(this.#entries, (facts) => facts.bytes);
  }

  /** Makes the directory where it can, and counts what is in it. An unreadable one counts as empty. */
  async scan(): Promise<void> {
    await this.#makeDirectory().catch(() => undefined);
    const names = (await readdir(this.directory).catch(() => [])).filter((name) => ENTRY_NAME.test(name));
    const next = names[Symbol.iterator]();
    await Promise.all(
      Array.from({ length: SCAN_CONCURRENCY }, async () => {
        for (const name of next) {
          await this.#note(name);
        }
      }),
    );
  }

  /** Reads, verifies and compares: the key whole, and the tokens one by one. Throws `ABORTED` and `CLOSED` alone. */
  async read(key: string, tokens: Int32Array, signal?: AbortSignal): Promise<DiskLookup> {
    const path = this.#path(key);
    let state: SequenceState;
    let metadata: Partial<EntryMetadata>;
    try {
      state = await SequenceState.readFile(path, { signal });
      metadata = state.metadata;
    } catch (error) {
      return this.#explain(error, path);
    }
    const { key: foundKey, format } = metadata;
    if (format !== ENTRY_FORMAT || foundKey !== key) {
      state.close();
      return { state: undefined, reason: 'foreign: the entry belongs to another configuration', corrupt: false };
    }
    if (!sameTokens(state.tokens, tokens)) {
      state.close();
      return this.#setAside(path, "its tokens are not the template's");
    }
    return { state, bytes: state.byteLength };
  }

  /**
   * Saves a state as one whole file, or leaves the directory as it was.
   *
   * @returns the file's size in bytes
   * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
   */
  async write(state: SequenceState, metadata: EntryMetadata): Promise<number> {
    await this.#makeDirectory();
    const path = this.#path(metadata.key);
    const temporary = `${path}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`;
    try {
      await this.#requireRoom(state.byteLength);
      const bytes = await state.writeFile(temporary, metadata);
      await rename(temporary, path);
      this.#entries.set(entryName(metadata.key), { tokens: state.tokens.length, bytes });
      await syncDirectory(this.directory);
      return bytes;
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined);
      throw asWriteFailure(error, path);
    }
  }

  #path(key: string): string {
    return join(this.directory, entryName(key));
  }

  async #explain(error: unknown, path: string): Promise<DiskLookup> {
    if (HeadstartError.isInstance(error, 'ABORTED') || HeadstartError.isInstance(error, 'CLOSED')) {
      throw error;
    }
    if (HeadstartError.isInstance(error, 'ENTRY_MISSING')) {
      this.#entries.delete(nameOf(path));
      return { state: undefined, reason: 'absent', corrupt: false };
    }
    if (HeadstartError.isInstance(error, 'ENTRY_FOREIGN')) {
      return { state: undefined, reason: `foreign: ${error.message}`, corrupt: false };
    }
    const message = error instanceof Error ? error.message : String(error);
    if (HeadstartError.isInstance(error, 'ENTRY_CORRUPT')) {
      return this.#setAside(path, message);
    }
    return { state: undefined, reason: `unreadable: ${message}`, corrupt: false };
  }

  /** One set-aside file an entry: the newest replaces the one before. */
  async #setAside(path: string, why: string): Promise<DiskLookup> {
    this.#entries.delete(nameOf(path));
    await rename(path, `${path}.corrupt`).catch(() =>
      rm(path, { force: true, recursive: true }).catch(() => undefined),
    );
    return { state: undefined, reason: `corrupt: ${why}`, corrupt: true };
  }

  async #note(name: string): Promise<void> {
    try {
      const path = join(this.directory, name);
      const { tokenCount } = await SequenceState.readMetadata(path);
      const { size } = await stat(path);
      this.#entries.set(name, { tokens: Number(tokenCount) || 0, bytes: size });
    } catch {
      // Not an entry that can be used: a lookup will say why.
    }
  }

  async #makeDirectory(): Promise<void> {
    try {
      await mkdir(this.directory, { recursive: true, mode: 0o700 });
      await writeFile(join(this.directory, 'CACHEDIR.TAG'), CACHE_TAG, { flag: 'wx', mode: 0o600 }).catch(
        (error: NodeJS.ErrnoException) => {
          if (error.code !== 'EEXIST') {
            throw error;
          }
        },
      );
    } catch (error) {
      throw asWriteFailure(error, this.directory);
    }
  }

  async #requireRoom(bytes: number): Promise<void> {
    const disk = await statfs(this.directory);
    const floor = this.#minFreeBytes ?? Math.max(MIN_FREE_RATIO * disk.blocks * disk.bsize, MIN_FREE_BYTES);
    const left = disk.bavail * disk.bsize - bytes;
    if (left < floor) {
      throw new HeadstartError(
        'DISK_FULL',
        `Saving ${bytes} bytes would leave ${Math.max(0, left)} bytes free in ${this.directory}, under the floor of ${Math.round(floor)}`,
      );
    }
  }
}

function entryName(key: string): string {
  return `template_${key.slice(0, 16)}.kv`;
}

function nameOf(path: string): string {
  return path.slice(path.search(/template_[0-9a-f]{16}\.kv$/));
}

function sum(entries: Map<string, EntryFacts>, of: (facts: EntryFacts) => number): number {
  let total = 0;
  for (const facts of entries.values()) {
    total += of(facts);
  }
  return total;
}

/**
 * A rename is durable once its directory is synced. Not every file system can (Windows, some over FUSE): the entry is there
 * all the same, and what a power loss took of it would fail its checksum.
 */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

function asWriteFailure(error: unknown, path: string): HeadstartError {
  if (HeadstartError.isInstance(error)) {
    return error;
  }
  const code = (error as NodeJS.ErrnoException).code;
  const message = error instanceof Error ? error.message : String(error);
  return new HeadstartError(
    code === 'ENOSPC' || code === 'EDQUOT' ? 'DISK_FULL' : 'WRITE_FAILED',
    `Could not save ${path}: ${message}`,
    { cause: error },
  );
}
