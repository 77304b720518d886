// The contents of a sequence that are outside the KV cache.
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { StoredState } from './state-store.js';

/** The contents of a sequence that was evicted or copied. */
export interface SwappedContents {
  tokens: Int32Array;
  /** See `Sequence.group`. */
  group: string;
  /** The batches in which the tokens were decoded; empty if they were not recorded. */
  chunks: readonly PrefillChunk[];
  /** The state, if it was captured and fitted into the store. The store may have dropped the state since. */
  stored: StoredState | undefined;
  /** Whether the contents were copied from another sequence or from a file. */
  isCopy: boolean;
  /** Settles when the capture of the state has ended, successfully or not. */
  ready: Promise<unknown>;
}

/**
 * The two checkpoints of a conversation. The chat template decides which one the next turn can continue from. If the
 * template leaves out the reasoning of earlier turns, the next prompt differs from the current one after the message
 * that began the current turn. If the template repeats all steps of a turn, the next prompt also contains the newest
 * tool result.
 */
export interface SequenceCheckpoints {
  /** Captured at the message that began the newest turn. */
  turn?: StoredState | undefined;
  /**
   * Captured at the newest tool result of that turn. Before the first result: an older checkpoint, which is used if the
   * turn is aborted.
   */
  step?: StoredState | undefined;
}

/** The checkpoints that a sequence has. The store may have dropped some of them. */
export function checkpointsOf({ checkpoints: { turn, step } }: { checkpoints: SequenceCheckpoints }): StoredState[] {
  return [turn, step].filter((each) => each !== undefined);
}
