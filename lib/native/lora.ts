import { stat } from 'node:fs/promises';
import { requireUnaborted } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { addon, type RawAbortFlag, type RawLora, type RawModel } from './addon.js';
import { FileHash } from './file-hash.js';
import { SharedWork } from './shared-work.js';

/**
 * A LoRA adapter, loaded for one model. {@link Model.loadLora} creates it, {@link Context.setLoras} applies it, and the
 * model's `close()` also closes it.
 */
export class LoraAdapter {
  /** The GGUF file. */
  readonly path: string;
  /** All scalar GGUF metadata, as text. */
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * The tokens that activate an aLoRA adapter. Empty for other adapters. A context ignores these tokens and applies the
   * adapter from the start.
   */
  readonly invocationTokens: Int32Array;
  /** @internal */
  readonly raw: RawLora;
  /** The identity of the file when the adapter was loaded. */
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
    const before = await identify(path); // undefined if the file is missing: the load then throws
    return new LoraAdapter(path, await addon().Lora.load(model, path, abort), before);
  }

  /**
   * SHA-256 of the file, in hexadecimal. Cache keys contain it to distinguish adapters. The file is read once: the hash
   * is remembered, and concurrent calls share one read.
   *
   * @param options.signal ends this call, and also the read if no other call waits for it
   * @throws HeadstartError `LORA_NOT_FOUND` (the file can no longer be read), `LORA_INVALID` (the file has changed
   *   since the adapter was loaded), `INVALID_ARGUMENT`, `ABORTED`.
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
        `The LoRA adapter at "${this.path}" has changed since it was loaded. Load it again.`,
      );
    }
    return hash.digest();
  }

  /** Closes the adapter. Contexts that apply it continue to do so. Idempotent. */
  close(): void {
    this.raw.close();
  }

  /** The same as {@link close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** An adapter with its scale. */
export interface AppliedLora {
  /** An adapter of this context's model. */
  adapter: LoraAdapter;
  /** The strength, from -10,000 to 10,000. 0 has no effect. @default 1 */
  scale?: number;
}

/** Values that change with the content of a file. */
interface FileIdentity {
  text: string;
  /** Bytes. */
  size: number;
}

async function identify(path: string): Promise<FileIdentity | undefined> {
  const stats = await stat(path, { bigint: true }).catch(() => undefined);
  return stats && { text: [stats.dev, stats.ino, stats.size, stats.mtimeNs].join(' '), size: Number(stats.size) };
}
