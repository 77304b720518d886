// Counts of all processes on a directory, over all restarts: one small file, changed under a lock, off every hot path.
import { readFile, rm } from 'node:fs/promises';
import { FileLock } from '../../native/file-lock.js';
import { addCounts, NO_COUNTS, type TemplateCacheCounts } from '../statistics.js';
import type { CacheDirectory } from './cache-directory.js';

const TOTALS_NAME = 'totals-1.json';
const LOCK_NAME = 'totals.lock';

export class CumulativeCounts {
  readonly #directory: CacheDirectory;
  /** As last read. */
  #stored: TemplateCacheCounts = { ...NO_COUNTS };
  /** Of this process's counts, what `#stored` has already. */
  #written: TemplateCacheCounts = { ...NO_COUNTS };
  #writing: Promise<void> = Promise.resolve();

  constructor(directory: CacheDirectory) {
    this.#directory = directory;
  }

  /** All processes', with what this one has counted since the last write. */
  with(counts: TemplateCacheCounts): TemplateCacheCounts {
    return addCounts(this.#stored, addCounts(counts, this.#written, -1));
  }

  async read(): Promise<void> {
    try {
      const found = JSON.parse(await readFile(this.#directory.join(TOTALS_NAME), 'utf8')) as object;
      const known = Object.entries(found).filter(([name, value]) => name in NO_COUNTS && Number.isFinite(value));
      this.#stored = { ...NO_COUNTS, ...Object.fromEntries(known) };
    } catch {
      // None yet, or damaged: counted anew from here.
    }
  }

  /** Adds what this process has counted since the last time. While another process does the same, it is left to the next time. */
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
      await rm(lock.path, { force: true }).catch(() => undefined); // while it is held
      lock.release();
    }
  }

  async #lock(): Promise<FileLock | undefined> {
    for (let attempt = 0; attempt < 20; attempt++) {
      const lock = await FileLock.tryAcquire(this.#directory.join(LOCK_NAME)).catch(() => undefined);
      if (lock !== null) {
        return lock; // undefined where there are no locks: nothing is written there
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return undefined;
  }
}
