/** How far a model's way from its source into memory has come. */
export interface ModelProgress {
  /**
   * `resolve`: asking the Hub what there is; `wait`: another process downloads the same; `verify`: hashing what was
   * downloaded before; `download`; `load`: into memory.
   */
  phase: 'resolve' | 'wait' | 'verify' | 'download' | 'load';
  /** Of this phase, 0 to 1; 0 while the total is not known. */
  fraction: number;
  /** Of all the model's files. */
  bytes?: number;
  /** Of all the model's files, where it is known. */
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
  /** Undefined where a size is not known before. */
  readonly #total: number | undefined;
  #before = 0;
  #reportedAt = 0;

  constructor(onProgress: OnModelProgress | undefined, sizes: readonly (number | undefined)[]) {
    this.#onProgress = onProgress;
    this.#total = sizes.includes(undefined)
      ? undefined
      : sizes.reduce<number>((sum, size) => sum + (size as number), 0);
  }

  /** @param size the file's, where it became known */
  report(phase: ModelProgress['phase'], file: string, bytes: number, size: number | undefined): void {
    const now = performance.now();
    if (this.#onProgress === undefined || (now - this.#reportedAt < REPORT_EVERY_MS && bytes !== size)) {
      return;
    }
    this.#reportedAt = now;
    const total = this.#total ?? (size === undefined ? undefined : this.#before + size);
    const done = this.#before + bytes;
    const fraction = total ? Math.min(1, done / total) : 0;
    this.#onProgress({ phase, fraction, bytes: done, file, ...(total !== undefined && { total }) });
  }

  /** A file is complete. */
  finish(size: number): void {
    this.#before += size;
  }
}
