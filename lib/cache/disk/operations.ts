// What an operator does with a cache directory: look, check, tidy up, empty. Each is safe while sessions run and while other
// processes use the directory: files are read, renamed and deleted whole.
import { writeFile } from 'node:fs/promises';
import { throwIfAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import { SequenceState } from '../../native/state.js';
import { abortSignal, callable, group, type OptionsOf } from '../../option-types.js';
import { ENTRY_FORMAT, type KeyComponents, templateKey } from '../key.js';
import type { MemoryStore } from '../memory-store.js';
import type { ResidentTemplates } from '../resident-templates.js';
import type { WriteBehind } from '../write-behind.js';
import type { DiskStore } from './disk-store.js';
import { type EntryMetadata, isEntryName, pinName } from './entry.js';
import { type DatedEntry, type DirectoryBudget, dated } from './eviction.js';

/** A cached template. */
export interface CacheEntry {
  /** SHA-256, hex. */
  key: string;
  /** Tokens in the template. */
  tokens: number;
  /** Size of its file; 0 where it has none. */
  bytes: number;
  /** Where it is: the first one is where a start would come from. */
  tiers: ('resident' | 'memory' | 'disk')[];
  /** Whether no budget makes it leave. */
  pinned: boolean;
  /** What it took to prefill, ms. */
  prefillMs: number;
  /** The file's name in the cache directory. */
  file?: string;
  /** When its file was written; absent where it has none. */
  createdAt?: Date;
  /** When a start last read its file, or it was saved; absent where it has none. */
  lastUsedAt?: Date;
}

/** A cached template, and what it was computed with. */
export interface CacheEntryDetails extends CacheEntry {
  /** What its key is made of, beside its tokens. The tenant is a hash. */
  components?: KeyComponents;
}

/** What was found. */
export interface VerifyReport {
  /** Entries read to their last byte. */
  checked: number;
  /** Entries whose checksum, tokens and key are right. */
  intact: number;
  /** Set aside as `*.corrupt`. */
  corrupt: number;
  /** Of another format or version: left alone. */
  foreign: number;
  /** Bytes read. */
  bytes: number;
}

/** What was removed. */
export interface PruneReport {
  /** Entries deleted for the budget. */
  entries: number;
  /** Temporary files of dead processes deleted. */
  temporaryFiles: number;
  /** Set-aside files deleted: the newest few stay. */
  corruptFiles: number;
}

const VERIFY = {
  /** Ends it with `ABORTED`; what was set aside by then stays so. */
  signal: abortSignal().optional(),
  /** Entries done, and how many there are. */
  onProgress: callable<(done: number, all: number) => void>().optional(),
};

/** How entries are verified. */
export interface VerifyOptions extends OptionsOf<typeof VERIFY> {}

export const VERIFY_OPTIONS = group(VERIFY);

export interface OperationsParts {
  residents: ResidentTemplates;
  memory: MemoryStore;
  disk: DiskStore | undefined;
  saver: WriteBehind;
  budget: DirectoryBudget;
}

export async function listEntries({ residents, memory, disk }: OperationsParts): Promise<CacheEntry[]> {
  const entries = new Map<string, CacheEntry>();
  const found = (key: string, tokens: number, prefillMs: number): CacheEntry => {
    const known = entries.get(key) ?? { key, tokens, bytes: 0, tiers: [], pinned: residents.isPinned(key), prefillMs };
    entries.set(key, known);
    return known;
  };
  for (const { key, tokens, prefillMs } of residents.values()) {
    found(key, tokens.length, prefillMs).tiers.push('resident');
  }
  for (const [key, { tokens, prefillMs }] of memory.entries()) {
    found(key, tokens.length, prefillMs).tiers.push('memory');
  }
  for (const entry of await datedEntries(disk)) {
    const known = found(entry.key, entry.tokens, entry.prefillMs);
    known.tiers.push('disk');
    known.bytes = entry.bytes;
    known.pinned ||= entry.pinned;
    known.file = entry.name;
    known.createdAt = new Date(entry.createdAt);
    known.lastUsedAt = new Date(entry.lastUsedAt);
  }
  return [...entries.values()];
}

/** @throws HeadstartError `ENTRY_MISSING` */
export async function inspectEntry(parts: OperationsParts, key: string): Promise<CacheEntryDetails> {
  const entry = (await listEntries(parts)).find((each) => each.key === key);
  if (entry === undefined) {
    throw new HeadstartError('ENTRY_MISSING', `Expected the key of a cached template, got "${key}": list() gives them`);
  }
  if (entry.file === undefined || parts.disk === undefined) {
    return entry;
  }
  const metadata = await SequenceState.readMetadata(parts.disk.directory.join(entry.file)).catch(() => undefined);
  const { components } = (metadata ?? {}) as Partial<EntryMetadata>;
  return { ...entry, ...(components && { components }) };
}

/** Reads every entry to its last byte, one after the other, so that restores get in between. */
export async function verifyEntries({ disk }: OperationsParts, options: VerifyOptions): Promise<VerifyReport> {
  const report: VerifyReport = { checked: 0, intact: 0, corrupt: 0, foreign: 0, bytes: 0 };
  if (disk === undefined) {
    return report;
  }
  const names = (await disk.index.refresh()).filter(isEntryName);
  for (const [index, name] of names.entries()) {
    throwIfAborted(options.signal);
    await verifyEntry(disk, name, report, options.signal);
    options.onProgress?.(index + 1, names.length);
  }
  return report;
}

async function verifyEntry(
  disk: DiskStore,
  name: string,
  report: VerifyReport,
  signal: AbortSignal | undefined,
): Promise<void> {
  const found = await disk.verify(name, signal, (metadata: Partial<EntryMetadata>, tokens) => {
    const { format, key, components } = metadata;
    if (format !== ENTRY_FORMAT || typeof key !== 'string' || components === undefined) {
      return 'foreign';
    }
    return templateKey(components, tokens) === key ? 'intact' : 'corrupt';
  });
  if (found !== undefined) {
    report.checked++;
    report[found.verdict]++;
    report.bytes += found.bytes;
  }
}

export async function pruneDirectory(parts: OperationsParts, budget: DirectoryBudget): Promise<PruneReport> {
  const { disk, saver } = parts;
  if (disk === undefined) {
    return { entries: 0, temporaryFiles: 0, corruptFiles: 0 };
  }
  const names = await disk.index.refresh();
  const temporaryFiles = await disk.directory.sweep(names);
  const corruptFiles = await disk.directory.boundCorrupt();
  const entries = await saver.bound(disk, { ...parts.budget, ...budget }, names);
  return { entries, temporaryFiles, corruptFiles };
}

/** @returns how many entries went */
export async function clearEverything({ residents, memory, disk }: OperationsParts): Promise<number> {
  const keys = new Set([
    ...[...residents.values()].map(({ key }) => key),
    ...[...memory.entries()].map(([key]) => key),
  ]);
  residents.dropAll('the cache was cleared');
  memory.clear();
  await disk?.index.refresh();
  for (const { key, name } of [...(disk?.index.values() ?? [])]) {
    keys.add(key);
    await disk?.delete(name);
  }
  await disk?.index.remove();
  return keys.size;
}

/** @returns whether there was anything */
export async function invalidateKey({ residents, memory, disk }: OperationsParts, key: string): Promise<boolean> {
  const resident = residents.get(key);
  const known = resident !== undefined || memory.has(key);
  if (resident !== undefined) {
    residents.drop(resident, 'the template was invalidated');
  }
  memory.delete(key);
  await disk?.index.refresh();
  const facts = disk?.index.get(disk.nameOf(key));
  if (facts?.key !== key) {
    return known;
  }
  await disk?.delete(facts.name);
  return true;
}

/** A file beside the entry says so to every process, also after a restart. */
export async function setPinned(parts: OperationsParts, key: string, pinned: boolean): Promise<void> {
  const { residents, memory, disk } = parts;
  residents.setPinned(key, pinned);
  memory.setPinned(key, pinned);
  if (disk === undefined) {
    return;
  }
  if (!pinned) {
    await disk.delete(pinName(key));
    return;
  }
  await disk.directory.make();
  await writeFile(disk.directory.join(pinName(key)), '', { mode: 0o600 }).catch((cause: Error) => {
    throw new HeadstartError('WRITE_FAILED', `Could not pin ${key} in ${disk.directory.path}: ${cause.message}`, {
      cause,
    });
  });
}

async function datedEntries(disk: DiskStore | undefined): Promise<DatedEntry[]> {
  if (disk === undefined) {
    return [];
  }
  const names = await disk.index.refresh();
  return dated(disk.directory, disk.index.values(), new Set(names));
}
