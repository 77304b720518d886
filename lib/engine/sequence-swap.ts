import { HeadstartError } from '../errors.js';
import { commonPrefixLength } from '../tokens.js';
import type { Decoded, DecodeRequest } from './decode-request.js';
import type { EngineContext } from './engine-context.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { Sequence } from './sequence.js';
import { type SwappedSequence, SwapStore } from './swap-store.js';

/**
 * A state is kept if decoding its tokens again would take more than this many times as long as copying it out and in.
 */
const MIN_SPEEDUP = 2;

export interface SequenceSwapHost {
  context: EngineContext;
  /** KV cells in use. */
  usedCells(): number;
  canTrim: boolean;
  /** Whether a restored sequence must be the same to the bit. */
  reproducible: boolean;
  /** Whether the model has a sliding window. Its cells change their place when they are restored. */
  hasWindow: boolean;
  /** Milliseconds per prompt token; 0 before the first measurement. */
  promptMsPerToken(): number;
  decode(request: DecodeRequest): Promise<Decoded>;
  withCells<T>(attempt: () => Promise<T>, signal: AbortSignal | undefined, sequence: Sequence): Promise<T>;
}

/**
 * Swaps sequences out and in. If a sequence is evicted, its state is captured if restoring it is cheaper than decoding
 * its tokens again. Forked and restored sessions start from such states too. A state is dropped after it was restored,
 * or when it turns out to be of no use.
 */
export class SequenceSwap {
  readonly #host: SequenceSwapHost;
  readonly #store: SwapStore;

  constructor(host: SequenceSwapHost, maxBytes: number) {
    this.#host = host;
    this.#store = new SwapStore(maxBytes);
  }

  /** Bytes of all states. */
  get bytes(): number {
    return this.#store.bytes;
  }

  /** Captures a sequence that is about to be emptied, if that is worthwhile. */
  swapOut(sequence: Sequence): void {
    const { templateLength } = sequence;
    if (sequence.length <= templateLength) {
      return;
    }
    const capturing = this.#isWorthSaving(sequence) ? sequence.capture() : undefined;
    if (capturing !== undefined || this.#host.reproducible) {
      this.#store.put(sequence, contentsOf(sequence), capturing);
    }
  }

  /**
   * Makes a checkpoint of a sequence with its state, for a fork or a file. The caller must close the state.
   *
   * @returns undefined if the sequence has no tokens
   * @throws HeadstartError `CLOSED`, `CAPTURE_FAILED`, `OUT_OF_MEMORY`.
   */
  async checkpointOf(sequence: Sequence): Promise<SwappedSequence | undefined> {
    await this.#store.get(sequence)?.ready;
    const swapped = this.#store.get(sequence);
    const checkpoint = this.checkpoint(sequence);
    const canCapture = swapped === undefined && sequence.length > 0 && this.#restoresExactly;
    const state = swapped?.state?.share() ?? (canCapture ? await sequence.capture() : undefined);
    return state === undefined && checkpoint.chunks.length === 0 ? undefined : { ...checkpoint, state };
  }

  /** Makes a checkpoint without a state, and without waiting. {@link rollBack} returns to it. Used with `reproducible`. */
  checkpoint(sequence: Sequence): SwappedSequence {
    const { tokens, chunks } = this.#store.get(sequence) ?? contentsOf(sequence);
    return { tokens, templateTokens: sequence.templateLength, chunks, state: undefined };
  }

  /**
   * Returns a sequence to its {@link checkpoint}.
   *
   * @returns whether the sequence now has the tokens of the checkpoint. If not, the caller must empty the sequence; its
   *   next {@link swapIn} or {@link replay} returns to the checkpoint.
   */
  async rollBack(sequence: Sequence, checkpoint: SwappedSequence): Promise<boolean> {
    const { length } = checkpoint.tokens;
    const current = sequence.log?.chunks ?? [];
    const isUnchanged = checkpoint.chunks.every(({ tokens, keep }, index) => {
      const chunk = current[index];
      return chunk?.tokens === tokens && chunk.keep >= keep;
    });
    const isHeld = sequence.isLeased && length > 0 && sequence.length >= length && !this.has(sequence);
    if (isHeld && this.#host.canTrim && isUnchanged) {
      return sequence.trim(length);
    }
    if (this.#store.get(sequence)?.tokens !== checkpoint.tokens) {
      this.#store.adopt(sequence, checkpoint);
    } // otherwise it was never restored, and its state is still in the store
    return false;
  }

  /** Whether a checkpoint is kept for a sequence. */
  has(sequence: Sequence): boolean {
    return this.#store.get(sequence) !== undefined;
  }

  /**
   * Gives a sequence the checkpoint of another one, for {@link swapIn}, and takes ownership of the state.
   *
   * @returns whether the state was kept, because it can be restored exactly and is within the budget
   */
  adopt(sequence: Sequence, checkpoint: SwappedSequence): boolean {
    if (this.#restoresExactly) {
      return this.#store.adopt(sequence, checkpoint);
    }
    checkpoint.state?.close();
    return this.#store.adopt(sequence, { ...checkpoint, state: undefined });
  }

  /**
   * Restores the kept state of an evicted sequence, which is empty, if the state shares more tokens with `wanted` than
   * the template does.
   *
   * @param wanted the tokens that the sequence needs
   * @returns whether the state was restored
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  async swapIn(sequence: Sequence, wanted: Int32Array, signal?: AbortSignal): Promise<boolean> {
    const swapped = this.#store.get(sequence);
    await swapped?.ready;
    if (swapped !== undefined && this.#isUseful(swapped, wanted)) {
      const state = swapped.state?.share(); // the store may drop its own reference during the restore
      if (state !== undefined && (swapped.adopted || this.#hasFreeCells(swapped.tokens.length))) {
        if (await this.#restoreState(sequence, state, signal)) {
          sequence.log?.set(swapped.chunks);
          this.#store.drop(sequence);
          return true;
        }
      }
      state?.close();
      this.#store.dropStateOf(sequence);
      if (this.#host.reproducible) {
        return false; // the caller replays the chunks
      }
    }
    this.#store.drop(sequence);
    return false;
  }

  /**
   * Decodes the tokens of an evicted sequence again in the same batches. Call it with `reproducible` if {@link swapIn}
   * restored nothing, after the template has been loaded.
   *
   * @param wanted the tokens that the sequence needs
   * @throws HeadstartError as `Engine.decode`.
   */
  async replay(sequence: Sequence, wanted: Int32Array, signal?: AbortSignal): Promise<void> {
    const swapped = this.#host.reproducible ? this.#store.get(sequence) : undefined;
    if (swapped === undefined) {
      return;
    }
    const { length } = sequence;
    const shared = commonPrefixLength(swapped.tokens, wanted);
    const chunks = swapped.chunks.filter(({ from }) => from >= length && from < shared);
    try {
      for (const chunk of chunks[0]?.from === length ? chunks : []) {
        await this.#decodeAgain(sequence, chunk, signal);
      }
    } catch (error) {
      if (!isTransient(error)) {
        this.#store.drop(sequence);
      }
      throw error;
    }
    this.#store.drop(sequence);
  }

  /** Drops the checkpoint that is kept for a sequence. */
  drop(sequence: Sequence): void {
    this.#store.drop(sequence);
  }

  /** Drops the checkpoints of all sequences. Call it after the LoRA adapters have changed. */
  clear(): void {
    this.#store.clear();
  }

  close(): void {
    this.#store.close();
  }

  /** @returns false if the state cannot be restored */
  async #restoreState(
    sequence: Sequence,
    state: SwappedSequence['state'] & object,
    signal?: AbortSignal,
  ): Promise<boolean> {
    try {
      await this.#host.withCells(() => sequence.restore(state), signal, sequence);
      return true;
    } catch (error) {
      if (isTransient(error)) {
        throw error;
      }
      return false;
    } finally {
      state.close();
    }
  }

  /** Decodes the whole chunk, and then removes the tokens that the sequence no longer held. */
  async #decodeAgain(
    sequence: Sequence,
    { tokens, keep }: PrefillChunk,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { length } = sequence;
    await this.#host.decode({ sequence, tokens, signal });
    if (keep < tokens.length) {
      await sequence.trim(length + keep);
    }
  }

  /** Whether a restored state computes the same bits as the original. */
  get #restoresExactly(): boolean {
    return !(this.#host.reproducible && this.#host.hasWindow);
  }

  #isWorthSaving({ length, templateLength }: Sequence): boolean {
    const { context, reproducible } = this.#host;
    if (reproducible) {
      return this.#restoresExactly;
    }
    const replayMs = (length - templateLength) * this.#host.promptMsPerToken();
    const { captures, capturedBytes, captureMs } = context.counters();
    // The estimate assumes that this state is about as large as earlier ones.
    const copyMs = captures === 0 ? 1 : (2 * captureMs) / captures;
    return capturedBytes / Math.max(1, captures) <= this.#store.maxBytes && replayMs > MIN_SPEEDUP * copyMs;
  }

  /**
   * Whether cells are plentiful. A restored sequence shares no cells with its template, so if cells are scarce, a fork
   * is better.
   */
  #hasFreeCells(count: number): boolean {
    const { info } = this.#host.context;
    return info.kvLayout === 'split' || info.kvCells - this.#host.usedCells() >= 2 * count;
  }

  /** Whether these tokens share more with `wanted` than the template does. */
  #isUseful({ tokens, templateTokens }: SwappedSequence, wanted: Int32Array): boolean {
    const shared = commonPrefixLength(tokens, wanted);
    return this.#host.canTrim ? shared > templateTokens : shared === tokens.length;
  }
}

function contentsOf({ tokens, templateLength, log }: Sequence): Omit<SwappedSequence, 'state'> {
  return { tokens: tokens.slice(), templateTokens: templateLength, chunks: log?.chunks ?? [] };
}

/** Whether the error has nothing to do with the state, so that the next attempt can use it. */
function isTransient(error: unknown): boolean {
  return (
    HeadstartError.isInstance(error, 'ABORTED') ||
    HeadstartError.isInstance(error, 'CLOSED') ||
    HeadstartError.isInstance(error, 'PREEMPTED')
  );
}
