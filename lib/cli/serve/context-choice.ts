// Chooses the sizes of a server's context: the model's training length, reduced to what memory allows.
import { HeadstartError } from '../../errors.js';
import { kvBytesPerToken, trainingLength } from '../model-memory.js';

/** The memory in which the KV cache must fit. */
export interface MemoryBudget {
  /** Bytes that are free now. */
  freeBytes: number;
  /** Bytes that the weights will need. */
  modelBytes: number;
  /** Bytes that the agent may use for other states and for computations. */
  reservedBytes: number;
}

/** The sizes of a context. */
export interface ContextChoice {
  /** Maximum number of tokens of one conversation. */
  contextSize: number;
  /** Tokens of all conversations together. */
  kvCells: number;
  /** Bytes of the KV cache. */
  kvBytes: number;
  /** The training length of the model in tokens. 0 if it is unknown. */
  trainContextSize: number;
  /** Why the context is shorter than the training length. */
  reason?: string;
}

/** The size of a context if the model's training length is unknown. */
const UNKNOWN_TRAINING_LENGTH = 8192;
/** Without a requested size, the context is never shorter, because a shorter one would be useless. */
const SHORTEST = 2048;
/** llama.cpp rounds the number of cells to a multiple of this value. */
const CELL_STEP = 256;
/** The part of the free memory that the KV cache may use. The rest is for other programs. */
const USABLE = 0.8;

/**
 * Chooses the context of a server.
 *
 * @param requested the size that the user wants. Undefined: the training length, reduced to what memory allows
 * @throws HeadstartError `OUT_OF_MEMORY` if the requested size does not fit.
 */
export function chooseContext(
  metadata: Readonly<Record<string, string>>,
  memory: MemoryBudget,
  requested?: number,
): ContextChoice {
  const bytesPerToken = kvBytesPerToken(metadata);
  const trained = trainingLength(metadata);
  const usable = Math.max(0, memory.freeBytes * USABLE - memory.modelBytes - memory.reservedBytes);
  const fitting = bytesPerToken === 0 ? Number.POSITIVE_INFINITY : roundDown(usable / bytesPerToken);
  const wanted = requested ?? (trained || UNKNOWN_TRAINING_LENGTH);
  if (requested !== undefined && requested > Math.max(fitting, SHORTEST)) {
    throw new HeadstartError(
      'OUT_OF_MEMORY',
      `A context of ${requested} tokens needs ${gibibytes(requested * bytesPerToken)} for its KV cache, and ` +
        `${gibibytes(usable)} are free for it. The largest context that fits has ${fitting} tokens`,
    );
  }
  const contextSize = Math.max(Math.min(wanted, fitting), Math.min(wanted, SHORTEST));
  // More than one conversation fits if the memory allows that.
  const kvCells = Math.max(contextSize, Math.min(2 * contextSize, fitting));
  return {
    contextSize,
    kvCells,
    kvBytes: kvCells * bytesPerToken,
    trainContextSize: trained,
    ...(contextSize < wanted && {
      reason: `${gibibytes(memory.freeBytes)} of memory are free, and the model needs ${gibibytes(memory.modelBytes)}`,
    }),
  };
}

function roundDown(cells: number): number {
  return Math.floor(cells / CELL_STEP) * CELL_STEP;
}

/** A number of bytes for people. */
export function gibibytes(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}
