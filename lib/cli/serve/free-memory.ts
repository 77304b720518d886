// The memory that a model's KV cache may use.
import { stat } from 'node:fs/promises';
import { defaultMemoryBytes } from '../../cache/cache-options.js';
import { shardPaths } from '../../model/fingerprint.js';
import { systemInfo } from '../../native/system.js';
import type { MemoryBudget } from './context-choice.js';

/** Bytes for the buffers of computations. */
const COMPUTE_BYTES = 512 * 1024 ** 2;

/**
 * The memory of the device that holds the KV cache: the GPU if there is one, else this machine. The KV cache is on the
 * GPU together with the model's layers.
 *
 * @param path the model's file
 */
export async function memoryBudget(path: string): Promise<MemoryBudget> {
  const sizes = await Promise.all(shardPaths(path).map(async (shard) => (await stat(shard)).size));
  const modelBytes = sum(sizes);
  const gpus = systemInfo().devices.filter(({ type }) => type === 'gpu');
  if (gpus.length > 0) {
    return { freeBytes: sum(gpus.map(({ freeBytes }) => freeBytes)), modelBytes, reservedBytes: COMPUTE_BYTES };
  }
  const reservedBytes = COMPUTE_BYTES + defaultMemoryBytes();
  return { freeBytes: process.availableMemory(), modelBytes, reservedBytes };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
