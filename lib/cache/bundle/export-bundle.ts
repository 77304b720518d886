import { createHash, type KeyObject } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { throwIfAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import { replaceFile } from '../../files.js';
import { packageVersion } from '../../native/places.js';
import { SequenceState } from '../../native/state.js';
import type { DiskStore } from '../disk/disk-store.js';
import type { EntryMetadata } from '../disk/entry.js';
import type { CacheEntry } from '../disk/operations.js';
import { type BundleEntry, bundleHead } from './bundle-format.js';

export interface ExportOptions {
  /** An Ed25519 key. Without a key, the bundle is not signed. */
  privateKey: KeyObject | undefined;
  signal: AbortSignal;
  /** Called with the share of the work that is done, 0 to 1. */
  onProgress(fraction: number): void;
}

const CHUNK_BYTES = 4 * 1024 ** 2;

/**
 * Writes entries into a bundle. Each entry is verified first.
 *
 * @returns the size of the bundle in bytes
 * @throws HeadstartError `ENTRY_MISSING`, `ENTRY_CORRUPT`, `ENTRY_FOREIGN`, `READ_FAILED`, `WRITE_FAILED`, `DISK_FULL`,
 *   `ABORTED`.
 */
export async function exportBundle(
  disk: DiskStore,
  entries: readonly CacheEntry[],
  path: string,
  { privateKey, signal, onProgress }: ExportOptions,
): Promise<number> {
  const all = 2 * entries.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  const onBytes = (bytes: number) => {
    done += bytes;
    onProgress(done / all);
    throwIfAborted(signal);
  };
  const described: BundleEntry[] = [];
  for (const entry of entries) {
    described.push(await describeEntry(disk, entry, signal, onBytes));
  }
  const manifest = { package: packageVersion, createdAt: new Date().toISOString(), entries: described };
  const head = bundleHead(manifest, privateKey);
  return replaceFile(path, async (temporary) => {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.appendFile(head);
      let size = head.length;
      for (const [index, entry] of entries.entries()) {
        const { bytes, sha256 } = described[index] as BundleEntry;
        const hash = await eachChunk(pathOf(disk, entry), onBytes, (chunk) => file.appendFile(chunk));
        if (hash !== sha256) {
          throw new HeadstartError('READ_FAILED', `The entry ${entry.key} was replaced during the export. Try again.`);
        }
        size += bytes;
      }
      await file.sync();
      return size;
    } finally {
      await file.close();
    }
  });
}

async function describeEntry(
  disk: DiskStore,
  entry: CacheEntry,
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<BundleEntry> {
  const path = pathOf(disk, entry);
  const state = await SequenceState.readFile(path, { signal });
  const { key, components } = state.metadata as unknown as EntryMetadata;
  const tokens = state.tokens.length;
  state.close();
  let bytes = 0;
  const sha256 = await eachChunk(path, onBytes, (chunk) => {
    bytes += chunk.length;
  });
  return { key, bytes, sha256, tokens, fingerprint: components.fingerprint };
}

const pathOf = ({ directory }: DiskStore, { file = '' }: CacheEntry): string => directory.join(file);

/** Reads a file in chunks. @returns its SHA-256 */
async function eachChunk(
  path: string,
  onBytes: (bytes: number) => void,
  onChunk: (chunk: Buffer) => unknown,
): Promise<string> {
  const file = await open(path, 'r').catch((cause: Error) => {
    throw new HeadstartError('READ_FAILED', `Could not read ${path}: ${cause.message}.`, { cause });
  });
  try {
    return await hashChunks(file, onBytes, onChunk);
  } finally {
    await file.close();
  }
}

async function hashChunks(file: FileHandle, onBytes: (bytes: number) => void, onChunk: (chunk: Buffer) => unknown) {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(CHUNK_BYTES);
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length);
    if (bytesRead === 0) {
      return hash.digest('hex');
    }
    const chunk = buffer.subarray(0, bytesRead);
    hash.update(chunk);
    await onChunk(chunk);
    onBytes(bytesRead);
  }
}
