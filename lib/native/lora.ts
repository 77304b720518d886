import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { HeadstartError } from '../errors.js';
import { addon, type RawLora, type RawModel, requireUnaborted, throwIfAborted } from './addon.js';

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
  /** The file as it was when it was loaded. */
  readonly #loaded: string;
  #contentHash: string | undefined;

  private constructor(path: string, raw: RawLora, loaded: string) {
    this.path = path;
    this.raw = raw;
    this.#loaded = loaded;
    this.metadata = Object.freeze(raw.metadata);
    this.invocationTokens = raw.invocationTokens;
  }

  /**
   * Use {@link Model.loadLora}.
   *
   * @internal
   */
  static async load(model: RawModel, path: string): Promise<LoraAdapter> {
    const before = await identify(path); // of a path that is none, the load says what is wrong
    return new LoraAdapter(path, await addon().Lora.load(model, path), before);
  }

  /**
   * SHA-256 of the file, in hexadecimal: what a cache key needs to tell adapters apart. Remembered from the first call that
   * ends well on.
   *
   * @param options.signal ends the reading
   * @throws HeadstartError `LORA_NOT_FOUND` where the file can no longer be read, `LORA_INVALID` where it was changed since it
   *   was loaded, `INVALID_ARGUMENT`, `ABORTED`.
   */
  async contentHash(options: { signal?: AbortSignal | undefined } = {}): Promise<string> {
    const signal = options?.signal;
    requireUnaborted(signal);
    this.#contentHash ??= await this.#hash(signal);
    return this.#contentHash;
  }

  async #hash(signal: AbortSignal | undefined): Promise<string> {
    const hash = await hashFile(this.path, signal);
    if ((await identify(this.path)) !== this.#loaded) {
      throw new HeadstartError(
        'LORA_INVALID',
        `The LoRA adapter at "${this.path}" was changed since it was loaded: load it again`,
      );
    }
    return hash;
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

/** What changes when a file does. */
async function identify(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found === undefined ? '' : [found.dev, found.ino, found.size, found.mtimeNs].join(' ');
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
