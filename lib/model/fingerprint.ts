import { throwIfAborted } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { addon } from '../native/addon.js';
import { FileHash, type FileRange } from '../native/file-hash.js';

/**
 * Size of a sample in bytes. Each tensor has a sample at its start. A tensor that is larger than a sample also has one
 * in its middle.
 */
const SAMPLE_BYTES = 4096;

/**
 * Identifies a model by its content. The fingerprint is a SHA-256 of all shards: of their GGUF headers (all metadata
 * and tensor infos) and of samples of every tensor's data. Two models that differ only outside the samples have the
 * same fingerprint. Fine-tunes and other quantizations differ in every sample.
 *
 * @throws HeadstartError `MODEL_NOT_FOUND`, `MODEL_INVALID`, `ABORTED`.
 */
export async function fingerprintModel(
  path: string,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<string> {
  const hash = new FileHash();
  for (const shard of shardPaths(path)) {
    await hashShard(shard, hash, options.signal);
  }
  return hash.digest();
}

/** The paths of all parts of a split model (`name-00001-of-00003.gguf`), or the path of a single file. */
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

async function hashShard(path: string, hash: FileHash, signal: AbortSignal | undefined): Promise<void> {
  throwIfAborted(signal);
  const { dataOffset, offsets, sizes } = await addon().ggufLayout(path);
  const ranges: FileRange[] = [{ offset: 0, length: dataOffset }];
  for (const [index, offset] of offsets.entries()) {
    const start = dataOffset + offset;
    const size = sizes[index] ?? 0;
    const middle = start + Math.floor(size / 2);
    ranges.push({ offset: start, length: Math.min(SAMPLE_BYTES, size) });
    if (size > SAMPLE_BYTES) {
      ranges.push({ offset: middle, length: Math.min(SAMPLE_BYTES, start + size - middle) });
    }
  }
  try {
    await hash.add(path, ranges, signal);
  } catch (cause) {
    throwIfAborted(signal);
    throw new HeadstartError(
      'MODEL_NOT_FOUND',
      `Expected a readable GGUF file at "${path}": ${(cause as Error).message}`,
      { cause },
    );
  }
}
