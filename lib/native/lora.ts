import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { HeadstartError } from '../errors.js';
import { addon, type RawLora, type RawModel, requireSignal, throwIfAborted } from './addon.js';

/**
 * A LoRA adapter, loaded for one model. Made by {@link Model.loadLora}, applied by {@link Context.setLoras}. It is closed
 * with its model.
 */
export class LoraAdapter {
  /** The GGUF file. */
  readonly path: string;
  /** All scalar GGUF metadata, as text. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Of an aLoRA the tokens that invoke it, else empty. Contexts apply it from the start all the same. */
  readonly invocationTokens: Int32Array;
  /** @internal */
  readonly raw: RawLora;
  #contentHash: string | undefined;

  private constructor(path: string, raw: RawLora) {
    this.path = path;
    this.raw = raw;
    this.metadata = Object.freeze(raw.metadata);
    this.invocationTokens = raw.invocationTokens;
  }

  /**
   * Use {@link Model.loadLora}.
   *
   * @internal
   */
  static async load(model: RawModel, path: string): Promise<LoraAdapter> {
    return new LoraAdapter(path, await addon().Lora.load(model, path));
  }

  /**
   * SHA-256 of the file, in hexadecimal: what a cache key needs to tell adapters apart. Remembered from the first call that
   * ends well on.
   *
   * @param options.signal ends the reading
   * @throws HeadstartError `LORA_NOT_FOUND` where the file can no longer be read, `ABORTED`.
   */
  async contentHash(options: { signal?: AbortSignal | undefined } = {}): Promise<string> {
    const signal = options?.signal;
    requireSignal(signal);
    throwIfAborted(signal);
    this.#contentHash ??= await hashFile(this.path, signal);
    return this.#contentHash;
  }

  /** Contexts that apply it keep doing so. Idempotent. */
  close(): void {
    this.raw.close();
  }

  /** As {@link close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** An adapter and how strongly it is applied. */
export interface AppliedLora {
  /** Of this context's model. */
  adapter: LoraAdapter;
  /** -10,000 to 10,000; 0 is the same as not at all. @default 1 */
  scale?: number;
}

/** Hashed at once on JavaScript's thread: a tenth of a millisecond, then others have their turn. */
const PIECE_BYTES = 1 << 17;

async function hashFile(path: string, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash('sha256');
  try {
    await pipeline(createReadStream(path, { highWaterMark: PIECE_BYTES }), hash, { ...(signal && { signal }) });
  } catch (cause) {
    throwIfAborted(signal);
    throw new HeadstartError('LORA_NOT_FOUND', `Expected a readable LoRA adapter at "${path}"`, { cause });
  }
  return hash.digest('hex');
}
