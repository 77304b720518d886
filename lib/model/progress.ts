/** How far a model's way from its source into memory has come. */
export interface ModelProgress {
  /**
   * `resolve`: asking the Hub what there is; `wait`: another process downloads the same; `verify`: hashing what was
   * downloaded before; `download`; `load`: into memory.
   */
  phase: 'resolve' | 'wait' | 'verify' | 'download' | 'load';
  /** Of this phase, 0 to 1; 0 while the total is not known. */
  fraction: number;
  /** Downloaded so far, of all files; in `verify` hashed so far, of what of this file was downloaded before. */
  bytes?: number;
  /** What `bytes` will be at the end of the phase, where that is known. */
  total?: number;
  /** The file that is being worked on, without its folder. */
  file?: string;
}

/** Gets told how far a model's way has come. */
export type OnModelProgress = (progress: ModelProgress) => void;

const REPORT_EVERY_MS = 100;

/** Passes on byte counts of several files as one, not too often. */
export class ByteProgress {
  readonly #onProgress: OnModelProgress | undefined;
  /** Those that are not complete, in order. Undefined where a size is not known before. */
  readonly #sizes: (number | undefined)[];
  #before = 0;
  #reportedAt = 0;

  constructor(onProgress: OnModelProgress | undefined, sizes: readonly (number | undefined)[]) {
    this.#onProgress = onProgress;
    this.#sizes = [...sizes];
  }

  /** @param size the file's, where it became known */
  report(phase: 'wait' | 'download', file: string, bytes: number, size: number | undefined): void {
    const total = this.#total(size);
    const done = this.#before + bytes;
    const fraction = total ? Math.min(1, done / total) : 0;
    this.#pass({ phase, fraction, bytes: done, file, ...(total !== undefined && { total }) }, bytes === size);
  }

  /** @param all bytes that are to be hashed */
  verified(file: string, bytes: number, all: number): void {
    this.#pass({ phase: 'verify', fraction: bytes / all, bytes, total: all, file }, bytes === all);
  }

  /** A file is complete. */
  finish(size: number): void {
    this.#before += size;
    this.#sizes.shift();
  }

  #total(size: number | undefined): number | undefined {
    const [first = size, ...others] = this.#sizes;
    return [first, ...others].reduce<number | undefined>(
      (sum, each) => (sum === undefined || each === undefined ? undefined : sum + each),
      this.#before,
    );
  }

  #pass(progress: ModelProgress, isLast: boolean): void {
    const now = performance.now();
    if (isLast || now - this.#reportedAt >= REPORT_EVERY_MS) {
      this.#reportedAt = now;
      this.#onProgress?.(progress);
    }
  }
}
