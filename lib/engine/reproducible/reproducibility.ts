// What `reproducible` changes: prompts are cut into the same chunks as if their sequence were alone. If the state of a
// sequence is lost, the same chunks are decoded again.
import { HeadstartError } from '../../errors.js';
import type { Context } from '../../native/context.js';
import { commonPrefixLength } from '../../tokens.js';
import type { Decoded, DecodeRequest } from '../decode-request.js';
import type { EngineContext } from '../engine-context.js';
import type { Sequence } from '../sequence.js';
import type { ContentsCopy, SequenceStates } from '../sequence-states.js';
import type { StoredState } from '../state-store.js';
import type { PrefillChunk } from './prefill-log.js';
import type { BatchInvariance } from './self-test.js';

/** Number of tokens after which prompts are cut. */
const CHUNK_TOKENS = 128;

export interface ReproducibilityHost {
  context: EngineContext;
  states: SequenceStates;
  canTrim: boolean;
  /** Whether the model has a sliding window. The cells of a window change their place when a state is restored. */
  hasWindow: boolean;
  decode(request: DecodeRequest): Promise<Decoded>;
  withCells<T>(attempt: () => Promise<T>, signal: AbortSignal | undefined, sequence: Sequence): Promise<T>;
}

/** Number of tokens after which prompts are cut, counted from their start. */
export function chunkSize({ info }: Pick<Context, 'info'>): number {
  return Math.min(CHUNK_TOKENS, info.batchSize, info.microBatchSize);
}

/**
 * The rules of `reproducible`, which makes replies the same to the bit, whatever other requests are decoded. A sequence
 * continues only from its own contents, because the batches that computed them are part of the result. If the contents
 * were lost, the sequence replays its batches.
 */
export class Reproducibility {
  readonly #host: ReproducibilityHost;
  readonly #invariance: BatchInvariance;

  /** @param invariance the result of `Engine.testReproducible` */
  constructor(host: ReproducibilityHost, invariance: BatchInvariance) {
    this.#host = host;
    this.#invariance = invariance;
  }

  /**
   * Which requests may share a batch. `none` if LoRA adapters are applied, because the self-test ran without adapters.
   */
  get batchInvariance(): BatchInvariance {
    return this.#host.context.isAdapted ? 'none' : this.#invariance;
  }

  /** Whether a restored state computes the same bits as the original. */
  get restoresExactly(): boolean {
    return !this.#host.hasWindow;
  }

  /** Keeps the contents of a sequence that is about to be emptied. */
  swapOut(sequence: Sequence): void {
    this.#host.states.swapOut(sequence, this.restoresExactly);
  }

  /**
   * Restores the swapped-out contents if the prompt shares more tokens with them than with the template.
   *
   * @returns whether the contents were restored. If not, load the template and call {@link replay}.
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  async swapIn(sequence: Sequence, prompt: Int32Array, signal?: AbortSignal): Promise<boolean> {
    const { swapped } = sequence;
    await swapped?.ready;
    if (swapped === undefined || swapped !== sequence.swapped) {
      return false;
    }
    const shared = commonPrefixLength(swapped.tokens, prompt);
    const isUseful = this.#host.canTrim ? shared > sequence.templateLength : shared === swapped.tokens.length;
    if (!isUseful || swapped.group !== sequence.group) {
      this.#host.states.dropSwapped(sequence);
      return false;
    }
    const stored = this.#host.states.storedOf(swapped);
    if (stored === undefined || !(await this.#restore(sequence, stored, signal))) {
      return false;
    }
    sequence.log?.set(swapped.chunks);
    this.#host.states.dropSwapped(sequence);
    return true;
  }

  /**
   * Decodes the swapped-out tokens again, in the same batches as before.
   *
   * @throws HeadstartError as `Engine.decode`.
   */
  async replay(sequence: Sequence, prompt: Int32Array, signal?: AbortSignal): Promise<void> {
    const { swapped, length } = sequence;
    if (swapped === undefined) {
      return;
    }
    const shared = commonPrefixLength(swapped.tokens, prompt);
    const chunks = swapped.chunks.filter(({ from }) => from >= length && from < shared);
    try {
      for (const chunk of chunks[0]?.from === length ? chunks : []) {
        await this.#decodeAgain(sequence, chunk, signal);
      }
    } catch (error) {
      if (!isTransient(error)) {
        this.#host.states.dropSwapped(sequence);
      }
      throw error;
    }
    this.#host.states.dropSwapped(sequence);
  }

  /**
   * Call it at the beginning of a turn. An unfinished turn must be rolled back. If its tokens stayed, the next prompt
   * would be cut into other chunks.
   *
   * @returns a function that rolls the sequence back. If it fails, release the sequence.
   */
  rollbackPoint(sequence: Sequence): () => Promise<void> {
    const { swapped } = sequence;
    const { tokens, chunks } = swapped ?? { tokens: sequence.tokens.slice(), chunks: sequence.log?.chunks ?? [] };
    return async () => {
      if (swapped !== undefined && sequence.swapped === swapped) {
        await this.#clear(sequence); // the contents were never swapped in
      } else if (!(await this.#trimBack(sequence, tokens, chunks))) {
        await this.#clear(sequence);
        this.#host.states.adopt(sequence, { tokens, chunks, state: undefined, end: () => undefined });
      }
    };
  }

  /** A copy for a file or a fork. A state that would not be restored exactly is left out. */
  async copyOf(sequence: Sequence, signal?: AbortSignal): Promise<ContentsCopy | undefined> {
    if (this.restoresExactly || sequence.swapped !== undefined) {
      return this.#host.states.copyOf(sequence, signal);
    }
    const { tokens, log } = sequence;
    const chunks = log?.chunks ?? [];
    return chunks.length === 0 ? undefined : { tokens: tokens.slice(), chunks, state: undefined, end: () => undefined };
  }

  /** @returns false if the sequence does not hold these tokens from these batches any more */
  async #trimBack(sequence: Sequence, tokens: Int32Array, chunks: readonly PrefillChunk[]): Promise<boolean> {
    const current = sequence.log?.chunks ?? [];
    const isUnchanged = chunks.every((chunk, index) => {
      const { tokens: now, keep = 0 } = current[index] ?? {};
      return now === chunk.tokens && keep >= chunk.keep;
    });
    const isHeld = sequence.isLeased && tokens.length > 0 && sequence.length >= tokens.length;
    return isHeld && isUnchanged && this.#host.canTrim && sequence.trim(tokens.length);
  }

  async #clear(sequence: Sequence): Promise<void> {
    if (sequence.isLeased) {
      await sequence.clear();
    }
  }

  async #restore(sequence: Sequence, stored: StoredState, signal: AbortSignal | undefined): Promise<boolean> {
    const release = this.#host.states.store.hold(stored);
    try {
      await this.#host.withCells(() => sequence.restore(stored.state), signal, sequence);
      return true;
    } catch (error) {
      if (isTransient(error)) {
        throw error;
      }
      return false;
    } finally {
      release();
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
}

/** Whether a failure has nothing to do with a state, so that a later attempt can use the state. */
function isTransient(error: unknown): boolean {
  return (
    HeadstartError.isInstance(error, 'ABORTED') ||
    HeadstartError.isInstance(error, 'CLOSED') ||
    HeadstartError.isInstance(error, 'PREEMPTED')
  );
}
