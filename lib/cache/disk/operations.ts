// Operations on the whole cache: list, inspect, verify, prune, clear, invalidate and pin. The operations may run while
// sessions run and while other processes use the directory, because they only read, rename or delete whole files.
import { writeFile } from 'node:fs/promises';
import { throwIfAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import { SequenceState } from '../../native/state.js';
import { abortSignal, callable, group, type OptionsOf } from '../../option-types.js';
import { type CacheStores, storedTemplates } from '../cache-stores.js';
import { ENTRY_FORMAT, type KeyComponents, templateKey } from '../key.js';
import type { ResidentTemplates } from '../resident-templates.js';
import type { DiskStore } from './disk-store.js';
import { type EntryMetadata, pinName } from './entry.js';
import { type DatedEntry, type DirectoryBudget, withLastUse } from './eviction.js';

/** The stores that the operations use. A cache directory without an agent has no resident templates. */
export interface OperatedStores extends Pick<CacheStores, 'states' | 'disk' | 'writeBehind' | 'budget'> {
  residents: Pick<ResidentTemplates, 'values' | 'get' | 'isPinned' | 'setPinned' | 'drop' | 'dropAll'>;
}

/** A cached template. */
export interface CacheEntry {
  /** The key of the template: SHA-256, hex. */
  key: string;
  /** Number of tokens in the template. */
  tokens: number;
  /** Size of the template's file in bytes. 0 if the template has no file. */
  bytes: number;
  /** The tiers that hold the template's state. A start uses the first of these tiers. */
  tiers: ('resident' | 'memory' | 'disk')[];
  /** Whether the template is protected from eviction. */
  pinned: boolean;
  /** Duration of the template's prefill, ms. */
  prefillMs: number;
  /** Name of the template's file in the cache directory. Absent if the template has no file. */
  file?: string;
  /** The time at which the template's file was written. Absent if the template has no file. */
  createdAt?: Date;
  /**
   * The time at which a start last read the template's file, or else the time of the save. Absent if there is no file.
   */
  lastUsedAt?: Date;
}

/** A cached template with the components of its key. */
export interface CacheEntryDetails extends CacheEntry {
  /** The components of the key besides the tokens. The component `tenant` is a hash of the tenant's name. */
  components?: KeyComponents;
}

/** The result of `verify`. */
export interface VerifyReport {
  /** Number of entries that were read completely. */
  checked: number;
  /** Number of entries with a correct checksum and a key that matches their tokens. */
  intact: number;
  /** Number of damaged entries, which were set aside as `*.corrupt`. */
  corrupt: number;
  /** Number of entries of another format or version, which were not changed. */
  foreign: number;
  /** Number of bytes that were read. */
  bytes: number;
}

/** The result of `prune`. */
export interface PruneReport {
  /** Number of entries that were deleted because of a budget. */
  entries: number;
  /** Number of deleted temporary files. Dead processes had left these files. */
  temporaryFiles: number;
  /** Number of deleted `*.corrupt` files. The newest 8 stay. */
  corruptFiles: number;
}

const VERIFY = {
  /** Stops with `ABORTED`. Files that were set aside stay set aside. */
  signal: abortSignal().optional(),
  /** Called after each entry, with the number of finished entries and the number of all entries. */
  onProgress: callable<(done: number, all: number) => void>().optional(),
};

/** Options of `verify`. */
export interface VerifyOptions extends OptionsOf<typeof VERIFY> {}

export const VERIFY_OPTIONS = group(VERIFY);

export async function listEntries({ residents, states, disk }: OperatedStores): Promise<CacheEntry[]> {
  const entries = new Map<string, CacheEntry>();
  const entryOf = (key: string, tokens: number, prefillMs: number): CacheEntry => {
    const entry = entries.get(key) ?? { key, tokens, bytes: 0, tiers: [], pinned: residents.isPinned(key), prefillMs };
    entries.set(key, entry);
    return entry;
  };
  for (const { key, tokens, prefillMs } of residents.values()) {
    entryOf(key, tokens.length, prefillMs).tiers.push('resident');
  }
  for (const { key, tokens, prefillMs = 0 } of storedTemplates(states)) {
    entryOf(key, tokens.length, prefillMs).tiers.push('memory');
  }
  for (const file of await datedEntries(disk)) {
    const entry = entryOf(file.key, file.tokens, file.prefillMs);
    entry.tiers.push('disk');
    entry.bytes = file.bytes;
    entry.pinned ||= file.pinned;
    entry.file = file.name;
    entry.createdAt = new Date(file.createdAt);
    entry.lastUsedAt = new Date(file.lastUsedAt);
  }
  return [...entries.values()];
}

/** @throws HeadstartError `ENTRY_MISSING` */
export async function inspectEntry(stores: OperatedStores, key: string): Promise<CacheEntryDetails> {
  const entry = (await listEntries(stores)).find((candidate) => candidate.key === key);
  if (entry === undefined) {
    throw new HeadstartError('ENTRY_MISSING', `Expected the key of a cached template, as in list(), got "${key}"`);
  }
  if (entry.file === undefined || stores.disk === undefined) {
    return entry;
  }
  const metadata = await SequenceState.readMetadata(stores.disk.directory.join(entry.file)).catch(() => undefined);
  const { components } = (metadata ?? {}) as Partial<EntryMetadata>;
  return { ...entry, ...(components && { components }) };
}

/** Verifies the entries one after another, so that restores of sessions can run in between. */
export async function verifyEntries({ disk, states }: OperatedStores, options: VerifyOptions): Promise<VerifyReport> {
  const report: VerifyReport = { checked: 0, intact: 0, corrupt: 0, foreign: 0, bytes: 0 };
  if (disk === undefined) {
    return report;
  }
  const names = (await disk.index.refresh()).filter((name) => disk.names.isEntry(name));
  for (const [index, name] of names.entries()) {
    throwIfAborted(options.signal);
    const transfer = await states.transfers.wait({ kind: 'request' }, disk.index.get(name)?.bytes, options.signal);
    await verifyEntry(disk, name, report, options.signal).finally(() => transfer.end());
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
  const result = await disk.verify(name, signal, (metadata: Partial<EntryMetadata>, tokens) => {
    const { format, key, components } = metadata;
    if (format !== ENTRY_FORMAT || typeof key !== 'string' || components === undefined) {
      return 'foreign';
    }
    return templateKey(components, tokens) === key ? 'intact' : 'corrupt';
  });
  if (result !== undefined) {
    report.checked++;
    report[result.verdict]++;
    report.bytes += result.bytes;
  }
}

export async function pruneDirectory(stores: OperatedStores, budget: DirectoryBudget): Promise<PruneReport> {
  const { disk, writeBehind } = stores;
  if (disk === undefined) {
    return { entries: 0, temporaryFiles: 0, corruptFiles: 0 };
  }
  const names = await disk.index.refresh();
  const temporaryFiles = await disk.directory.sweep(names);
  const corruptFiles = await disk.directory.deleteOldCorrupt();
  const entries = await writeBehind.evict(disk, { ...stores.budget, ...budget }, names);
  return { entries, temporaryFiles, corruptFiles };
}

/** @returns the number of deleted entries */
export async function clearEverything({ residents, states, disk }: OperatedStores): Promise<number> {
  const keys = new Set([...residents.values(), ...storedTemplates(states)].map(({ key }) => key));
  residents.dropAll('the cache was cleared');
  states.clear('template');
  await disk?.index.refresh();
  for (const { key, name } of [...(disk?.index.values() ?? [])]) {
    keys.add(key);
    await disk?.delete(name);
  }
  await disk?.index.remove();
  return keys.size;
}

/** @returns whether the template was cached */
export async function invalidateKey({ residents, states, disk }: OperatedStores, key: string): Promise<boolean> {
  const resident = residents.get(key);
  const stored = states.find(key);
  if (resident !== undefined) {
    residents.drop(resident, 'the template was invalidated');
  }
  if (stored !== undefined) {
    states.drop(stored);
  }
  await disk?.index.refresh();
  const entry = disk?.index.get(disk.nameOf(key));
  if (entry?.key !== key) {
    return resident !== undefined || stored !== undefined;
  }
  await disk?.delete(entry.name);
  return true;
}

/**
 * Pins or unpins a template. A pin is a file next to the entry, so that other processes and later runs respect it.
 */
export async function setPinned(
  { residents, states, disk }: OperatedStores,
  key: string,
  pinned: boolean,
): Promise<void> {
  residents.setPinned(key, pinned);
  states.setPinned(key, pinned);
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
  return withLastUse(disk.directory, disk.index.values(), new Set(names));
}
