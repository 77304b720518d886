// The types of the native addon. The first use loads the addon.
import { isMainThread } from 'node:worker_threads';
import { onAbort, requireUnaborted, throwIfAborted } from '../abort.js';
import { type ErrorCode, HeadstartError } from '../errors.js';
import { alreadyLoaded, type Gpu, type LoadedAddon, loadAddon, requestedGpu } from './loader.js';
import type { ParsedReply, ReplyFormat } from './reply.js';

/** A flag that is set when an AbortSignal fires. Native threads check the flag between two steps of their work. */
export interface RawAbortFlag {
  set(): void;
}

export interface RawModel {
  close(): Promise<void>;
  info(): unknown;
  metadata(): Record<string, string>;
  tokenize(
    text: string,
    options: { addSpecial?: boolean; parseSpecial?: boolean },
    abort?: RawAbortFlag,
  ): Promise<Int32Array>;
  detokenize(tokens: Int32Array, options: { special?: boolean }, abort?: RawAbortFlag): Promise<Uint8Array>;
  tokenToBytes(token: number, special: boolean): Uint8Array;
  tokenFacts(token: number): { text: string; control: boolean; endOfGeneration: boolean };
  controlTokens(): Int32Array;
  render(request: object, abort?: RawAbortFlag): Promise<ReplyFormat & { prompt: string; supportsTools: boolean }>;
}

export interface RawSampler {
  seed: number;
  accept(tokens: Int32Array): Promise<void>;
  reset(): Promise<void>;
  close(): void;
  failure(): HeadstartError | null;
}

export interface RawLora {
  metadata: Record<string, string>;
  invocationTokens: Int32Array;
  close(): void;
}

declare const replyParser: unique symbol;

export interface RawReplyParser {
  readonly [replyParser]: true;
}

export interface RawState {
  close(): void;
  share(): RawState;
  tokens(): Int32Array;
  byteLength(): number;
  isPartial(): boolean;
  metadata(): string;
  writeFile(path: string, metadata: string, options: { abort?: RawAbortFlag }): Promise<number>;
}

export interface RawFileLock {
  release(): void;
  held(): boolean;
}

export interface RawFileHash {
  /** `ranges` alternates offsets and lengths. */
  add(path: string, ranges: Float64Array, abort?: RawAbortFlag): Promise<void>;
  digest(): Promise<string>;
}

export interface RawContext {
  close(): Promise<void>;
  info(): unknown;
  counters(): unknown;
  decode(
    tokens: Int32Array,
    positions: Int32Array,
    sequences: Int32Array,
    outputs: Uint8Array,
    samplers?: readonly unknown[],
    abort?: RawAbortFlag,
  ): Promise<Int32Array | number>;
  logits(row: number): Promise<Float32Array>;
  logProbabilities(row: number, count: number): Promise<{ tokens: Int32Array; values: Float32Array }>;
  setLoras(loras: readonly { adapter: RawLora; scale?: number }[]): Promise<void>;
  setThreads(nThreads: number, nThreadsBatch?: number): Promise<void>;
  removeSequence(sequence: number, from?: number, to?: number): Promise<boolean>;
  copySequence(source: number, target: number): Promise<void>;
  keepSequence(sequence: number): Promise<void>;
  positionRange(sequence: number): Promise<{ first: number; last: number }>;
  clear(): Promise<void>;
  stateBytes(sequence: number, partial?: boolean): Promise<number>;
  captureSequence(
    sequence: number,
    tokens: Int32Array,
    partial?: boolean,
    maxBytes?: number,
    abort?: RawAbortFlag,
  ): Promise<RawState>;
  restoreSequence(sequence: number, state: RawState, abort?: RawAbortFlag): Promise<void>;
  loadFile(sequence: number, path: string, abort?: RawAbortFlag): Promise<Int32Array>;
}

export interface RawAddon {
  AbortFlag: new () => RawAbortFlag;
  Model: { load(options: object): Promise<RawModel> };
  Context: { create(model: RawModel, options: object): Promise<RawContext> };
  Sampler: { create(model: RawModel, options: object, abort?: RawAbortFlag): Promise<RawSampler> };
  FileHash: new () => RawFileHash;
  FileLock: { tryAcquire(path: string): Promise<RawFileLock | null> };
  Lora: { load(model: RawModel, path: string, abort?: RawAbortFlag): Promise<RawLora> };
  SequenceState: {
    readFile(path: string, options: object): Promise<RawState>;
    reserve(bytes: number): Promise<void>;
  };
  setLogger(logger: ((level: number, text: string) => void) | null, maxLevel: number): void;
  setErrorFactory(factory: (code: ErrorCode, message: string, sequences: number[]) => Error): void;
  ggufLayout(path: string): Promise<{ dataOffset: number; offsets: Float64Array; sizes: Float64Array }>;
  parseReply(
    parser: RawReplyParser,
    text: string,
    partial: boolean,
    beginning: boolean,
    abort?: RawAbortFlag,
  ): Promise<ParsedReply>;
  nameReply(parser: RawReplyParser, mark: string, names: readonly string[]): Promise<RawReplyParser>;
  jsonSchemaToGrammar(schema: string, abort?: RawAbortFlag): Promise<string>;
  readFooter(path: string): Promise<string>;
  /**
   * Stops all native threads for the rest of the process. Returns false if a thread is still running after five
   * seconds.
   */
  park(): boolean;
  /** Only in builds with assertions: copies KV bytes into the JavaScript heap, which must end the process. */
  leakState?(state: RawState, as: 'array' | 'string'): unknown;
  start(options: { cpu?: string; modules?: string[] }): RawStarted;
  llamaVersion: string;
  maxSequences: number;
}

/** The result of `start`: the devices that the process computes on. */
export interface RawStarted {
  /** The CPU module in use; null in a static build. */
  cpu: string | null;
  /** All CPU modules in the folder of the addon, the best first. */
  tried: { name: string; path: string; score: number; problem: string | null }[];
  /** The GPU modules that the first start tried, in order. The last one may be in use. */
  modules: { path: string; problem: string | null }[];
  devices: Device[];
  systemInfo: string;
  supportsGpuOffload: boolean;
}

/** A device that ggml can compute on. */
export interface Device {
  /** ggml's name, for example `CPU` or `CUDA0`. */
  name: string;
  /** The name of the hardware. */
  description: string;
  /** ggml's name of the backend: "CPU", "CUDA", "MTL" (Metal), "Vulkan". */
  backend: string;
  /** The kind of device. */
  type: 'cpu' | 'accelerator' | 'gpu';
  /** Free memory in bytes at the time when the addon was loaded. */
  freeBytes: number;
  /** Total memory in bytes. */
  totalBytes: number;
}

let loaded: LoadedAddon | undefined;
let selectedGpu: Gpu | undefined;

/**
 * Returns the addon. The first call loads it, so that an import of this package does not fail if the binary is missing.
 * The environment variable `LLAMA_HEADSTART_ADDON` can name another `.node` file, for example a build with sanitizers.
 *
 * @throws HeadstartError `ADDON_NOT_FOUND` with the platform, the files that were tried, and the command that fixes the
 *   problem.
 */
export function addon(): RawAddon {
  return loadedAddon().raw;
}

/** Returns the addon with its origin and its devices. */
export function loadedAddon(): LoadedAddon {
  if (loaded === undefined) {
    loaded = loadAddon(requestedGpu(selectedGpu));
    const { raw } = loaded;
    raw.setErrorFactory((code, message, sequences) => new HeadstartError(code, message, { sequences }));
    if (isMainThread) {
      // After these listeners, process.exit() destroys C++ statics. No thread may use them by then.
      process.once('exit', () => raw.park());
    }
  }
  return loaded;
}

/**
 * Selects the GPU to compute on. Call it before the first use of the addon, because a process loads one addon. The
 * environment variable `LLAMA_HEADSTART_VARIANT` (auto, cpu, cuda, metal, vulkan) takes precedence.
 *
 * @throws HeadstartError `ADDON_NOT_FOUND`, `ADDON_LOADED` (this process already computes on another device).
 */
export function selectGpu(gpu: Gpu): void {
  if (loaded === undefined) {
    selectedGpu = gpu;
  }
  const { gpu: used } = loadedAddon();
  const requested = requestedGpu(gpu);
  if (requested !== 'auto' && requested !== (used ?? false)) {
    throw alreadyLoaded(requested, used);
  }
}

/**
 * Runs a native call that takes an abort flag, and sets the flag when `signal` fires.
 *
 * @throws HeadstartError `ABORTED`, with the signal's reason as `cause`.
 */
export async function withAbort<T>(
  signal: AbortSignal | undefined,
  call: (abort: RawAbortFlag | undefined) => Promise<T>,
): Promise<T> {
  if (signal === undefined) {
    return call(undefined);
  }
  requireUnaborted(signal);
  const flag = new (addon().AbortFlag)();
  const stop = onAbort(signal, () => flag.set());
  try {
    return await call(flag);
  } catch (error) {
    if (HeadstartError.isInstance(error, 'ABORTED')) {
      throw new HeadstartError('ABORTED', error.message, { cause: signal.reason, sequences: error.sequences });
    }
    throw error;
  } finally {
    stop();
  }
}

/**
 * Runs a native call that cannot be interrupted. If `signal` fires before the call starts, even while the call is
 * queued, the call does not start. If `signal` fires later, the call runs to its end, `undo` undoes its result, and the
 * promise rejects.
 *
 * @throws HeadstartError `ABORTED`, with the signal's reason as `cause`.
 */
export async function unlessAborted<T>(
  signal: AbortSignal | undefined,
  call: (abort: RawAbortFlag | undefined) => Promise<T>,
  undo: (result: T) => unknown = () => {},
): Promise<T> {
  const result = await withAbort(signal, call);
  if (signal?.aborted) {
    await undo(result);
    throwIfAborted(signal);
  }
  return result;
}

/**
 * Returns JSON text for the addon. Replaces unpaired surrogates by U+FFFD, as UTF-8 encoders do.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` (not JSON data, or longer than a string can be), `JSON_TOO_DEEP` (nested
 *   deeper than `JSON.stringify` can go).
 */
export function toJson(what: string, value: unknown): string {
  try {
    const text = JSON.stringify(value, (_, part) => (typeof part === 'string' ? wellFormed(part) : part));
    if (text !== undefined) {
      return text;
    }
  } catch (cause) {
    // V8's message for a text that is too long is "Invalid string length". The other RangeError is a stack overflow.
    if (cause instanceof RangeError && !cause.message.includes('string length')) {
      throw new HeadstartError('JSON_TOO_DEEP', `Expected \`${what}\` to be nested less deeply`, { cause });
    }
    if (cause instanceof RangeError) {
      throw new HeadstartError('INVALID_ARGUMENT', `Expected \`${what}\` to be shorter as JSON text`, { cause });
    }
    throw new HeadstartError('INVALID_ARGUMENT', `Expected \`${what}\` to be JSON data: ${(cause as Error)?.message}`, {
      cause,
    });
  }
  throw new HeadstartError('INVALID_ARGUMENT', `Expected \`${what}\` to be JSON data, got ${typeof value}`);
}

// Does the same as String.prototype.toWellFormed. Node 20 has that method, but TypeScript's ES2023 library does not
// declare it.
const UNPAIRED = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g;

function wellFormed(text: string): string {
  return text.replace(UNPAIRED, '\uFFFD');
}
