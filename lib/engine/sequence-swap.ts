import { HeadstartError } from '../errors.js';
import type { Decoded, DecodeRequest } from './decode-request.js';
import type { EngineContext } from './engine-context.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { SequenceHolder } from './sequence-pool.js';
import { type SwappedSequence, SwapStore } from './swap-store.js';

/**
 * A state is kept if decoding its tokens again would take more than this many times as long as copying it out and in.
 */
const MIN_SPEEDUP = 2;

export interface SequenceSwapHost {
  context: EngineContext;
  canTrim: boolean;
  /** Whether a restored sequence must be the same to the bit. */
  reproducible: boolean;
  /** Whether the model has a sliding window. Its cells change their place when they are restored. */
  hasWindow: boolean;
  /** Milliseconds per prompt token; 0 before the first measurement. */
  promptMsPerToken(): number;
  decode(request: DecodeRequest): Promise<Decoded>;
  withCells<T>(attempt: () => Promise<T>, signal: AbortSignal | undefined, sequence: number): Promise<T>;
}

/**
 * Swaps sequences out and in. If a session is evicted, its state is captured if restoring it is cheaper than decoding
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
  swapOut(sequence: number, holder: SequenceHolder): void {
    const held = holder.held?.();
    if (held === undefined || held.tokens.length <= held.templateTokens) {
      return;
    }
    const { context, reproducible } = this.#host;
    const chunks = this.#chunksOf(sequence);
    const capturing = this.#isWorthSaving(held) ? context.captureSequence(sequence, held.tokens) : undefined;
    if (capturing !== undefined || reproducible) {
      this.#store.put(holder, { ...held, chunks }, capturing);
    }
  }

  /**
   * Makes a checkpoint of a holder with its state, for a fork or a file. The caller must close the state.
   *
   * @param sequence the holder's sequence; undefined if it has none
   * @returns undefined if the holder has no tokens
   * @throws HeadstartError `CLOSED`, `CAPTURE_FAILED`, `OUT_OF_MEMORY`.
   */
  async checkpointOf(holder: SequenceHolder, sequence: number | undefined): Promise<SwappedSequence | undefined> {
    await this.#store.get(holder)?.ready;
    const swapped = this.#store.get(holder);
    const checkpoint = this.checkpoint(holder, sequence);
    const isHeld = swapped === undefined && sequence !== undefined;
    const capture = () =>
      isHeld && this.#restoresExactly && this.#host.context.captureSequence(sequence, checkpoint.tokens);
    const state = swapped?.state?.share() ?? ((checkpoint.tokens.length > 0 && (await capture())) || undefined);
    return state === undefined && checkpoint.chunks.length === 0 ? undefined : { ...checkpoint, state };
  }

  /** Makes a checkpoint without a state, and without waiting. {@link rollBack} returns to it. Used with `reproducible`. */
  checkpoint(holder: SequenceHolder, sequence: number | undefined): SwappedSequence {
    const swapped = this.#store.get(holder);
    const held = holder.held?.() ?? { tokens: new Int32Array(), templateTokens: 0 };
    const { tokens, templateTokens } = swapped ?? held;
    return { tokens, templateTokens, chunks: swapped?.chunks ?? this.#chunksOf(sequence), state: undefined };
  }

  /**
   * Returns a holder to its {@link checkpoint}.
   *
   * @returns whether the sequence now has the tokens of the checkpoint. If not, the holder must empty its sequence; its
   *   next {@link swapIn} or {@link replay} returns to the checkpoint.
   */
  async rollBack(holder: SequenceHolder, sequence: number | undefined, checkpoint: SwappedSequence): Promise<boolean> {
    const { context, canTrim } = this.#host;
    const { length } = checkpoint.tokens;
    const current = this.#chunksOf(sequence);
    const isUnchanged = checkpoint.chunks.every(({ tokens, keep }, index) => {
      const chunk = current[index];
      return chunk?.tokens === tokens && chunk.keep >= keep;
    });
    if (
      sequence !== undefined &&
      canTrim &&
      isUnchanged &&
      !this.has(holder) &&
      context.cells.length(sequence) >= length
    ) {
      await context.removeSequence(sequence, length);
      return true;
    }
    if (this.#store.get(holder)?.tokens !== checkpoint.tokens) {
      this.#store.adopt(holder, checkpoint);
    } // otherwise it was never restored, and its state is still in the store
    return false;
  }

  /** Whether a checkpoint is kept for a holder without a sequence. */
  has(holder: SequenceHolder): boolean {
    return this.#store.get(holder) !== undefined;
  }

  /**
   * Gives a holder the checkpoint of another holder, for {@link swapIn}, and takes ownership of the state.
   *
   * @returns whether the state was kept, because it can be restored exactly and is within the budget
   */
  adopt(holder: SequenceHolder, checkpoint: SwappedSequence): boolean {
    if (this.#restoresExactly) {
      return this.#store.adopt(holder, checkpoint);
    }
    checkpoint.state?.close();
    return this.#store.adopt(holder, { ...checkpoint, state: undefined });
  }

  /**
   * Restores the kept state of an evicted holder into an empty sequence, if the state shares more tokens with `wanted`
   * than the template does.
   *
   * @param wanted the tokens that the holder needs in the sequence
   * @returns the tokens that are in the sequence now; undefined if nothing was restored
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  async swapIn(
    holder: SequenceHolder,
    sequence: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    const swapped = this.#store.get(holder);
    await swapped?.ready;
    if (swapped !== undefined && this.#isUseful(swapped, wanted)) {
      const state = swapped.state?.share(); // the store may drop its own reference during the restore
      if (state !== undefined && (swapped.adopted || this.#hasFreeCells(swapped.tokens.length))) {
        if (await this.#restoreState(sequence, state, signal)) {
          this.#host.context.prefillLog?.set(sequence, swapped.chunks);
          this.#store.drop(holder);
          return swapped.tokens;
        }
      }
      state?.close();
      this.#store.dropStateOf(holder);
      if (this.#host.reproducible) {
        return undefined; // the caller replays the chunks
      }
    }
    this.#store.drop(holder);
    return undefined;
  }

  /**
   * Decodes the tokens of an evicted holder again in the same batches. Call it with `reproducible` if {@link swapIn}
   * restored nothing, after the template has been loaded.
   *
   * @param length number of tokens that are already in the sequence
   * @param wanted the tokens that the holder needs in the sequence
   * @returns the tokens that are in the sequence now; undefined if there was nothing to decode
   * @throws HeadstartError as `Engine.decode`.
   */
  async replay(
    holder: SequenceHolder,
    sequence: number,
    length: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    const swapped = this.#host.reproducible ? this.#store.get(holder) : undefined;
    if (swapped === undefined) {
      return undefined;
    }
    const shared = commonLength(swapped.tokens, wanted);
    const chunks = swapped.chunks.filter(({ from }) => from >= length && from < shared);
    let end = length;
    try {
      for (const chunk of chunks[0]?.from === length ? chunks : []) {
        await this.#decodeAgain(sequence, chunk, signal);
        end = chunk.from + chunk.keep;
      }
    } catch (error) {
      if (!isTransient(error)) {
        this.#store.drop(holder);
      }
      throw error;
    }
    this.#store.drop(holder);
    return end === length ? undefined : swapped.tokens.slice(0, end);
  }

  /** Drops the checkpoint that is kept for a holder. */
  drop(holder: SequenceHolder): void {
    this.#store.drop(holder);
  }

  /** Drops the checkpoints of all holders. Call it after the LoRA adapters have changed. */
  clear(): void {
    this.#store.clear();
  }

  close(): void {
    this.#store.close();
  }

  /** @returns false if the state cannot be restored */
  async #restoreState(
    sequence: number,
    state: SwappedSequence['state'] & object,
    signal?: AbortSignal,
  ): Promise<boolean> {
    const { context, withCells } = this.#host;
    try {
      await withCells(() => context.restoreSequence(sequence, state), signal, sequence);
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
    sequence: number,
    { from, tokens, keep }: PrefillChunk,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    await this.#host.decode({ sequence, tokens, from, signal, onDecoded: () => undefined });
    if (keep < tokens.length) {
      await this.#host.context.removeSequence(sequence, from + keep);
    }
  }

  /** The batches in which the tokens of a sequence were decoded; empty if they were not recorded. */
  #chunksOf(sequence: number | undefined): readonly PrefillChunk[] {
    return sequence === undefined ? [] : (this.#host.context.prefillLog?.of(sequence) ?? []);
  }

  /** Whether a restored state computes the same bits as the original. */
  get #restoresExactly(): boolean {
    return !(this.#host.reproducible && this.#host.hasWindow);
  }

  #isWorthSaving({ tokens, templateTokens }: Pick<SwappedSequence, 'tokens' | 'templateTokens'>): boolean {
    const { context, reproducible } = this.#host;
    if (reproducible) {
      return this.#restoresExactly;
    }
    const replayMs = (tokens.length - templateTokens) * this.#host.promptMsPerToken();
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
    const { info, cells } = this.#host.context;
    return info.kvLayout === 'split' || info.kvCells - cells.used >= 2 * count;
  }

  /** Whether these tokens share more with `wanted` than the template does. */
  #isUseful({ tokens, templateTokens }: SwappedSequence, wanted: Int32Array): boolean {
    const shared = commonLength(tokens, wanted);
    return this.#host.canTrim ? shared > templateTokens : shared === tokens.length;
  }
}

/** Whether the error has nothing to do with the state, so that the next attempt can use it. */
function isTransient(error: unknown): boolean {
  return (
    HeadstartError.isInstance(error, 'ABORTED') ||
    HeadstartError.isInstance(error, 'CLOSED') ||
    HeadstartError.isInstance(error, 'PREEMPTED')
  );
}

function commonLength(a: Int32Array, b: Int32Array): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) {
    length++;
  }
  return length;
}
