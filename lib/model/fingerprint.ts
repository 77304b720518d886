import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { HeadstartError } from '../errors.js';
import { addon, throwIfAborted } from '../native/addon.js';

/** Bytes read at each of two places of every tensor. */
const SAMPLE_BYTES = 4096;
/** Hashed at once on JavaScript's thread: a tenth of a millisecond, then others have their turn. */
const HEADER_PIECE_BYTES = 1 << 17;

/**
 * What a model computes with, as one hash: SHA-256 over the GGUF header (all metadata and tensor infos) and a sample of
 * every tensor's data, over all shards. Models that differ in a weight outside every sample, and in nothing else, would
 * share it; fine-tunes and other quantisations differ everywhere.
 *
 * @throws HeadstartError `MODEL_NOT_FOUND`, `MODEL_INVALID`, `ABORTED`.
 */
export async function fingerprintModel(
  path: string,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<string> {
  const hash = createHash('sha256');
  for (const shard of shardPaths(path)) {
    await hashShard(shard, hash, options.signal);
  }
  return hash.digest('hex');
}

/** All files of a split model (`name-00001-of-00003.gguf`), or the one. */
export function shardPaths(path: string): string[] {
  const match = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/.exec(path);
  if (match === null) {
    return [path];
  }
  const [, prefix, , count] = match;
  return Array.from({ length: Number(count) }, (_, index) => {
    return `${prefix}-${String(index + 1).padStart(5, '0')}-of-${count}.gguf`;
  });
}

async function hashShard(path: string, hash: Hash, signal: AbortSignal | undefined): Promise<void> {
  throwIfAborted(signal);
  const { dataOffset, offsets, sizes } = await addon().ggufLayout(path);
  const file = await open(path).catch((cause: Error) => {
    throw new HeadstartError('MODEL_NOT_FOUND', `Expected a readable GGUF file at "${path}": ${cause.message}`, {
      cause,
    });
  });
  try {
    const buffer = Buffer.allocUnsafe(HEADER_PIECE_BYTES);
    for (let position = 0; position < dataOffset; position += HEADER_PIECE_BYTES) {
      await hashRange(file, hash, buffer, position, Math.min(HEADER_PIECE_BYTES, dataOffset - position));
    }
    for (const [index, offset] of offsets.entries()) {
      throwIfAborted(signal);
      const start = dataOffset + offset;
      const size = sizes[index] ?? 0;
      await hashRange(file, hash, buffer, start, Math.min(SAMPLE_BYTES, size));
      if (size > SAMPLE_BYTES) {
        const middle = start + Math.floor(size / 2);
        await hashRange(file, hash, buffer, middle, Math.min(SAMPLE_BYTES, start + size - middle));
      }
    }
  } finally {
    await file.close();
  }
}

async function hashRange(
  file: FileHandle,
  hash: Hash,
  buffer: Buffer,
  position: number,
  length: number,
): Promise<void> {
  const { bytesRead } = await file.read(buffer, 0, length, position);
  hash.update(buffer.subarray(0, bytesRead));
}
