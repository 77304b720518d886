// Adds up the counts of all processes that used a directory, even of earlier runs. The sums are in one small file. A
// lock protects changes of this file.
import { readFile, rm } from 'node:fs/promises';
import { FileLock } from '../../native/file-lock.js';
import { addCounts, NO_COUNTS, type TemplateCacheCounts } from '../stats-counter.js';
import type { CacheDirectory } from './cache-directory.js';

const TOTALS_NAME = 'totals-1.json';
const LOCK_NAME = 'totals.lock';

export class CumulativeCounts {
  readonly #directory: CacheDirectory;
  /** The counts in the file at the time of the last read. */
  #stored: TemplateCacheCounts = { ...NO_COUNTS };
  /** The counts of this process that are already part of `#stored`. */
  #written: TemplateCacheCounts = { ...NO_COUNTS };
  #writing: Promise<void> = Promise.resolve();

  constructor(directory: CacheDirectory) {
    this.#directory = directory;
  }

  /** The counts of all processes. @param counts the current counts of this process, which need not be written yet */
  with(counts: TemplateCacheCounts): TemplateCacheCounts {
    return addCounts(this.#stored, addCounts(counts, this.#written, -1));
  }

  async read(): Promise<void> {
    try {
      const stored = JSON.parse(await readFile(this.#directory.join(TOTALS_NAME), 'utf8')) as object;
      const counts = Object.entries(stored).filter(([name, value]) => name in NO_COUNTS && Number.isFinite(value));
      this.#stored = { ...NO_COUNTS, ...Object.fromEntries(counts) };
    } catch {
      // The file is missing or damaged, so counting starts again.
    }
  }

  /**
   * Adds the counts since the last write to the file. If another process holds the lock for 100 ms, writes nothing. The
   * next write then adds these counts too.
   */
  write(counts: TemplateCacheCounts): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write({ ...counts })).catch(() => undefined);
    return this.#writing;
  }

  async #write(counts: TemplateCacheCounts): Promise<void> {
    const change = addCounts(counts, this.#written, -1);
    if (Object.values(change).every((value) => value === 0)) {
      return;
    }
    const lock = await this.#lock();
    if (lock === undefined) {
      return;
    }
    try {
      await this.read();
      const sum = addCounts(this.#stored, change);
      await this.#directory.replaceText(TOTALS_NAME, `${JSON.stringify(sum)}\n`);
      this.#stored = sum;
      this.#written = counts;
    } finally {
      await rm(lock.path, { force: true }).catch(() => undefined); // before the release: see FileLock
      lock.release();
    }
  }

  async #lock(): Promise<FileLock | undefined> {
    for (let attempt = 0; attempt < 20; attempt++) {
      const lock = await FileLock.tryAcquire(this.#directory.join(LOCK_NAME)).catch(() => undefined);
      if (lock !== null) {
        return lock; // undefined if the file system has no locks, and then no counts are written
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return undefined;
  }
}
