// The native addon, typed, and loaded at its first use.
import { isMainThread } from 'node:worker_threads';
import { onAbort, requireUnaborted, throwIfAborted } from '../abort.js';
import { type ErrorCode, HeadstartError } from '../errors.js';
import { alreadyLoaded, type Gpu, type LoadedAddon, loadAddon, wantedGpu } from './loader.js';
import type { ParsedReply, ReplyFormat } from './reply.js';

/** Set from an AbortSignal, read by native threads between two pieces of work. */
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
  metadata(): string;
  writeFile(path: string, metadata: string, options: { abort?: RawAbortFlag }): Promise<number>;
}

export interface RawFileLock {
  release(): void;
  held(): boolean;
}

export interface RawFileHash {
  /** `ranges`: offset and length of each, flat. */
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
  removeSequence(sequence: number, from?: number, to?: number): Promise<boolean>;
  copySequence(source: number, target: number): Promise<void>;
  keepSequence(sequence: number): Promise<void>;
  positionRange(sequence: number): Promise<{ first: number; last: number }>;
  clear(): Promise<void>;
  captureSequence(sequence: number, tokens: Int32Array, abort?: RawAbortFlag): Promise<RawState>;
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
  /** Stops all threads, for good: false where one was still at work after five seconds. */
  park(): boolean;
  /** In builds with assertions alone: makes KV bytes JavaScript's, which must end the process. */
  leakState?(state: RawState, as: 'array' | 'string'): unknown;
  start(options: { cpu?: string; modules?: string[] }): RawStarted;
  llamaVersion: string;
  maxSequences: number;
}

/** What `start` answers: what the process computes on. */
export interface RawStarted {
  /** The CPU module in use; null where it is linked in. */
  cpu: string | null;
  /** All CPU modules that there are, the best first. */
  tried: { name: string; path: string; score: number; problem: string | null }[];
  /** The modules of GPUs that the first start asked for, up to the one that is in use. */
  modules: { path: string; problem: string | null }[];
  devices: Device[];
  systemInfo: string;
  supportsGpuOffload: boolean;
}

/** What ggml can compute on. */
export interface Device {
  /** ggml's, for example `CPU` or `CUDA0`. */
  name: string;
  /** The hardware's name. */
  description: string;
  /** ggml's name for what drives it: "CPU", "CUDA", "MTL" (Metal), "Vulkan" */
  backend: string;
  /** What kind of device it is. */
  type: 'cpu' | 'accelerator' | 'gpu';
  /** Memory that is free now. */
  freeBytes: number;
  /** Its memory. */
  totalBytes: number;
}

let loaded: LoadedAddon | undefined;
let wanted: Gpu | undefined;

/**
 * The addon, loaded at the first call: an import of this package never fails for a missing binary. The environment
 * variable `LLAMA_HEADSTART_ADDON`, where set, is the path of the `.node` file to load instead of the package's own: a
 * build of yours, for one with sanitizers.
 *
 * @throws HeadstartError `ADDON_NOT_FOUND` with the platform, what was looked for, and the command that mends it.
 */
export function addon(): RawAddon {
  return loadedAddon().raw;
}

/** The addon with how it was found and what it runs on. */
export function loadedAddon(): LoadedAddon {
  if (loaded === undefined) {
    loaded = loadAddon(wantedGpu(wanted));
    const { raw } = loaded;
    raw.setErrorFactory((code, message, sequences) => new HeadstartError(code, message, { sequences }));
    if (isMainThread) {
      // process.exit() destroys C++ statics next: nothing may compute on them then.
      process.once('exit', () => raw.park());
    }
  }
  return loaded;
}

/**
 * Says which GPU to compute on, before the first use of the addon: a process loads one. `LLAMA_HEADSTART_VARIANT`
 * (auto, cpu, cuda, metal, vulkan), where set, wins.
 *
 * @throws HeadstartError `ADDON_NOT_FOUND`; `ADDON_LOADED` where this process already computes on something else.
 */
export function selectGpu(gpu: Gpu): void {
  if (loaded === undefined) {
    wanted = gpu;
  }
  const { gpu: used } = loadedAddon();
  const asked = wantedGpu(gpu);
  if (asked !== 'auto' && asked !== (used ?? false)) {
    throw alreadyLoaded(asked, used);
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
 * Runs a native call that nothing interrupts: not at all where `signal` has fired, also while the call waits for its turn. Where it
 * fires later, the call ends, what it made is undone, and only then the promise rejects: nothing of it comes later.
 *
 * @throws HeadstartError `ABORTED`, with the signal's reason as `cause`.
 */
export async function unlessAborted<T>(
  signal: AbortSignal | undefined,
  call: (abort: RawAbortFlag | undefined) => Promise<T>,
  undo: (made: T) => unknown = () => {},
): Promise<T> {
  const made = await withAbort(signal, call);
  if (signal?.aborted) {
    await undo(made);
    throwIfAborted(signal);
  }
  return made;
}

/**
 * JSON for the native side, with unpaired surrogates replaced as every UTF-8 encoder does.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` for what JSON cannot say, or not in one string, `JSON_TOO_DEEP` for what nests beyond all measure.
 */
export function toJson(what: string, value: unknown): string {
  try {
    const text = JSON.stringify(value, (_, each) => (typeof each === 'string' ? wellFormed(each) : each));
    if (text !== undefined) {
      return text;
    }
  } catch (cause) {
    // Of the two, only the text that is too long for a string has these words: "Invalid string length".
    if (cause instanceof RangeError && !cause.message.includes('string length')) {
      throw new HeadstartError('JSON_TOO_DEEP', `Expected \`${what}\` to nest less deep`, { cause });
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

// String.prototype.toWellFormed, which Node 20 has and ES2023 does not know.
const UNPAIRED = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g;

function wellFormed(text: string): string {
  return text.replace(UNPAIRED, '\uFFFD');
}
