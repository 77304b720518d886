import type { Hash } from 'node:crypto';
import { type FileHandle, open, readFile, unlink, writeFile } from 'node:fs/promises';
import { throwIfAborted } from '../abort.js';
import { moveIntoPlace } from '../files.js';

const PIECE_BYTES = 1 << 20;

/** What an unfinished download was of. */
interface Origin {
  /** A strong ETag, or a Last-Modified date: the same in a later answer means the same content. */
  validator?: string | undefined;
  total?: number | undefined;
}

/** The received beginning of a file, with the hash of it, and what it is the beginning of. */
export class Partial {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #newHash: () => Hash;
  #hash: Hash;
  #size = 0;
  #origin: Origin = {};
  /** What an earlier process left was looked at. */
  #restored = false;

  private constructor(path: string, file: FileHandle, newHash: () => Hash) {
    this.#path = path;
    this.#file = file;
    this.#newHash = newHash;
    this.#hash = newHash();
  }

  static async open(path: string, newHash: () => Hash): Promise<Partial> {
    const file = await open(path, 'r+').catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') {
        throw error;
      }
      return open(path, 'wx+');
    });
    return new Partial(path, file, newHash);
  }

  /** Bytes received. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of the whole, as the server said. */
  get total(): number | undefined {
    return this.#origin.total;
  }

  /**
   * Takes on what an earlier process left, once.
   *
   * @param trusted the whole will be checked against a known hash, so that a beginning without validator does no harm
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
    const buffer = Buffer.allocUnsafe(PIECE_BYTES);
    let hashed = 0;
    while (hashed < size) {
      throwIfAborted(options.signal);
      const { bytesRead } = await this.#file.read(buffer, 0, PIECE_BYTES, hashed);
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

  /** Forgets what was received; `response` is what is received now. */
  async restart(response?: Response): Promise<void> {
    await this.#file.truncate(0);
    this.#size = 0;
    this.#hash = this.#newHash();
    this.#origin = response === undefined ? {} : originOf(response);
    await writeFile(`${this.#path}.json`, JSON.stringify(this.#origin));
  }

  /** Asks for the rest, of the very same content. */
  rangeHeaders(): Record<string, string> {
    if (this.#size === 0) {
      return {};
    }
    const { validator } = this.#origin;
    return { range: `bytes=${this.#size}-`, ...(validator !== undefined && { 'if-range': validator }) };
  }

  /** Whether a 206 goes on where this ends, in the same content. */
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

  /** Of all received, hex. */
  digest(): string {
    return this.#hash.copy().digest('hex');
  }

  async firstBytes(count: number): Promise<string> {
    const { buffer, bytesRead } = await this.#file.read(Buffer.alloc(count), 0, count, 0);
    return buffer.toString('latin1', 0, bytesRead);
  }

  /** Gives the file its name: whole, and on the disk. */
  async land(path: string): Promise<void> {
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
