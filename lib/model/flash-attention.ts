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
  /** Whether the model has both attention and recurrent layers. */
  hybrid: boolean;
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
  /** Tokens of a micro-batch without flash attention. Larger micro-batches make a long cold prefill slower. */
  microBatch: 128,
  /** If the scores of a micro-batch would take more bytes, flash attention is on. A score has 4 bytes. */
  maxScoreBytes: 512 * 2 ** 20,
};

/**
 * Chooses flash attention. It is on with a GPU, with a quantized V cache, which needs it, and with a hybrid model, whose V
 * cache would be padded without it. On the CPU it is otherwise off, except for many sequences and for scores that would
 * need too much memory.
 */
export function chooseAttention(use: AttentionUse): AttentionChoice {
  const { usesGpu, hybrid, valueType, kvLayout, cells, sequences, heads, batchSize } = use;
  const isQuantized = !['f32', 'f16', 'bf16'].includes(valueType);
  const microBatchSize = Math.min(batchSize, ON_CPU.microBatch);
  const hasManySequences = kvLayout === 'unified' && sequences >= ON_CPU.manySequences;
  const needsMuchMemory = 4 * microBatchSize * cells * heads > ON_CPU.maxScoreBytes;
  if (usesGpu || hybrid || isQuantized || hasManySequences || needsMuchMemory) {
    return { flashAttention: true };
  }
  return { flashAttention: false, microBatchSize };
}
