import { stat } from 'node:fs/promises';
import { requireUnaborted } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { addon, type RawAbortFlag, type RawLora, type RawModel } from './addon.js';
import { FileHash } from './file-hash.js';
import { SharedWork } from './shared-work.js';

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
  readonly #loaded: FileIdentity | undefined;
  readonly #hashing = new SharedWork((signal) => this.#hash(signal));
  #contentHash: string | undefined;

  private constructor(path: string, raw: RawLora, loaded: FileIdentity | undefined) {
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
  static async load(model: RawModel, path: string, abort: RawAbortFlag | undefined): Promise<LoraAdapter> {
    const before = await identify(path); // of a path that is none, the load says what is wrong
    return new LoraAdapter(path, await addon().Lora.load(model, path, abort), before);
  }

  /**
   * SHA-256 of the file, in hexadecimal: what a cache key needs to tell adapters apart. Remembered from the first call that
   * ends well on; calls at the same time share one reading.
   *
   * @param options.signal ends the call, and the reading where no other call waits for it
   * @throws HeadstartError `LORA_NOT_FOUND` where the file can no longer be read, `LORA_INVALID` where it was changed since it
   *   was loaded, `INVALID_ARGUMENT`, `ABORTED`.
   */
  async contentHash(options: { signal?: AbortSignal | undefined } = {}): Promise<string> {
    const signal = options?.signal;
    requireUnaborted(signal);
    this.#contentHash ??= await this.#hashing.join(signal);
    return this.#contentHash;
  }

  async #hash(signal: AbortSignal): Promise<string> {
    const hash = new FileHash();
    try {
      await hash.add(this.path, [{ offset: 0, length: this.#loaded?.size ?? 0 }], signal);
    } catch (cause) {
      if (HeadstartError.isInstance(cause, 'ABORTED')) {
        throw cause;
      }
      throw new HeadstartError('LORA_NOT_FOUND', `Expected a readable LoRA adapter at "${this.path}"`, { cause });
    }
    if ((await identify(this.path))?.text !== this.#loaded?.text) {
      throw new HeadstartError(
        'LORA_INVALID',
        `The LoRA adapter at "${this.path}" was changed since it was loaded: load it again`,
      );
    }
    return hash.digest();
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
interface FileIdentity {
  text: string;
  /** Bytes. */
  size: number;
}

async function identify(path: string): Promise<FileIdentity | undefined> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found && { text: [found.dev, found.ino, found.size, found.mtimeNs].join(' '), size: Number(found.size) };
}
