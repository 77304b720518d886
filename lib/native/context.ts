import { HeadstartError } from '../errors.js';
import { addon, type RawAbortFlag, type RawContext, type RawModel, unlessAborted, withAbort } from './addon.js';
import type { AppliedLora } from './lora.js';
import type { ModelInfo } from './model.js';
import type { Sampler } from './sampler.js';
import { SequenceState } from './state.js';

/** Element types of the KV cache, by their names in llama.cpp. */
export type CacheType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q5_1' | 'q5_0' | 'q4_1' | 'q4_0' | 'iq4_nl';

/** How positions beyond the training length are computed. */
export type RopeScaling = 'model' | 'none' | 'linear' | 'yarn';

/** How the KV cache is laid out. */
export type KvLayout =
  /** One cache that all sequences share: forks copy nothing. */
  | 'unified'
  /** A separate part of the cache for each sequence: nothing is shared, and templates are copied in from memory. */
  | 'split';

/** Options of a context. */
export interface ContextOptions {
  /**
   * Cells of the KV cache in total. Each token of a sequence needs one; forks share the cells of their common tokens. Rounded up to a
   * multiple of 256. @default 4096
   */
  kvCells?: number;
  /** The maximum number of tokens in one decode. @default 512 */
  batchSize?: number;
  /** The maximum number of tokens computed at once. @default the smaller of 512 and batchSize */
  microBatchSize?: number;
  /**
   * Sequence ids are 0 to maxSequences - 1. At most 256, `batchSize` and `kvCells`. (An agent's `nSeqMax` counts sessions only: its
   * context has sequences for resident templates, too.) @default 1
   */
  maxSequences?: number;
  /**
   * The maximum number of rows with output in one decode, from `maxSequences` to `batchSize`. Each needs memory for a row of logits.
   * @default batchSize
   */
  maxOutputs?: number;
  /** Threads for batches of one token, at most one per core of the machine. @default 1 */
  nThreads?: number;
  /** Threads for larger batches. @default nThreads */
  nThreadsBatch?: number;
  /** One KV cache that sequences share, or a separate part of kvCells / maxSequences cells for each. @default 'unified' */
  kvLayout?: KvLayout;
  /** @default 'f16' */
  keyType?: CacheType;
  /** Quantized types need flash attention. @default 'f16' */
  valueType?: CacheType;
  /** @default true */
  flashAttention?: boolean;
  /** Keep all cells of sliding-window layers, not only those of the window. @default false */
  fullSlidingWindow?: boolean;
  /** Keep the KV cache of layers on the GPU if the layers are there. @default true */
  offloadKv?: boolean;
  /**
   * How positions beyond the training length are computed: `linear` interpolation or `yarn`, each with `ropeFrequencyScale`. `none`:
   * no scaling, also if the model file has a scaling. `model`: the scaling of the model file. @default 'model'
   */
  ropeScaling?: RopeScaling;
  /** RoPE base frequency; 0 is the model's own. @default 0 */
  ropeFrequencyBase?: number;
  /** RoPE frequency scale; 0 is the model's own. @default 0 */
  ropeFrequencyScale?: number;
  /** Stops the creation before it starts. If it fires later, the context is closed when it is ready. @default none */
  signal?: AbortSignal | undefined;
}

/** The options of a context, as llama.cpp rounded them. */
export interface ContextInfo {
  /** Cells of the KV cache in total. */
  kvCells: number;
  /** Cells that one sequence can use: all cells of a unified cache. */
  kvCellsPerSequence: number;
  /** The maximum number of tokens in one decode. */
  batchSize: number;
  /** The maximum number of tokens computed at once. */
  microBatchSize: number;
  /** Sequence ids are 0 to maxSequences - 1. */
  maxSequences: number;
  /** The maximum number of rows with output in one decode. */
  maxOutputs: number;
  /** Threads for batches of one token. */
  nThreads: number;
  /** Threads for larger batches. */
  nThreadsBatch: number;
  /** Whether sequences can share cells. */
  kvLayout: KvLayout;
  /** Whether flash attention is used. */
  flashAttention: boolean;
  /** Whether all cells of sliding-window layers are kept. */
  fullSlidingWindow: boolean;
  /** Element type of the K cache. */
  keyType: string;
  /** Element type of the V cache. */
  valueType: string;
  /** How positions beyond the training length are computed; `model`: as the model file says. */
  ropeScaling: RopeScaling;
  /** RoPE base frequency. */
  ropeFrequencyBase: number;
  /** RoPE frequency scale. */
  ropeFrequencyScale: number;
  /** States can be restored only into contexts with the same text here. */
  compatibility: string;
}

/** Totals since the context was created. Times are those of the context's thread. */
export interface ContextCounters {
  /** Batches decoded. */
  decodes: number;
  /** Tokens in these batches. */
  decodedTokens: number;
  /** Time for these batches, ms. */
  decodeMs: number;
  /** States captured. */
  captures: number;
  /** Bytes of these states. */
  capturedBytes: number;
  /** Time for the captures, ms. */
  captureMs: number;
  /** States restored. */
  restores: number;
  /** Bytes of these states. */
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
  /** The position of each token. A sequence continues at its end, and its positions go up one by one. */
  positions: Int32Array;
  /** The sequence of each token. */
  sequences: Int32Array;
  /** 1 for each row that shall have output, else 0. */
  outputs: Uint8Array;
  /**
   * For each row with output, in order: the sampler that chooses its token, or null for the most likely token. Each sampler must be of
   * this context's model and can be in one row only. @default all null
   */
  samplers?: readonly (Sampler | null)[] | undefined;
  /** Stops the decode before it starts. A running decode is stopped only if the batch has a single sequence. */
  signal?: AbortSignal | undefined;
}

/** The error of a row without a sampler. */
const UNUSABLE_LOGITS = {
  code: 'LOGITS_INVALID',
  message: 'The model computed logits that are not numbers: its weights or an adapter may be damaged',
} as const;

/**
 * An inference context: a KV cache, and a thread that decodes. Calls run in the order in which they are made.
 *
 * Every method but `counters` and `close` throws `CLOSED` after `close()`, `INVALID_ARGUMENT` for arguments of a wrong type, and
 * `SEQUENCE_OUT_OF_RANGE` for ids outside 0 to maxSequences - 1.
 */
export class Context {
  /** The options that the context was created with. */
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
   * Decodes a batch and chooses a token for each row with output: the most likely one, or the choice of its sampler, which adds the
   * token to its history.
   *
   * @returns one token id for each row with output, in the order of the batch
   * @throws HeadstartError before anything changes: `INVALID_ARGUMENT`, `BATCH_SIZE`, `TOKEN_OUT_OF_RANGE`,
   *   `POSITION_INVALID`, `NO_KV_SLOT` (not enough free cells), `ABORTED`, `SAMPLER_BUSY`, `SAMPLER_DEAD`, `CLOSED` (the context, or a
   *   sampler). After the decode, if no token can be chosen for a row: `GRAMMAR_DEAD_END`, `NO_CANDIDATES`, `SAMPLER_FAILED`,
   *   `LOGITS_INVALID` (with or without a sampler); `picks` has the tokens of the other rows. During the decode: `DECODE_FAILED`,
   *   `CLOSED`, and `ABORTED` for a batch of a single sequence; `sequences` are those that have changed: recurrent and hybrid ones are
   *   empty, and of others `positionRange` returns the rest.
   */
  async decode(batch: DecodeBatch): Promise<Int32Array> {
    const { tokens, positions, sequences, outputs, samplers, signal } = batch ?? {};
    const raw = Array.isArray(samplers) ? samplers.map((sampler) => sampler?.raw ?? sampler) : samplers;
    const decode = (abort?: RawAbortFlag) => this.#raw.decode(tokens, positions, sequences, outputs, raw, abort);
    // Without a signal no additional promise is made, because the context's thread is idle until the next call.
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
   * The logits of one row of the newest batch: as many floats as the vocabulary has tokens. If other code decodes too, call this in the
   * same turn of the event loop as the `decode`, without awaiting the decode first: then no other decode runs in between.
   *
   * @param row index into the batch's tokens
   * @throws HeadstartError `ROW_HAS_NO_OUTPUT`, `INVALID_ARGUMENT` (no row from 0 to `batchSize` - 1).
   */
  async logits(row: number): Promise<Float32Array> {
    return this.#raw.logits(row);
  }

  /**
   * The most likely tokens of one row of the newest batch, with the natural logarithms of their probabilities. They come from the
   * logits, without the options of a sampler. Call it like {@link logits}.
   *
   * @param row index into the batch's tokens
   * @param count 1 to the vocabulary's size
   * @throws HeadstartError `ROW_HAS_NO_OUTPUT`, `INVALID_ARGUMENT` (no row from 0 to `batchSize` - 1; the count).
   */
  async logProbabilities(row: number, count: number): Promise<{ tokens: Int32Array; values: Float32Array }> {
    return this.#raw.logProbabilities(row, count);
  }

  /**
   * Applies these LoRA adapters, and no others, from the next decode on. The content of the KV cache stays as it was computed, so
   * remove sequences that shall use the new adapters, and restore into them only states that were captured with the same adapters.
   *
   * @throws HeadstartError `CLOSED` (an adapter), `INVALID_ARGUMENT` (an adapter of another model, an adapter twice). Nothing has changed then.
   */
  async setLoras(loras: readonly AppliedLora[]): Promise<void> {
    return this.#raw.setLoras(
      Array.isArray(loras) ? loras.map((lora) => ({ ...lora, adapter: lora?.adapter?.raw })) : loras,
    );
  }

  /**
   * Removes the end of a sequence: the tokens from position `from` (default 0) up to, but not including, `to` (default: the end). Tokens
   * in the middle cannot be removed, because later tokens were computed with them.
   *
   * @returns false if the model's memory cannot remove a part: recurrent and hybrid models, and sliding windows whose older cells are
   *   gone. Nothing has changed then
   * @throws HeadstartError `INVALID_ARGUMENT` (also if tokens follow at `to`). Nothing has changed then.
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

  /** Removes all other sequences. */
  async keepSequence(sequence: number): Promise<void> {
    return this.#raw.keepSequence(sequence);
  }

  /** The first and last position of a sequence, both -1 if it is empty. The first is above 0 if a sliding window has dropped the start. */
  async positionRange(sequence: number): Promise<{ first: number; last: number }> {
    return this.#raw.positionRange(sequence);
  }

  /** Removes all sequences. */
  async clear(): Promise<void> {
    return this.#raw.clear();
  }

  /**
   * Captures the state of a sequence: a copy of its part of the KV cache.
   *
   * @param tokens the ids of all tokens of the sequence, from position 0 on
   * @param options.signal stops the copy before it starts. If it fires later, the state is closed when it is ready
   * @throws HeadstartError `TOKENS_MISMATCH`, `CAPTURE_FAILED`, `OUT_OF_MEMORY`, `ABORTED`.
   */
  async captureSequence(
    sequence: number,
    tokens: Int32Array,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<SequenceState> {
    const capture = async (abort?: RawAbortFlag) =>
      new SequenceState(await this.#raw.captureSequence(sequence, tokens, abort));
    return unlessAborted(options?.signal, capture, (state) => state.close());
  }

  /**
   * Restores a captured state into an empty sequence. After a failure the sequence is empty.
   *
   * @param options.signal stops the copy before it starts. If it fires during the copy, the sequence is emptied at the end, before any
   *   later call runs
   * @throws HeadstartError `SEQUENCE_NOT_EMPTY`, `STATE_INCOMPATIBLE`, `NO_KV_SLOT`, `RESTORE_FAILED`, `CLOSED` (the context,
   *   or the state), `ABORTED`.
   */
  async restoreSequence(
    sequence: number,
    state: SequenceState,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    return withAbort(options?.signal, (abort) => this.#raw.restoreSequence(sequence, state?.raw, abort));
  }

  /**
   * Loads a sequence-state file with llama.cpp's own function (`llama_state_seq_load_file`), which reads the files of this package too.
   * It verifies nothing: a malformed file can make the context unusable until `clear()`, or end the process. Use it only for files that
   * you wrote yourself, and {@link SequenceState.readFile} for all others.
   *
   * @param options.signal as in {@link restoreSequence}
   * @returns the token ids in the file
   * @throws HeadstartError `SEQUENCE_NOT_EMPTY`, `RESTORE_FAILED` (also if it is not a regular file), `ABORTED`.
   */
  async loadFile(
    sequence: number,
    path: string,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<Int32Array> {
    return withAbort(options?.signal, (abort) => this.#raw.loadFile(sequence, path, abort));
  }

  /** Totals since the context was created, also after `close()`. */
  counters(): ContextCounters {
    return this.#raw.counters() as ContextCounters;
  }

  /** Stops a running decode, finishes other queued calls, and frees the context. Idempotent. */
  async close(): Promise<void> {
    return this.#raw.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
