import { HeadstartError } from '../errors.js';
import { addon, type RawAbortFlag, type RawContext, type RawModel, unlessAborted, withAbort } from './addon.js';
import type { AppliedLora } from './lora.js';
import type { ModelInfo } from './model-info.js';
import type { Sampler } from './sampler.js';
import { type CaptureOptions, SequenceState, type StateOptions } from './state.js';

/** Element types of the KV cache, by their names in llama.cpp. */
export type CacheType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q5_1' | 'q5_0' | 'q4_1' | 'q4_0' | 'iq4_nl';

/** How positions beyond the training length are computed. */
export type RopeScaling = 'model' | 'none' | 'linear' | 'yarn';

/** The layout of the KV cache. */
export type KvLayout =
  /** All sequences share one cache. A fork copies nothing. */
  | 'unified'
  /** Each sequence has a separate part of the cache. Sequences share nothing, so a prefix is copied in from memory. */
  | 'split';

/** Options of a context. */
export interface ContextOptions {
  /**
   * Cells of the KV cache in total. Each token of a sequence needs one cell, and forks share the cells of their common
   * tokens. Rounded up to a multiple of 256. @default 4096
   */
  kvCells?: number;
  /** The maximum number of tokens in one decode. @default 512 */
  batchSize?: number;
  /** The maximum number of tokens that the model computes at once. @default the smaller of 512 and batchSize */
  microBatchSize?: number;
  /**
   * The number of sequences. Their ids are 0 to maxSequences - 1. At most 256, and at most `batchSize` and `kvCells`.
   * (An agent's `nSeqMax` counts only sessions. Its context also has sequences for resident templates.) @default 1
   */
  maxSequences?: number;
  /**
   * The maximum number of rows with output in one decode, from `maxSequences` to `batchSize`. Each output needs memory
   * for a row of logits. @default batchSize
   */
  maxOutputs?: number;
  /** Threads for batches of one token, at most one per core of the machine. @default 1 */
  nThreads?: number;
  /** Threads for larger batches. @default nThreads */
  nThreadsBatch?: number;
  /** The layout of the KV cache. With `split`, each sequence has kvCells / maxSequences cells. @default 'unified' */
  kvLayout?: KvLayout;
  /** Element type of the K cache. @default 'f16' */
  keyType?: CacheType;
  /** Element type of the V cache. Quantized types need flash attention. @default 'f16' */
  valueType?: CacheType;
  /** Compute attention without storing the whole attention matrix. @default true */
  flashAttention?: boolean;
  /** Keep all cells of sliding-window layers, even those outside of the window. @default false */
  fullSlidingWindow?: boolean;
  /** Keep the KV cache of a layer on the GPU if the layer is on the GPU. @default true */
  offloadKv?: boolean;
  /**
   * How positions beyond the training length are computed. `linear` and `yarn` interpolate and need
   * `ropeFrequencyScale`. `none` ignores a scaling in the model file. `model` uses the scaling in the model file.
   * @default 'model'
   */
  ropeScaling?: RopeScaling;
  /** RoPE base frequency; 0 is the model's own. @default 0 */
  ropeFrequencyBase?: number;
  /** RoPE frequency scale; 0 is the model's own. @default 0 */
  ropeFrequencyScale?: number;
  /**
   * Prevents the creation if the signal fires before the creation starts. If the signal fires later, the new context is
   * closed. @default none
   */
  signal?: AbortSignal | undefined;
}

/** The options of a context, as llama.cpp rounded them. */
export interface ContextInfo {
  /** Cells of the KV cache in total. */
  kvCells: number;
  /** Cells that one sequence can use. In a unified cache, these are all cells. */
  kvCellsPerSequence: number;
  /** The maximum number of tokens in one decode. */
  batchSize: number;
  /** The maximum number of tokens that the model computes at once. */
  microBatchSize: number;
  /** The number of sequences. Their ids are 0 to maxSequences - 1. */
  maxSequences: number;
  /** The maximum number of rows with output in one decode. */
  maxOutputs: number;
  /** Threads for batches of one token, until {@link Context.setThreads} changes them. */
  nThreads: number;
  /** Threads for larger batches, until {@link Context.setThreads} changes them. */
  nThreadsBatch: number;
  /** Whether sequences share cells (`unified`) or have separate parts of the KV cache (`split`). */
  kvLayout: KvLayout;
  /** Whether flash attention is used. */
  flashAttention: boolean;
  /** Whether all cells of sliding-window layers are kept. */
  fullSlidingWindow: boolean;
  /**
   * Whether the end of a decoded sequence can always be removed. Recurrent memory cannot remove it, and a sliding
   * window may have dropped the cells that a shorter sequence needs. Such memory has partial states: see
   * `captureSequence`.
   */
  canTrim: boolean;
  /** Element type of the K cache. */
  keyType: string;
  /** Element type of the V cache. */
  valueType: string;
  /** How positions beyond the training length are computed. `model` means as in the model file. */
  ropeScaling: RopeScaling;
  /** RoPE base frequency. */
  ropeFrequencyBase: number;
  /** RoPE frequency scale. */
  ropeFrequencyScale: number;
  /** A text that identifies the format of states. A state can be restored only into a context with the same text. */
  compatibility: string;
}

/** Totals since the context was created. Times are measured on the context's thread. */
export interface ContextCounters {
  /** Batches decoded. */
  decodes: number;
  /** Tokens in these batches. */
  decodedTokens: number;
  /** Time for these batches, ms. */
  decodeMs: number;
  /** States captured. */
  captures: number;
  /** Size of the captured states in bytes. */
  capturedBytes: number;
  /** Time for the captures, ms. */
  captureMs: number;
  /** States restored. */
  restores: number;
  /** Size of the restored states in bytes. */
  restoredBytes: number;
  /** Time for the restores, ms. */
  restoreMs: number;
  /** Sequences forked. */
  copies: number;
}

/** The batch of one decode: a row for each token. */
export interface DecodeBatch {
  /** Token ids. The other arrays have the same length. */
  tokens: Int32Array;
  /** The position of each token. A sequence's positions continue at its end and increase by one from token to token. */
  positions: Int32Array;
  /** The sequence of each token. */
  sequences: Int32Array;
  /** 1 for each row that needs output, 0 for each other row. */
  outputs: Uint8Array;
  /**
   * For each row with output, in order: the sampler that chooses its token, or null for the most likely token. Each
   * sampler must belong to this context's model and can serve only one row. @default all null
   */
  samplers?: readonly (Sampler | null)[] | undefined;
  /**
   * Prevents the decode if the signal fires before the decode starts. Stops a running decode only if its batch has a
   * single sequence.
   */
  signal?: AbortSignal | undefined;
}

/** The error for a row without a sampler if no token can be chosen. */
const UNUSABLE_LOGITS = {
  code: 'LOGITS_INVALID',
  message: 'The model computed logits that are not numbers: its weights or an adapter may be damaged',
} as const;

/**
 * An inference context: a KV cache, and a thread that decodes. The thread runs calls in the order in which they were
 * made.
 *
 * Every method but `counters` and `close` throws `CLOSED` after `close()`, `INVALID_ARGUMENT` for arguments of a wrong
 * type, and `SEQUENCE_OUT_OF_RANGE` for ids outside 0 to maxSequences - 1.
 */
export class Context {
  /** The options of the context, as llama.cpp rounded them. */
  readonly info: Readonly<ContextInfo>;
  /** The model of the context. */
  readonly model: Readonly<ModelInfo>;
  readonly #raw: RawContext;

  private constructor(raw: RawContext, model: Readonly<ModelInfo>) {
    this.#raw = raw;
    this.model = model;
    this.info = Object.freeze(raw.info() as ContextInfo);
  }

  /**
   * Use {@link Model.createContext}.
   *
   * @internal
   */
  static async create(raw: RawModel, model: Readonly<ModelInfo>, options: ContextOptions): Promise<Context> {
    const create = async () => new Context(await addon().Context.create(raw, options), model);
    return unlessAborted(options?.signal, create, (context) => context.close());
  }

  /**
   * Decodes a batch and chooses a token for each row with output. A row's sampler chooses the token and adds it to its
   * own history. In a row without a sampler, the most likely token is chosen.
   *
   * @returns one token id for each row with output, in the order of the batch
   * @throws HeadstartError
   *   - Before anything changes: `INVALID_ARGUMENT`, `BATCH_SIZE`, `TOKEN_OUT_OF_RANGE`, `POSITION_INVALID`,
   *     `NO_KV_SLOT` (not enough free cells), `ABORTED`, `SAMPLER_BUSY`, `SAMPLER_DEAD`, `CLOSED` (the context or a
   *     sampler).
   *   - During the decode: `DECODE_FAILED`, `CLOSED`, and for a batch of a single sequence `ABORTED`. The error's
   *     `sequences` lists the changed sequences. Recurrent and hybrid sequences are then empty. For other sequences,
   *     `positionRange` returns the positions that are left.
   *   - After the decode, if no token can be chosen for a row: `GRAMMAR_DEAD_END`, `NO_CANDIDATES`, `SAMPLER_FAILED`,
   *     `LOGITS_INVALID` (with or without a sampler). The error's `picks` has the tokens of the other rows.
   */
  async decode(batch: DecodeBatch): Promise<Int32Array> {
    const { tokens, positions, sequences, outputs, samplers, signal } = batch ?? {};
    const raw = Array.isArray(samplers) ? samplers.map((sampler) => sampler?.raw ?? sampler) : samplers;
    const decode = (abort?: RawAbortFlag) => this.#raw.decode(tokens, positions, sequences, outputs, raw, abort);
    // Without a signal, make no additional promise: the context's thread is idle until the next call.
    const result = await (signal === undefined ? decode() : withAbort(signal, decode));
    const picks = typeof result === 'number' ? Int32Array.of(result) : result;
    const failed = picks.indexOf(-1);
    if (failed >= 0) {
      const { code, message } = samplers?.[failed]?.failure ?? UNUSABLE_LOGITS;
      throw new HeadstartError(code, message, { picks });
    }
    return picks;
  }

  /**
   * The logits of one row of the newest batch: one float for each token of the vocabulary. If other code decodes too,
   * call this method in the same turn of the event loop as `decode`, without awaiting the decode first. Then no other
   * decode runs between the two calls.
   *
   * @param row index into the batch's tokens
   * @throws HeadstartError `ROW_HAS_NO_OUTPUT`, `INVALID_ARGUMENT` (no row from 0 to `batchSize` - 1).
   */
  async logits(row: number): Promise<Float32Array> {
    return this.#raw.logits(row);
  }

  /**
   * The most likely tokens of one row of the newest batch, with the natural logarithms of their probabilities. The
   * probabilities follow from the logits alone: a sampler's options do not change them. Call this method in the same
   * way as {@link logits}.
   *
   * @param row index into the batch's tokens
   * @param count 1 to the vocabulary's size
   * @throws HeadstartError `ROW_HAS_NO_OUTPUT`, `INVALID_ARGUMENT` (no row from 0 to `batchSize` - 1, or a wrong
   *   count).
   */
  async logProbabilities(row: number, count: number): Promise<{ tokens: Int32Array; values: Float32Array }> {
    return this.#raw.logProbabilities(row, count);
  }

  /**
   * Applies these LoRA adapters, and no others, from the next decode on. The KV cache keeps the values that were
   * computed with the old adapters. Therefore empty each sequence that must use the new adapters, and restore into it
   * only states that were captured with the new adapters.
   *
   * @throws HeadstartError `CLOSED` (an adapter), `INVALID_ARGUMENT` (an adapter of another model, an adapter twice).
   *   After an error, the old adapters still apply.
   */
  async setLoras(loras: readonly AppliedLora[]): Promise<void> {
    return this.#raw.setLoras(
      Array.isArray(loras) ? loras.map((lora) => ({ ...lora, adapter: lora?.adapter?.raw })) : loras,
    );
  }

  /**
   * Changes the number of threads that compute, from the next decode on. The other threads of the context sleep.
   *
   * @param nThreads for batches of one token: from 1 to the larger of `info.nThreads` and `info.nThreadsBatch`
   * @param nThreadsBatch for larger batches, in the same range; default: nThreads
   * @throws HeadstartError `INVALID_ARGUMENT` (a number outside of this range).
   */
  async setThreads(nThreads: number, nThreadsBatch?: number): Promise<void> {
    return this.#raw.setThreads(nThreads, nThreadsBatch);
  }

  /**
   * Removes the end of a sequence: the tokens from position `from` (default 0) up to, but not including, `to` (default:
   * the end). Tokens in the middle cannot be removed, because later tokens were computed with them.
   *
   * @returns false if the model's memory cannot remove a part of a sequence. Nothing has changed then. Recurrent and
   *   hybrid memory never can. A sliding window cannot if its older cells are missing, because it has dropped them or
   *   the sequence was restored without them.
   * @throws HeadstartError `INVALID_ARGUMENT` (for example, the sequence has a token at `to`). Nothing has changed
   *   then.
   */
  async removeSequence(sequence: number, from?: number, to?: number): Promise<boolean> {
    return this.#raw.removeSequence(sequence, from, to);
  }

  /**
   * Forks a sequence: `target` shares all cells of `source`, and nothing is copied.
   *
   * @throws HeadstartError `NOT_UNIFIED`, `SEQUENCE_NOT_EMPTY` (target), `SEQUENCE_EMPTY` (source).
   */
  async copySequence(source: number, target: number): Promise<void> {
    return this.#raw.copySequence(source, target);
  }

  /** Removes all sequences except this one. */
  async keepSequence(sequence: number): Promise<void> {
    return this.#raw.keepSequence(sequence);
  }

  /**
   * The first and last position of a sequence. Both are -1 if the sequence is empty. The first position is above 0 if a
   * sliding window has dropped the start.
   */
  async positionRange(sequence: number): Promise<{ first: number; last: number }> {
    return this.#raw.positionRange(sequence);
  }

  /** Removes all sequences. */
  async clear(): Promise<void> {
    return this.#raw.clear();
  }

  /**
   * Returns the size in bytes of the state that {@link captureSequence} would return now. An empty sequence has 0
   * bytes.
   *
   * @throws HeadstartError `INVALID_ARGUMENT` (also for `partial` if the memory of the context can be trimmed),
   *   `CAPTURE_FAILED`.
   */
  async stateBytes(sequence: number, options: StateOptions = {}): Promise<number> {
    return this.#raw.stateBytes(sequence, options?.partial);
  }

  /**
   * Captures the state of a sequence: a copy of its part of the KV cache.
   *
   * @param tokens the ids of all tokens of the sequence, from position 0 on
   * @throws HeadstartError `TOKENS_MISMATCH`, `STATE_TOO_LARGE` (more than `maxBytes`), `CAPTURE_FAILED`,
   *   `OUT_OF_MEMORY`, `ABORTED`, `INVALID_ARGUMENT` (also for `partial` if the memory of the context can be trimmed).
   */
  async captureSequence(sequence: number, tokens: Int32Array, options: CaptureOptions = {}): Promise<SequenceState> {
    const { partial, maxBytes, signal } = options ?? {};
    const capture = async (abort?: RawAbortFlag) =>
      new SequenceState(await this.#raw.captureSequence(sequence, tokens, partial, maxBytes, abort));
    return unlessAborted(signal, capture, (state) => state.close());
  }

  /**
   * Restores a captured state.
   *
   * - A whole state needs an empty sequence.
   * - A partial state needs a sequence that begins with the tokens of the state. All later tokens are removed. The
   *   context checks how many tokens the sequence has, but not which tokens. Sequences of recurrent models may hold any
   *   tokens or none. Forks of the sequence do not change.
   *
   * `SEQUENCE_NOT_EMPTY`, `TOKENS_MISMATCH`, `STATE_INCOMPATIBLE` and errors in arguments change nothing. A signal that
   * fires before the copy starts changes nothing either. After any other failure the sequence is empty.
   *
   * @param options.signal prevents the copy if the signal fires before the copy starts. If the signal fires during the
   *   copy, the sequence is emptied after the copy, before any later call runs
   * @throws HeadstartError `SEQUENCE_NOT_EMPTY`, `TOKENS_MISMATCH` (fewer tokens than a partial state),
   *   `STATE_INCOMPATIBLE`, `NO_KV_SLOT`, `RESTORE_FAILED`, `CLOSED` (the context or the state), `ABORTED`.
   */
  async restoreSequence(
    sequence: number,
    state: SequenceState,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    return withAbort(options?.signal, (abort) => this.#raw.restoreSequence(sequence, state?.raw, abort));
  }

  /**
   * Loads a sequence-state file with llama.cpp's own function (`llama_state_seq_load_file`). This function can also
   * read the files of this package, but it verifies nothing. A malformed file can make the context unusable until
   * `clear()`, or end the process. Use this method only for files that you wrote yourself, and
   * {@link SequenceState.readFile} for all others.
   *
   * @param options.signal as in {@link restoreSequence}
   * @returns the token ids in the file
   * @throws HeadstartError `SEQUENCE_NOT_EMPTY`, `RESTORE_FAILED` (for example, not a regular file), `ABORTED`.
   */
  async loadFile(
    sequence: number,
    path: string,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<Int32Array> {
    return withAbort(options?.signal, (abort) => this.#raw.loadFile(sequence, path, abort));
  }

  /** Totals since the context was created. Also works after `close()`. */
  counters(): ContextCounters {
    return this.#raw.counters() as ContextCounters;
  }

  /** Stops a running decode, finishes the other queued calls, and frees the context. Idempotent. */
  async close(): Promise<void> {
    return this.#raw.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
