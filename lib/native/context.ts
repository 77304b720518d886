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
  /** A stream for each sequence: no sharing, templates are copied in from memory. */
  | 'split';

/** How a context is made. */
export interface ContextOptions {
  /** Cells of the KV cache in all: one a token and sequence that does not share it. Rounded up to 256. @default 4096 */
  kvCells?: number;
  /** Most tokens in one decode. @default 512 */
  batchSize?: number;
  /** Most tokens computed at once. @default the smaller of 512 and batchSize */
  microBatchSize?: number;
  /**
   * Sequence ids are 0 to maxSequences - 1. At most 256, `batchSize` and `kvCells`. (An agent's `nSeqMax` counts sessions only: its
   * context has sequences for resident templates, too.) @default 1
   */
  maxSequences?: number;
  /** Most output rows in one decode, from `maxSequences` to `batchSize`: each costs room for a row of logits. @default batchSize */
  maxOutputs?: number;
  /** Threads for batches of one token; no more are used than the machine has cores. @default 1 */
  nThreads?: number;
  /** Threads for larger batches. @default nThreads */
  nThreadsBatch?: number;
  /** One KV cache that sequences share, or split streams of kvCells / maxSequences each. @default 'unified' */
  kvLayout?: KvLayout;
  /** @default 'f16' */
  keyType?: CacheType;
  /** Quantised types need flash attention. @default 'f16' */
  valueType?: CacheType;
  /** @default true */
  flashAttention?: boolean;
  /** Keep all cells of sliding-window layers, not only the window. @default false */
  fullSlidingWindow?: boolean;
  /** Keep the KV cache on the GPU, where layers are. @default true */
  offloadKv?: boolean;
  /**
   * How positions beyond the training length are computed: `linear` interpolation or `yarn`, each with `ropeFrequencyScale`; `none`
   * is no scaling, although the model file has some. `model` is what the model file says. @default 'model'
   */
  ropeScaling?: RopeScaling;
  /** RoPE base frequency; 0 is the model's own. @default 0 */
  ropeFrequencyBase?: number;
  /** RoPE frequency scale; 0 is the model's own. @default 0 */
  ropeFrequencyScale?: number;
  /** Takes effect before the context is made, and behind that: it is closed then. @default none */
  signal?: AbortSignal | undefined;
}

/** What the context was made with, as llama.cpp rounded it. */
export interface ContextInfo {
  /** Cells of the KV cache in all. */
  kvCells: number;
  /** Cells that one sequence can use: all of them in a unified cache. */
  kvCellsPerSequence: number;
  /** Most tokens in one decode. */
  batchSize: number;
  /** Most tokens computed at once. */
  microBatchSize: number;
  /** Sequence ids are below it. */
  maxSequences: number;
  /** Most output rows in one decode. */
  maxOutputs: number;
  /** For batches of one token. */
  nThreads: number;
  /** For larger batches. */
  nThreadsBatch: number;
  /** Whether sequences share cells. */
  kvLayout: KvLayout;
  /** Whether it is on. */
  flashAttention: boolean;
  /** Whether all cells of sliding-window layers are kept. */
  fullSlidingWindow: boolean;
  /** Element type of the K cache. */
  keyType: string;
  /** Element type of the V cache. */
  valueType: string;
  /** How positions beyond the training length are computed; `model` is what the model file says. */
  ropeScaling: RopeScaling;
  /** RoPE base frequency. */
  ropeFrequencyBase: number;
  /** RoPE frequency scale. */
  ropeFrequencyScale: number;
  /** States are restored only into contexts with the same text here. */
  compatibility: string;
}

/** Totals since the context was made. Milliseconds are those of the context's own thread. */
export interface ContextCounters {
  /** Batches decoded. */
  decodes: number;
  /** Tokens in them. */
  decodedTokens: number;
  /** What they took, ms. */
  decodeMs: number;
  /** States copied out. */
  captures: number;
  /** Their bytes. */
  capturedBytes: number;
  /** What that took, ms. */
  captureMs: number;
  /** States copied in. */
  restores: number;
  /** Their bytes. */
  restoredBytes: number;
  /** What that took, ms. */
  restoreMs: number;
  /** Sequences forked. */
  copies: number;
}

/** What one decode works on: a row for each token. */
export interface DecodeBatch {
  /** Token ids, n of them. */
  tokens: Int32Array;
  /** The position of each in its sequence: each sequence goes on where it ends, one by one. */
  positions: Int32Array;
  /** The sequence of each. */
  sequences: Int32Array;
  /** 1 for each row whose output is wanted, else 0. */
  outputs: Uint8Array;
  /**
   * What chooses the token of each row with `outputs` set, in order: a sampler of this context's model, each in one row
   * only, or null for the likeliest token. @default all null
   */
  samplers?: readonly (Sampler | null)[] | undefined;
  /** Takes effect before the decode begins; inside it where the batch holds one sequence alone. */
  signal?: AbortSignal | undefined;
}

/** Of a row without a sampler. */
const NO_CHOICE = {
  code: 'LOGITS_INVALID',
  message: 'The model computed logits that are not numbers: its weights or an adapter may be damaged',
} as const;

/**
 * An inference context: a KV cache and the one thread that decodes into it. Calls queue and run in order.
 *
 * Every method but `counters` and `close` throws `CLOSED` after `close()`, `INVALID_ARGUMENT` for arguments of a wrong type, and
 * `SEQUENCE_OUT_OF_RANGE` for ids outside 0 to maxSequences - 1.
 */
export class Context {
  /** What it was made with. */
  readonly info: Readonly<ContextInfo>;
  /** The model that it computes with. */
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
   * Decodes a batch and picks a token for each output row: the likeliest, or what its sampler chooses, which accepts it.
   *
   * @returns one token id for each row with `outputs` set, in the batch's order
   * @throws HeadstartError before anything changes: `INVALID_ARGUMENT`, `BATCH_SIZE`, `TOKEN_OUT_OF_RANGE`,
   *   `POSITION_INVALID`, `NO_KV_SLOT` (no room), `ABORTED`, `SAMPLER_BUSY`, `SAMPLER_DEAD`, `CLOSED` (the context, or a sampler); behind the decode, with the
   *   other rows' tokens in `picks`, when a row has no choice: `GRAMMAR_DEAD_END`, `NO_CANDIDATES`, `SAMPLER_FAILED`,
   *   `LOGITS_INVALID` (with or without a sampler); from inside it `DECODE_FAILED`, `CLOSED`, and `ABORTED` for a batch of one sequence alone, with
   *   `sequences` that are not what they were: recurrent and hybrid ones are empty, of others read the positions back.
   */
  async decode(batch: DecodeBatch): Promise<Int32Array> {
    const { tokens, positions, sequences, outputs, samplers, signal } = batch ?? {};
    const raw = Array.isArray(samplers) ? samplers.map((sampler) => sampler?.raw ?? sampler) : samplers;
    const decode = (abort?: RawAbortFlag) => this.#raw.decode(tokens, positions, sequences, outputs, raw, abort);
    // Between two steps the processor waits for this thread: no promise that nobody needs.
    const picked = await (signal === undefined ? decode() : withAbort(signal, decode));
    const picks = typeof picked === 'number' ? Int32Array.of(picked) : picked;
    const failed = picks.indexOf(-1);
    if (failed >= 0) {
      const { code, message } = samplers?.[failed]?.failure ?? NO_CHOICE;
      throw new HeadstartError(code, message, { picks });
    }
    return picks;
  }

  /**
   * The logits of one row of the newest batch: vocabulary size floats. Called in the same turn as the `decode` that it is
   * about, without awaiting that first, it answers for this decode, whoever else decodes.
   *
   * @param row index into the batch's tokens
   * @throws HeadstartError `ROW_HAS_NO_OUTPUT`, `INVALID_ARGUMENT` (no row from 0 to `batchSize` - 1).
   */
  async logits(row: number): Promise<Float32Array> {
    return this.#raw.logits(row);
  }

  /**
   * The likeliest tokens of one row of the newest batch, with the natural logarithms of their probabilities: of the row's
   * own logits, before any sampler's options. As {@link logits} it may be called in the same turn as the `decode`.
   *
   * @param row index into the batch's tokens
   * @param count 1 to the vocabulary's size
   * @throws HeadstartError `ROW_HAS_NO_OUTPUT`, `INVALID_ARGUMENT` (no row from 0 to `batchSize` - 1; the count).
   */
  async logProbabilities(row: number, count: number): Promise<{ tokens: Int32Array; values: Float32Array }> {
    return this.#raw.logProbabilities(row, count);
  }

  /**
   * Applies these LoRA adapters, and no others, from the next decode on. What is in the KV cache stays as it was computed:
   * remove sequences that should follow the change, and restore into them only states captured under the same adapters.
   *
   * @throws HeadstartError `CLOSED` (an adapter), `INVALID_ARGUMENT` (one of another model, one twice): nothing changed then.
   */
  async setLoras(loras: readonly AppliedLora[]): Promise<void> {
    return this.#raw.setLoras(
      Array.isArray(loras) ? loras.map((each) => ({ ...each, adapter: each?.adapter?.raw })) : loras,
    );
  }

  /**
   * Removes the tokens at positions `from` (default 0) up to, not including, `to` (default: the end). None may follow them:
   * those behind a hole would rest on what is gone.
   *
   * @returns false where this model's memory cannot remove that part: recurrent and hybrid ones, and sliding windows whose
   *   older cells are gone. Nothing changed then
   * @throws HeadstartError `INVALID_ARGUMENT` (also where the sequence goes on at `to`: nothing changed then).
   */
  async removeSequence(sequence: number, from?: number, to?: number): Promise<boolean> {
    return this.#raw.removeSequence(sequence, from, to);
  }

  /**
   * Makes `target` share all cells of `source`: nothing is copied.
   *
   * @throws HeadstartError `NOT_UNIFIED`, `SEQUENCE_NOT_EMPTY` (target), `SEQUENCE_EMPTY` (source).
   */
  async copySequence(source: number, target: number): Promise<void> {
    return this.#raw.copySequence(source, target);
  }

  /** Removes every other sequence. */
  async keepSequence(sequence: number): Promise<void> {
    return this.#raw.keepSequence(sequence);
  }

  /** The first and last position held, both -1 when empty. The first is above 0 where a sliding window dropped the start. */
  async positionRange(sequence: number): Promise<{ first: number; last: number }> {
    return this.#raw.positionRange(sequence);
  }

  /** Removes all sequences. */
  async clear(): Promise<void> {
    return this.#raw.clear();
  }

  /**
   * The state of a sequence, copied out of the KV cache.
   *
   * @param tokens the ids at positions 0 to the last: all of them
   * @param options.signal takes effect before the copy begins, and behind it: the state is closed then
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
   * Puts a captured state into an empty sequence, which is empty again after any failure.
   *
   * @param options.signal takes effect before the copy begins, and at its end: the sequence is emptied then, before what was
   *   called meanwhile. One that fires later has no effect.
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
   * Loads a sequence-state file with llama.cpp's own call (`llama_state_seq_load_file`), which reads the files of this
   * package too. It verifies nothing: a malformed file can spoil the context, until `clear()`, or end the process. Only for
   * files that you wrote; use {@link SequenceState.readFile} for all others.
   *
   * @param options.signal as of {@link restoreSequence}
   * @returns the token ids in the file
   * @throws HeadstartError `SEQUENCE_NOT_EMPTY`, `RESTORE_FAILED` (also for what is no regular file), `ABORTED`.
   */
  async loadFile(
    sequence: number,
    path: string,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<Int32Array> {
    return withAbort(options?.signal, (abort) => this.#raw.loadFile(sequence, path, abort));
  }

  /** Totals since the context was made; also after `close()`. */
  counters(): ContextCounters {
    return this.#raw.counters() as ContextCounters;
  }

  /** Ends a decode that runs, finishes what else is queued, frees the context. Idempotent. */
  async close(): Promise<void> {
    return this.#raw.close();
  }

  /** As {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
