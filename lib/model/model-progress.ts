/** The progress of downloading and loading a model. */
export interface ModelProgress {
  /**
   * `resolve`: listing the files on the Hub. `wait`: waiting for another process that downloads the same file.
   * `verify`: hashing bytes that were downloaded earlier. `download`: downloading. `load`: loading the model into
   * memory.
   */
  phase: 'resolve' | 'wait' | 'verify' | 'download' | 'load';
  /** Progress of this phase, 0 to 1. 0 if the total is unknown. */
  fraction: number;
  /** Downloaded bytes of all files so far. In `verify`: hashed bytes of this file so far. */
  bytes?: number;
  /** The value of `bytes` at the end of the phase, if it is known. */
  total?: number;
  /** The name of the current file, without its folder. */
  file?: string;
}

/** Receives the progress of downloading and loading a model. */
export type OnModelProgress = (progress: ModelProgress) => void;

const REPORT_EVERY_MS = 100;

/** Reports the sum of the byte counts of several files, at most every 100 ms. */
export class ByteProgress {
  readonly #onProgress: OnModelProgress | undefined;
  /** The sizes of the files that are not complete yet, in order. An unknown size is undefined. */
  readonly #sizes: (number | undefined)[];
  #before = 0;
  #reportedAt = 0;

  constructor(onProgress: OnModelProgress | undefined, sizes: readonly (number | undefined)[]) {
    this.#onProgress = onProgress;
    this.#sizes = [...sizes];
  }

  /** @param size the size of the file, if it is known by now */
  report(phase: 'wait' | 'download', file: string, bytes: number, size: number | undefined): void {
    const total = this.#total(size);
    const done = this.#before + bytes;
    const fraction = total ? Math.min(1, done / total) : 0;
    this.#pass({ phase, fraction, bytes: done, file, ...(total !== undefined && { total }) }, bytes === size);
  }

  /** @param all number of bytes to hash */
  verified(file: string, bytes: number, all: number): void {
    this.#pass({ phase: 'verify', fraction: bytes / all, bytes, total: all, file }, bytes === all);
  }

  /** Call this when a file is complete. */
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
