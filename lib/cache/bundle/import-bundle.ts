import { createHash, type KeyObject } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { throwIfAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import { SequenceState } from '../../native/state.js';
import type { DiskStore } from '../disk/disk-store.js';
import type { EntryMetadata } from '../disk/entry.js';
import { ENTRY_FORMAT, templateKey } from '../key.js';
import { type BundleEntry, isSignedBy, type OpenBundle, openBundle } from './bundle-format.js';

export interface ImportOptions {
  /** The Ed25519 key that must have signed the bundle. `trusted` accepts every bundle. */
  publicKey: KeyObject | 'trusted';
  /** Compares a verified state with one that is computed here. Throws if they differ. @default none */
  compare?(state: SequenceState, metadata: EntryMetadata): Promise<void>;
  signal: AbortSignal;
  /** Called with the share of the work that is done, 0 to 1. */
  onProgress(fraction: number): void;
}

export interface ImportReport {
  /** The keys of the templates that were added. */
  imported: string[];
  /** The keys of the templates that were already in the directory. */
  present: string[];
}

/** A verified entry under a temporary name. */
interface StagedEntry {
  temporary: string;
  metadata: EntryMetadata;
  tokens: number;
}

const CHUNK_BYTES = 4 * 1024 ** 2;

/**
 * Adds the entries of a bundle to a directory. Everything is verified before any entry becomes visible: the signature,
 * the sizes, the SHA-256 and the checksum of each file, and that its key matches its tokens. If anything fails, the
 * directory does not change.
 *
 * @throws HeadstartError `BUNDLE_INVALID`, `BUNDLE_UNTRUSTED`, `DISK_FULL`, `WRITE_FAILED`, `READ_FAILED`, `ABORTED`, and
 *   the errors of `compare`.
 */
export async function importBundle(disk: DiskStore, path: string, options: ImportOptions): Promise<ImportReport> {
  const file = await open(path, 'r').catch((cause: Error) => {
    throw new HeadstartError('READ_FAILED', `Could not read the bundle "${path}": ${cause.message}.`, { cause });
  });
  try {
    const bundle = await openBundle(file, path);
    requireTrust(bundle, path, options.publicKey);
    return await addEntries(disk, file, path, bundle, options);
  } finally {
    await file.close();
  }
}

/** @throws HeadstartError `BUNDLE_UNTRUSTED`. */
function requireTrust(bundle: OpenBundle, path: string, publicKey: KeyObject | 'trusted'): void {
  if (publicKey === 'trusted' || isSignedBy(bundle, publicKey)) {
    return;
  }
  const found = bundle.signature === undefined ? 'it has no signature' : 'another key signed it, or it was altered';
  throw new HeadstartError(
    'BUNDLE_UNTRUSTED',
    `Expected "${path}" to be signed by the given key, but ${found}. A bundle can change replies, as a model file can.`,
  );
}

async function addEntries(
  disk: DiskStore,
  file: FileHandle,
  path: string,
  { manifest, offsets }: OpenBundle,
  options: ImportOptions,
): Promise<ImportReport> {
  await disk.directory.make();
  await disk.index.refresh();
  const isPresent = ({ key }: BundleEntry) => disk.index.get(disk.nameOf(key))?.key === key;
  const wanted = manifest.entries
    .map((entry, index) => ({ entry, offset: offsets[index] as number }))
    .filter(({ entry }) => !isPresent(entry));
  const all = wanted.reduce((sum, { entry }) => sum + entry.bytes, 0);
  await disk.directory.requireFreeSpace(all);
  const staged: StagedEntry[] = [];
  let done = 0;
  try {
    for (const { entry, offset } of wanted) {
      const temporary = await disk.directory.temporaryPath(disk.names.short(entry.key));
      staged.push(await stageEntry({ file, path, entry, offset, temporary }, options));
      done += entry.bytes;
      options.onProgress(done / all);
    }
    await publish(disk, staged);
  } finally {
    await Promise.all(staged.map(({ temporary }) => rm(temporary, { force: true })));
  }
  return {
    imported: staged.map(({ metadata }) => metadata.key),
    present: manifest.entries.filter((entry) => !wanted.some((each) => each.entry === entry)).map(({ key }) => key),
  };
}

interface Staging {
  file: FileHandle;
  path: string;
  entry: BundleEntry;
  offset: number;
  temporary: string;
}

/** Copies one entry to a temporary file and verifies it. Deletes the file if it is wrong. */
async function stageEntry(staging: Staging, { compare, signal }: ImportOptions): Promise<StagedEntry> {
  const { entry, temporary, path } = staging;
  const problem = (why: string, cause?: unknown) =>
    new HeadstartError('BUNDLE_INVALID', `The entry ${entry.key} in "${path}" is wrong: ${why}.`, { cause });
  try {
    if ((await copyRange(staging, signal)) !== entry.sha256) {
      throw problem('its contents differ from its SHA-256');
    }
    const state = await SequenceState.readFile(temporary, { signal }).catch((cause: Error) => {
      throw HeadstartError.isInstance(cause, 'ABORTED') ? cause : problem(cause.message, cause);
    });
    try {
      const metadata = requireMatch(state, entry, problem);
      await compare?.(state, metadata);
      return { temporary, metadata, tokens: entry.tokens };
    } finally {
      state.close();
    }
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** @returns the SHA-256 of the copied bytes */
async function copyRange({ file, entry, offset, temporary }: Staging, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  const target = await open(temporary, 'wx', 0o600);
  try {
    const buffer = Buffer.alloc(Math.min(CHUNK_BYTES, entry.bytes));
    for (let done = 0; done < entry.bytes; ) {
      throwIfAborted(signal);
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, entry.bytes - done), offset + done);
      if (bytesRead === 0) {
        break; // the bundle has become shorter, so the hash will differ
      }
      const chunk = buffer.subarray(0, bytesRead);
      hash.update(chunk);
      await target.appendFile(chunk); // unlike `write`, always writes all bytes
      done += bytesRead;
    }
    await target.sync();
  } finally {
    await target.close();
  }
  return hash.digest('hex');
}

/** Checks the metadata and the tokens of an entry against the manifest and against its own key. */
function requireMatch(
  state: SequenceState,
  entry: BundleEntry,
  problem: (why: string) => HeadstartError,
): EntryMetadata {
  const metadata = state.metadata as unknown as Partial<EntryMetadata>;
  const { tokens } = state;
  if (metadata.format !== ENTRY_FORMAT || metadata.components === undefined) {
    throw problem(`its format is ${String(metadata.format)}, and this program reads format ${ENTRY_FORMAT}`);
  }
  if (metadata.conversation !== undefined) {
    throw problem('it is the state of a conversation, not a template');
  }
  if (metadata.key !== entry.key || templateKey(metadata.components, tokens) !== entry.key) {
    throw problem('its key does not match its tokens');
  }
  if (tokens.length !== entry.tokens) {
    throw problem(`it has ${tokens.length} tokens, and the manifest says ${entry.tokens}`);
  }
  return metadata as EntryMetadata;
}

/** Makes all entries visible. If one of them fails, deletes the entries that are already visible. */
async function publish(disk: DiskStore, staged: readonly StagedEntry[]): Promise<void> {
  const published: string[] = [];
  try {
    for (const { temporary, metadata, tokens } of staged) {
      published.push(await disk.adopt(temporary, metadata, tokens));
    }
  } catch (error) {
    for (const name of published) {
      await disk.delete(name);
    }
    throw error;
  }
}
