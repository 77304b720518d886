// The memory that a model's KV cache may use.
import { defaultMemoryBytes } from '../../cache/cache-options.js';
import { systemInfo } from '../../native/system.js';
import { modelBytes } from '../model-memory.js';
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
  const weights = await modelBytes(path);
  const gpus = systemInfo().devices.filter(({ type }) => type === 'gpu');
  if (gpus.length > 0) {
    const freeBytes = gpus.reduce((sum, gpu) => sum + gpu.freeBytes, 0);
    return { freeBytes, modelBytes: weights, reservedBytes: COMPUTE_BYTES };
  }
  const reservedBytes = COMPUTE_BYTES + defaultMemoryBytes();
  return { freeBytes: process.availableMemory(), modelBytes: weights, reservedBytes };
}
