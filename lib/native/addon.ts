// Loads the native addon, types it, and explains a failed load.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';
import { type ErrorCode, HeadstartError } from '../errors.js';
import type { ParsedReply, ReplyFormat } from './reply.js';

/** Set from an AbortSignal, read by native threads between two pieces of work. */
export interface RawAbortFlag {
  set(): void;
}

export interface RawModel {
  close(): Promise<void>;
  info(): unknown;
  metadata(): Record<string, string>;
  tokenize(text: string, options: { addSpecial?: boolean; parseSpecial?: boolean }): Promise<Int32Array>;
  detokenize(tokens: Int32Array, options: { special?: boolean }): Promise<Uint8Array>;
  tokenToBytes(token: number, special: boolean): Uint8Array;
  tokenFacts(token: number): { text: string; control: boolean; endOfGeneration: boolean };
  controlTokens(): Int32Array;
  render(request: object): Promise<ReplyFormat & { prompt: string; supportsTools: boolean }>;
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

export interface RawContext {
  close(): Promise<void>;
  info(): unknown;
  counters(): unknown;
  decode(batch: object): Promise<Int32Array>;
  logits(row: number): Promise<Float32Array>;
  logProbabilities(row: number, count: number): Promise<{ tokens: Int32Array; values: Float32Array }>;
  setLoras(loras: readonly { adapter: RawLora; scale?: number }[]): Promise<void>;
  removeSequence(sequence: number, from?: number, to?: number): Promise<boolean>;
  copySequence(source: number, target: number): Promise<void>;
  keepSequence(sequence: number): Promise<void>;
  positionRange(sequence: number): Promise<{ first: number; last: number }>;
  clear(): Promise<void>;
  captureSequence(sequence: number, tokens: Int32Array): Promise<RawState>;
  restoreSequence(sequence: number, state: RawState): Promise<void>;
  loadFile(sequence: number, path: string): Promise<Int32Array>;
}

export interface RawAddon {
  AbortFlag: new () => RawAbortFlag;
  Model: { load(options: object): Promise<RawModel> };
  Context: { create(model: RawModel, options: object): Promise<RawContext> };
  Sampler: { create(model: RawModel, options: object): Promise<RawSampler> };
  FileLock: { tryAcquire(path: string): Promise<RawFileLock | null> };
  Lora: { load(model: RawModel, path: string): Promise<RawLora> };
  SequenceState: { readFile(path: string, options: object): Promise<RawState> };
  setLogger(logger: ((level: number, text: string) => void) | null, maxLevel: number): void;
  setErrorFactory(factory: (code: ErrorCode, message: string, sequences: number[]) => Error): void;
  ggufLayout(path: string): Promise<{ dataOffset: number; offsets: Float64Array; sizes: Float64Array }>;
  parseReply(parser: RawReplyParser, text: string, partial: boolean): Promise<ParsedReply>;
  jsonSchemaToGrammar(schema: string): Promise<string>;
  readFooter(path: string): Promise<string>;
  park(): void;
  /** In builds with assertions alone: makes KV bytes JavaScript's, which must end the process. */
  leakState?(state: RawState, as: 'array' | 'string'): unknown;
  llamaVersion: string;
  systemInfo: string;
  maxSequences: number;
  supportsGpuOffload: boolean;
}

let loaded: RawAddon | undefined;

/**
 * The addon, loaded at the first call: an import of this package never fails for a missing binary. The environment
 * variable `LLAMA_HEADSTART_ADDON`, where set, is the path of the `.node` file to load instead of the package's own: a
 * build of yours, for one with sanitizers.
 *
 * @throws HeadstartError `ADDON_NOT_FOUND` with the platform, what was looked for, and the command that mends it.
 */
export function addon(): RawAddon {
  loaded ??= load();
  return loaded;
}

function load(): RawAddon {
  const root = packageRoot();
  const require = createRequire(import.meta.url);
  const instead = process.env.LLAMA_HEADSTART_ADDON;
  let raw: RawAddon;
  try {
    raw = instead ? require(resolve(instead)) : require('node-gyp-build')(root);
  } catch (cause) {
    const platform = `${process.platform}-${process.arch}, Node ${process.versions.node}`;
    const reason = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    const [place, remedy] = instead
      ? [`"${instead}" (LLAMA_HEADSTART_ADDON)`, "Unset LLAMA_HEADSTART_ADDON to load the package's own."]
      : [
          `${root} (looked in build/Release and prebuilds)`,
          'Run `npm run build:native` in the package to build one, or name one with LLAMA_HEADSTART_ADDON.',
        ];
    throw new HeadstartError(
      'ADDON_NOT_FOUND',
      `No native addon for ${platform} could be loaded from ${place}: ${reason}. ${remedy}`,
      { cause },
    );
  }
  raw.setErrorFactory((code, message, sequences) => new HeadstartError(code, message, { sequences }));
  if (isMainThread) {
    // process.exit() destroys C++ statics next: nothing may compute on them then.
    process.once('exit', () => raw.park());
  }
  return raw;
}

function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json')) && dirname(directory) !== directory) {
    directory = dirname(directory);
  }
  return directory;
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
  if (typeof signal?.aborted !== 'boolean' || typeof signal.addEventListener !== 'function') {
    throw new HeadstartError('INVALID_ARGUMENT', 'Expected `signal` to be an AbortSignal');
  }
  throwIfAborted(signal);
  const flag = new (addon().AbortFlag)();
  const onAbort = () => flag.set();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await call(flag);
  } catch (error) {
    if (HeadstartError.isInstance(error, 'ABORTED')) {
      throw new HeadstartError('ABORTED', error.message, { cause: signal.reason, sequences: error.sequences });
    }
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** @throws HeadstartError `ABORTED` if the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new HeadstartError('ABORTED', 'The operation was aborted', { cause: signal.reason });
  }
}

/**
 * JSON for the native side, with unpaired surrogates replaced as every UTF-8 encoder does.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` for what JSON cannot say, `JSON_TOO_DEEP` for what nests beyond all measure.
 */
export function toJson(what: string, value: unknown): string {
  try {
    const text = JSON.stringify(value, (_, each) => (typeof each === 'string' ? wellFormed(each) : each));
    if (text !== undefined) {
      return text;
    }
  } catch (cause) {
    if (cause instanceof RangeError) {
      throw new HeadstartError('JSON_TOO_DEEP', `Expected \`${what}\` to nest less deep`, { cause });
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
