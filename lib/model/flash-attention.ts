// Decides `flashAttention: 'auto'`. docs/design/scheduling.md explains the rule and has its measurements.
import type { CacheType, KvLayout } from '../native/context.js';

/** How a context computes attention. */
export interface AttentionChoice {
  flashAttention: boolean;
  /** Maximum tokens that are computed at once. @default that of the context */
  microBatchSize?: number;
}

/** What the choice depends on. */
export interface AttentionUse {
  /** Whether layers of the model are on a GPU. */
  usesGpu: boolean;
  valueType: CacheType;
  kvLayout: KvLayout;
  /** Cells that one sequence can use. */
  cells: number;
  /** Sequences that decode at the same time. */
  sequences: number;
  /** Attention heads of a layer. */
  heads: number;
  batchSize: number;
}

/** The constants of the rule for the CPU. */
const ON_CPU = {
  /**
   * From this number of sequences on, flash attention is on in a unified KV cache. It skips the cells of other
   * sequences. Without it, each token is multiplied with all cells.
   */
  manySequences: 32,
  /** Without flash attention, the scores of a micro-batch may take this many bytes: 4 for each token, cell and head. */
  maxScoreBytes: 512 * 2 ** 20,
  /** If smaller micro-batches were necessary for that, flash attention is on. */
  minMicroBatch: 128,
};

const DEFAULT_MICRO_BATCH = 512;

/**
 * Chooses flash attention. It is on with a GPU, and with a quantized V cache, which needs it. On the CPU it is otherwise
 * off, except for many sequences and for scores that would need too much memory.
 */
export function chooseAttention(use: AttentionUse): AttentionChoice {
  const { usesGpu, valueType, kvLayout, cells, sequences, heads, batchSize } = use;
  const isQuantized = !['f32', 'f16', 'bf16'].includes(valueType);
  if (usesGpu || isQuantized || (kvLayout === 'unified' && sequences >= ON_CPU.manySequences)) {
    return { flashAttention: true };
  }
  const fitting = Math.floor(ON_CPU.maxScoreBytes / (4 * cells * Math.max(1, heads)));
  const microBatchSize = Math.min(batchSize, DEFAULT_MICRO_BATCH, 2 ** Math.floor(Math.log2(fitting)));
  const isTooSmall = microBatchSize < Math.min(batchSize, ON_CPU.minMicroBatch);
  return isTooSmall ? { flashAttention: true } : { flashAttention: false, microBatchSize };
}
