// The memory that a model needs, from its files and their metadata.
import { stat } from 'node:fs/promises';
import { shardPaths } from '../model/fingerprint.js';

type Metadata = Readonly<Record<string, string>>;

/** Bytes of an element of the KV cache, which has the type f16 by default. */
const ELEMENT_BYTES = 2;

/**
 * Bytes of the KV cache for each token. For models whose layers differ, the result is an upper bound: the metadata
 * contains no lists, recurrent layers need no bytes for each token, and the cells of a sliding window are limited.
 */
export function kvBytesPerToken(metadata: Metadata): number {
  const layers = numberIn(metadata, 'block_count') ?? 0;
  const heads = numberIn(metadata, 'attention.head_count') ?? 0;
  const kvHeads = numberIn(metadata, 'attention.head_count_kv') ?? heads;
  const perHead = heads === 0 ? 0 : (numberIn(metadata, 'embedding_length') ?? 0) / heads;
  const keyLength = numberIn(metadata, 'attention.key_length') ?? perHead;
  const valueLength = numberIn(metadata, 'attention.value_length') ?? perHead;
  return Math.ceil(layers * kvHeads * (keyLength + valueLength) * ELEMENT_BYTES);
}

/** The size of all parts of a model in bytes. The weights need about as much memory. */
export async function modelBytes(path: string): Promise<number> {
  const parts = await Promise.all(shardPaths(path).map((part) => stat(part)));
  return parts.reduce((sum, { size }) => sum + size, 0);
}

/** The training length of a model in tokens; 0 if it is unknown. */
export function trainingLength(metadata: Metadata): number {
  return numberIn(metadata, 'context_length') ?? 0;
}

/** A number of the model's architecture; undefined if the metadata lacks it. */
export function numberIn(metadata: Metadata, name: string): number | undefined {
  const value = metadata[`${metadata['general.architecture']}.${name}`];
  return value === undefined || !Number.isFinite(Number(value)) ? undefined : Number(value);
}
