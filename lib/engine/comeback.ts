// How a session that lost its sequence comes back to what it held.
import { HeadstartError } from '../errors.js';
import type { EngineContext } from './engine-context.js';
import type { Piece } from './journal.js';
import type { Decoded, DecodeRequest } from './request.js';
import { type SavedSequence, SavedSequences } from './saved.js';
import type { SequenceHolder } from './sequences.js';

/** A state is worth its bytes where decoding its tokens again takes so many times as long as copying it out and in. */
const WORTH = 2;

export interface ComebackHost {
  context: EngineContext;
  canTrim: boolean;
  /** Whether what is brought back must be the same to the bit. */
  exact: boolean;
  /** A window's cells come to lie elsewhere when they are restored. */
  hasWindow: boolean;
  /** Milliseconds to decode a token of a prompt; 0 while unknown. */
  promptMsPerToken(): number;
  decode(request: DecodeRequest): Promise<Decoded>;
  withRoom<T>(attempt: () => Promise<T>, signal?: AbortSignal): Promise<T>;
}

/** Saves what evicted sessions held, where that is cheaper than decoding it again, and puts it back. */
export class Comeback {
  readonly #host: ComebackHost;
  readonly #saved: SavedSequences;
  /** What was saved of a holder whose state could not be used, until it is replayed. */
  readonly #toReplay = new WeakMap<SequenceHolder, SavedSequence>();

  constructor(host: ComebackHost, maxBytes: number) {
    this.#host = host;
    this.#saved = new SavedSequences(maxBytes);
  }

  /** Bytes of states. */
  get bytes(): number {
    return this.#saved.bytes;
  }

  /** The sequence is about to be emptied. */
  onEvict(sequence: number, holder: SequenceHolder): void {
    const held = holder.held?.();
    if (held === undefined || held.tokens.length <= held.templateTokens) {
      return;
    }
    const { context, exact } = this.#host;
    const capturing = this.#isWorthSaving(held) ? context.captureSequence(sequence, held.tokens) : undefined;
    if (capturing !== undefined || exact) {
      this.#saved.put(holder, { ...held, pieces: context.journal?.of(sequence) ?? [] }, capturing);
    }
  }

  /**
   * Puts back what was saved of a holder into its empty sequence, where that serves for `wanted`.
   *
   * @returns the tokens that are in the sequence now; undefined where nothing is
   */
  async restore(
    holder: SequenceHolder,
    sequence: number,
    wanted: Int32Array,
    signal?: AbortSignal,
  ): Promise<Int32Array | undefined> {
    const saved = this.#saved.take(holder);
    if (saved === undefined || !this.#serves(saved, wanted)) {
      saved?.ready.then(() => saved.state?.close());
      return undefined;
    }
    await saved.ready;
    const { state } = saved;
    saved.state = undefined;
    if (state === undefined || !this.#hasRoom(saved.tokens.length)) {
      state?.close();
      this.#toReplay.set(holder, saved);
      return undefined;
    }
    try {
      const { context, withRoom } = this.#host;
      await withRoom(() => context.restoreSequence(sequence, state), signal);
      context.journal?.set(sequence, saved.pieces);
      return saved.tokens;
    } catch (error) {
      if (HeadstartError.isInstance(error, 'ABORTED') || HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      this.#toReplay.set(holder, saved);
      return undefined;
    } finally {
      state.close();
    }
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
    const saved = this.#toReplay.get(holder);
    this.#toReplay.delete(holder);
    if (!this.#host.exact || saved === undefined) {
      return undefined;
    }
    const shared = commonLength(saved.tokens, wanted);
    const pieces = saved.pieces.filter(({ from }) => from >= length && from < shared);
    if (pieces.length === 0 || pieces[0]?.from !== length) {
      return undefined;
    }
    let end = length;
    for (const piece of pieces) {
      await this.#decodeAgain(sequence, piece, signal);
      end = piece.from + piece.keep;
    }
    return saved.tokens.slice(0, end);
  }

  /** Its holder will not come back. */
  drop(holder: SequenceHolder): void {
    const saved = this.#saved.take(holder);
    saved?.ready.then(() => saved.state?.close());
  }

  /** Drops all: what the model computes has changed. */
  clear(): void {
    this.#saved.clear();
  }

  close(): void {
    this.#saved.close();
  }

  async #decodeAgain(sequence: number, { from, tokens, keep }: Piece, signal: AbortSignal | undefined): Promise<void> {
    await this.#host.decode({ sequence, tokens, from, signal, onDecoded: () => undefined });
    if (keep < tokens.length) {
      await this.#host.context.removeSequence(sequence, from + keep);
    }
  }

  #isWorthSaving({ tokens, templateTokens }: { tokens: Int32Array; templateTokens: number }): boolean {
    const { context, exact, hasWindow } = this.#host;
    if (exact) {
      return !hasWindow;
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
    return !info.unified || info.kvCells - cells.used >= 2 * count;
  }

  /** Whether a sequence that holds these tokens has more of `wanted` than its template. */
  #serves({ tokens, templateTokens }: SavedSequence, wanted: Int32Array): boolean {
    const shared = commonLength(tokens, wanted);
    return this.#host.canTrim ? shared > templateTokens : shared === tokens.length;
  }
}

function commonLength(a: Int32Array, b: Int32Array): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) {
    length++;
  }
  return length;
}
