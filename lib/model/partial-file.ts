import type { Hash } from 'node:crypto';
import { type FileHandle, open, readFile, unlink, writeFile } from 'node:fs/promises';
import { throwIfAborted } from '../abort.js';
import { moveIntoPlace } from '../files.js';

const CHUNK_BYTES = 1 << 20;

/** Identifies the content of an unfinished download. */
interface Origin {
  /** A strong ETag or a Last-Modified date. Two responses with the same validator have the same content. */
  validator?: string | undefined;
  total?: number | undefined;
}

/** A partially downloaded file, with the hash of the received bytes and the identity of its content. */
export class PartialFile {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #newHash: () => Hash;
  #hash: Hash;
  #size = 0;
  #origin: Origin = {};
  /** Whether `restore` has read the bytes that an earlier process received. */
  #restored = false;

  private constructor(path: string, file: FileHandle, newHash: () => Hash) {
    this.#path = path;
    this.#file = file;
    this.#newHash = newHash;
    this.#hash = newHash();
  }

  static async open(path: string, newHash: () => Hash): Promise<PartialFile> {
    const file = await open(path, 'r+').catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') {
        throw error;
      }
      return open(path, 'wx+');
    });
    return new PartialFile(path, file, newHash);
  }

  /** Number of received bytes. */
  get size(): number {
    return this.#size;
  }

  /** The size of the complete file in bytes, as the server reports it. */
  get total(): number | undefined {
    return this.#origin.total;
  }

  /**
   * Continues with the bytes that an earlier process received. Later calls do nothing.
   *
   * @param options.trusted whether the complete file will be compared with a known hash. Otherwise bytes without a
   *   validator are dropped.
   */
  async restore(options: {
    trusted: boolean;
    signal?: AbortSignal | undefined;
    onHashed: (bytes: number, all: number) => void;
  }): Promise<void> {
    if (this.#restored) {
      return;
    }
    const origin = await this.#readOrigin();
    const { size } = await this.#file.stat();
    if (size === 0 || (origin.validator === undefined && !options.trusted)) {
      this.#restored = true;
      return this.restart();
    }
    const hash = this.#newHash();
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    let hashed = 0;
    while (hashed < size) {
      throwIfAborted(options.signal);
      const { bytesRead } = await this.#file.read(buffer, 0, CHUNK_BYTES, hashed);
      if (bytesRead === 0) {
        break;
      }
      hash.update(buffer.subarray(0, bytesRead));
      hashed += bytesRead;
      options.onHashed(hashed, size);
    }
    this.#hash = hash;
    this.#size = hashed;
    this.#origin = origin;
    this.#restored = true;
  }

  /** Drops the received bytes. @param response the response whose body will be appended next */
  async restart(response?: Response): Promise<void> {
    await this.#file.truncate(0);
    this.#size = 0;
    this.#hash = this.#newHash();
    this.#origin = response === undefined ? {} : originOf(response);
    await writeFile(`${this.#path}.json`, JSON.stringify(this.#origin));
  }

  /** Headers that request the missing bytes of the same content. */
  rangeHeaders(): Record<string, string> {
    if (this.#size === 0) {
      return {};
    }
    const { validator } = this.#origin;
    return { range: `bytes=${this.#size}-`, ...(validator !== undefined && { 'if-range': validator }) };
  }

  /** Whether the body of a 206 response continues at the end of this file, with the same content. */
  continuesWith(response: Response): boolean {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '');
    const { validator } = originOf(response);
    const sameContent =
      this.#origin.validator === undefined || validator === undefined || validator === this.#origin.validator;
    const sameTotal =
      this.#origin.total === undefined || range?.[2] === '*' || Number(range?.[2]) === this.#origin.total;
    return Number(range?.[1]) === this.#size && sameContent && sameTotal;
  }

  async append(piece: Uint8Array): Promise<void> {
    for (let written = 0; written < piece.byteLength; ) {
      const { bytesWritten } = await this.#file.write(piece, written, piece.byteLength - written, this.#size + written);
      written += bytesWritten;
    }
    this.#hash.update(piece);
    this.#size += piece.byteLength;
  }

  /** The hash of all received bytes, in hexadecimal. */
  digest(): string {
    return this.#hash.copy().digest('hex');
  }

  async firstBytes(count: number): Promise<string> {
    const { buffer, bytesRead } = await this.#file.read(Buffer.alloc(count), 0, count, 0);
    return buffer.toString('latin1', 0, bytesRead);
  }

  /** Syncs the complete file and gives it its final name. */
  async moveTo(path: string): Promise<void> {
    await this.#file.sync();
    await moveIntoPlace(this.#path, path);
  }

  async close({ keep }: { keep: boolean }): Promise<void> {
    await this.#file.close();
    if (!keep || this.#size === 0) {
      await unlink(`${this.#path}.json`).catch(() => undefined);
    }
    if (keep && this.#size === 0) {
      await unlink(this.#path).catch(() => undefined);
    }
  }

  async #readOrigin(): Promise<Origin> {
    try {
      const { validator, total } = JSON.parse(await readFile(`${this.#path}.json`, 'utf8')) as Origin;
      return {
        validator: typeof validator === 'string' ? validator : undefined,
        total: Number.isSafeInteger(total) ? total : undefined,
      };
    } catch {
      return {};
    }
  }
}

function originOf({ headers, status }: Response): Origin {
  const etag = headers.get('etag');
  const strong = etag !== null && !etag.startsWith('W/') ? etag : undefined;
  const encoded = !['identity', ''].includes(headers.get('content-encoding') ?? '');
  const length = headers.get('content-length');
  return {
    validator: encoded ? undefined : (strong ?? headers.get('last-modified') ?? undefined),
    total: encoded || length === null || status === 206 ? undefined : Number(length),
  };
}
