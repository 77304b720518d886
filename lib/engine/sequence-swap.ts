import { HeadstartError } from '../errors.js';
import type { Decoded, DecodeRequest } from './decode-request.js';
import type { EngineContext } from './engine-context.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { SequenceHolder } from './sequence-pool.js';
import { type SwappedSequence, SwapStore } from './swap-store.js';

/** A state is kept if decoding its tokens again would take this many times as long as copying it out and in. */
const MIN_SPEEDUP = 2;

export interface SequenceSwapHost {
  context: EngineContext;
  canTrim: boolean;
  /** Whether a restored sequence must be the same to the bit. */
  reproducible: boolean;
  /** The model has a sliding window, whose cells move when they are restored. */
  hasWindow: boolean;
  /** Milliseconds per prompt token; 0 while unknown. */
  promptMsPerToken(): number;
  decode(request: DecodeRequest): Promise<Decoded>;
  withCells<T>(attempt: () => Promise<T>, signal: AbortSignal | undefined, sequence: number): Promise<T>;
}

/**
 * Swaps sequences out and in. An evicted session's state is captured if restoring it is cheaper than decoding its tokens again.
 * Forked and restored sessions start from such states as well. A state is dropped once it has been restored or proves useless.
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

  /** As `Engine.checkpointOf`. */
  async checkpointOf(holder: SequenceHolder, sequence: number | undefined): Promise<SwappedSequence | undefined> {
    await this.#store.get(holder)?.ready;
    const saved = this.#store.get(holder);
    const checkpoint = this.checkpoint(holder, sequence);
    const isHeld = saved === undefined && sequence !== undefined;
    const capture = () =>
      isHeld && this.#restoresExactly && this.#host.context.captureSequence(sequence, checkpoint.tokens);
    const state = saved?.state?.share() ?? ((checkpoint.tokens.length > 0 && (await capture())) || undefined);
    return state === undefined && checkpoint.chunks.length === 0 ? undefined : { ...checkpoint, state };
  }

  /** As `Engine.checkpoint`. */
  checkpoint(holder: SequenceHolder, sequence: number | undefined): SwappedSequence {
    const saved = this.#store.get(holder);
    const held = holder.held?.() ?? { tokens: new Int32Array(), templateTokens: 0 };
    const { tokens, templateTokens } = saved ?? held;
    return { tokens, templateTokens, chunks: saved?.chunks ?? this.#chunksOf(sequence), state: undefined };
  }

  /** As `Engine.rollBack`. */
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

  has(holder: SequenceHolder): boolean {
    return this.#store.get(holder) !== undefined;
  }

  /** As `Engine.adopt`. */
  adopt(holder: SequenceHolder, checkpoint: SwappedSequence): boolean {
    if (this.#restoresExactly) {
      return this.#store.adopt(holder, checkpoint);
    }
    checkpoint.state?.close();
    return this.#store.adopt(holder, { ...checkpoint, state: undefined });
  }

  /**
   * As `Engine.swapIn`.
   *
   * @returns the tokens that are in the sequence now; undefined if nothing was restored
   */
  async swapIn(
    holder: SequenceHolder,
    sequence: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    const saved = this.#store.get(holder);
    await saved?.ready;
    if (saved !== undefined && this.#isUseful(saved, wanted)) {
      const state = saved.state?.share(); // the store may drop its own reference meanwhile
      if (state !== undefined && (saved.adopted || this.#hasFreeCells(saved.tokens.length))) {
        if (await this.#restoreState(sequence, state, signal)) {
          this.#host.context.prefillLog?.set(sequence, saved.chunks);
          this.#store.drop(holder);
          return saved.tokens;
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
   * As `Engine.replay`.
   *
   * @returns the tokens that are in the sequence now; undefined if there was nothing to decode
   */
  async replay(
    holder: SequenceHolder,
    sequence: number,
    length: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    const saved = this.#host.reproducible ? this.#store.get(holder) : undefined;
    if (saved === undefined) {
      return undefined;
    }
    const shared = commonLength(saved.tokens, wanted);
    const pieces = saved.chunks.filter(({ from }) => from >= length && from < shared);
    let end = length;
    try {
      for (const piece of pieces[0]?.from === length ? pieces : []) {
        await this.#decodeAgain(sequence, piece, signal);
        end = piece.from + piece.keep;
      }
    } catch (error) {
      if (!isTransient(error)) {
        this.#store.drop(holder);
      }
      throw error;
    }
    this.#store.drop(holder);
    return end === length ? undefined : saved.tokens.slice(0, end);
  }

  /** Drops what was kept for a holder. */
  drop(holder: SequenceHolder): void {
    this.#store.drop(holder);
  }

  /** Drops everything, because the model now computes something else. */
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

  /** The batches in which a sequence's tokens were decoded; empty if not recorded. */
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

  /** A restored sequence shares no cells with its template. If cells are short, a fork of the template is the better start. */
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

/** The state is not at fault: the next attempt can use it. */
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
