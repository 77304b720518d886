// How a session that holds no sequence comes back to what it held.
import { HeadstartError } from '../errors.js';
import type { Decoded, DecodeRequest } from './decode-request.js';
import type { EngineContext } from './engine-context.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { SequenceHolder } from './sequence-pool.js';
import { type SwappedSequence, SwapStore } from './swap-store.js';

/** A state is worth its bytes where decoding its tokens again takes so many times as long as copying it out and in. */
const WORTH = 2;

export interface SequenceSwapHost {
  context: EngineContext;
  canTrim: boolean;
  /** Whether what is brought back must be the same to the bit. */
  exact: boolean;
  /** A window's cells come to lie elsewhere when they are restored. */
  hasWindow: boolean;
  /** Milliseconds to decode a token of a prompt; 0 while unknown. */
  promptMsPerToken(): number;
  decode(request: DecodeRequest): Promise<Decoded>;
  withRoom<T>(attempt: () => Promise<T>, signal: AbortSignal | undefined, sequence: number): Promise<T>;
}

/**
 * Saves what evicted sessions held, where that is cheaper than decoding it again, and puts it back; likewise what sessions
 * begin with that another held before. What is saved stays until it has been put back, or proved useless.
 */
export class SequenceSwap {
  readonly #host: SequenceSwapHost;
  readonly #saved: SwapStore;

  constructor(host: SequenceSwapHost, maxBytes: number) {
    this.#host = host;
    this.#saved = new SwapStore(maxBytes);
  }

  /** Bytes of states. */
  get bytes(): number {
    return this.#saved.bytes;
  }

  /** The sequence is about to be emptied. */
  swapOut(sequence: number, holder: SequenceHolder): void {
    const held = holder.held?.();
    if (held === undefined || held.tokens.length <= held.templateTokens) {
      return;
    }
    const { context, exact } = this.#host;
    const pieces = this.#piecesOf(sequence);
    const capturing = this.#isWorthSaving(held) ? context.captureSequence(sequence, held.tokens) : undefined;
    if (capturing !== undefined || exact) {
      this.#saved.put(holder, { ...held, chunks: pieces }, capturing);
    }
  }

  /** As `Engine.pastOf`. */
  async checkpointOf(holder: SequenceHolder, sequence: number | undefined): Promise<SwappedSequence | undefined> {
    await this.#saved.get(holder)?.ready;
    const saved = this.#saved.get(holder);
    const past = this.checkpoint(holder, sequence);
    const isHeld = saved === undefined && sequence !== undefined;
    const capture = () => isHeld && this.#restoresExactly && this.#host.context.captureSequence(sequence, past.tokens);
    const state = saved?.state?.share() ?? ((past.tokens.length > 0 && (await capture())) || undefined);
    return state === undefined && past.chunks.length === 0 ? undefined : { ...past, state };
  }

  /** As `Engine.mark`. */
  checkpoint(holder: SequenceHolder, sequence: number | undefined): SwappedSequence {
    const saved = this.#saved.get(holder);
    const held = holder.held?.() ?? { tokens: new Int32Array(), templateTokens: 0 };
    const { tokens, templateTokens } = saved ?? held;
    return { tokens, templateTokens, chunks: saved?.chunks ?? this.#piecesOf(sequence), state: undefined };
  }

  /** As `Engine.takeBack`. */
  async rollBack(holder: SequenceHolder, sequence: number | undefined, past: SwappedSequence): Promise<boolean> {
    const { context, canTrim } = this.#host;
    const { length } = past.tokens;
    const own = this.#piecesOf(sequence);
    const isThere = past.chunks.every(({ tokens, keep }, index) => {
      const piece = own[index];
      return piece?.tokens === tokens && piece.keep >= keep;
    });
    if (sequence !== undefined && canTrim && isThere && !this.has(holder) && context.cells.length(sequence) >= length) {
      await context.removeSequence(sequence, length);
      return true;
    }
    if (this.#saved.get(holder)?.tokens !== past.tokens) {
      this.#saved.adopt(holder, past);
    } // else it did not get so far as to come back, and its state is still there
    return false;
  }

  has(holder: SequenceHolder): boolean {
    return this.#saved.get(holder) !== undefined;
  }

  /** What the holder comes back to, though another held it. Its state is ours from now on. @returns whether that is kept */
  adopt(holder: SequenceHolder, past: SwappedSequence): boolean {
    if (this.#restoresExactly) {
      return this.#saved.adopt(holder, past);
    }
    past.state?.close();
    return this.#saved.adopt(holder, { ...past, state: undefined });
  }

  /**
   * Puts back what was saved of a holder into its empty sequence, where that serves for `wanted`.
   *
   * @returns the tokens that are in the sequence now; undefined where nothing is
   */
  async swapIn(
    holder: SequenceHolder,
    sequence: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    const saved = this.#saved.get(holder);
    await saved?.ready;
    if (saved !== undefined && this.#serves(saved, wanted)) {
      const state = saved.state?.share(); // the budget may drop the store's own meanwhile
      if (state !== undefined && (saved.adopted || this.#hasRoom(saved.tokens.length))) {
        if (await this.#restoreState(sequence, state, signal)) {
          this.#host.context.prefillLog?.set(sequence, saved.chunks);
          this.#saved.drop(holder);
          return saved.tokens;
        }
      }
      state?.close();
      this.#saved.dropStateOf(holder);
      if (this.#host.exact) {
        return undefined; // what is left of it is replayed
      }
    }
    this.#saved.drop(holder);
    return undefined;
  }

  /**
   * Where the bits count: decodes again, in the same batches, what a sequence held behind the `length` tokens that are in it.
   *
   * @returns the tokens that are in the sequence now; undefined where nothing changed
   */
  async replay(
    holder: SequenceHolder,
    sequence: number,
    length: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    const saved = this.#host.exact ? this.#saved.get(holder) : undefined;
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
      if (!isPassing(error)) {
        this.#saved.drop(holder);
      }
      throw error;
    }
    this.#saved.drop(holder);
    return end === length ? undefined : saved.tokens.slice(0, end);
  }

  /** Its holder will not come back. */
  drop(holder: SequenceHolder): void {
    this.#saved.drop(holder);
  }

  /** Drops all: what the model computes has changed. */
  clear(): void {
    this.#saved.clear();
  }

  close(): void {
    this.#saved.close();
  }

  /** @returns false where the state is of no use */
  async #restoreState(
    sequence: number,
    state: SwappedSequence['state'] & object,
    signal?: AbortSignal,
  ): Promise<boolean> {
    const { context, withRoom } = this.#host;
    try {
      await withRoom(() => context.restoreSequence(sequence, state), signal, sequence);
      return true;
    } catch (error) {
      if (isPassing(error)) {
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

  /** In which batches a sequence came to what it holds, where that is kept. */
  #piecesOf(sequence: number | undefined): readonly PrefillChunk[] {
    return sequence === undefined ? [] : (this.#host.context.prefillLog?.of(sequence) ?? []);
  }

  /** Whether a state put back is as good as what it was taken from. */
  get #restoresExactly(): boolean {
    return !(this.#host.exact && this.#host.hasWindow);
  }

  #isWorthSaving({ tokens, templateTokens }: Pick<SwappedSequence, 'tokens' | 'templateTokens'>): boolean {
    const { context, exact } = this.#host;
    if (exact) {
      return this.#restoresExactly;
    }
    const replayMs = (tokens.length - templateTokens) * this.#host.promptMsPerToken();
    const { captures, capturedBytes, captureMs } = context.counters();
    // A state is about as large as the others were.
    const copyMs = captures === 0 ? 1 : (2 * captureMs) / captures;
    return capturedBytes / Math.max(1, captures) <= this.#saved.maxBytes && replayMs > WORTH * copyMs;
  }

  /** What is restored shares no cells with its template, as a fork of it does: where cells are short, that is worth more. */
  #hasRoom(count: number): boolean {
    const { info, cells } = this.#host.context;
    return info.kvLayout === 'split' || info.kvCells - cells.used >= 2 * count;
  }

  /** Whether a sequence that holds these tokens has more of `wanted` than its template. */
  #serves({ tokens, templateTokens }: SwappedSequence, wanted: Int32Array): boolean {
    const shared = commonLength(tokens, wanted);
    return this.#host.canTrim ? shared > templateTokens : shared === tokens.length;
  }
}

/** Says nothing about what was saved: it serves the next attempt. */
function isPassing(error: unknown): boolean {
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
