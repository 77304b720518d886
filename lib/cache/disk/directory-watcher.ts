import { stat } from 'node:fs/promises';
import type { CacheDirectory } from './cache-directory.js';
import type { DirectoryIndex } from './directory-index.js';

/** Time between two reads of the directory's modification time, ms. */
const POLL_MS = 2000;
/**
 * If the last change is more recent than this, ms, the index is refreshed once more. The reason: some file systems
 * store times in steps of two seconds, so two changes within one step have the same time.
 */
const TIME_STEP_MS = 3000;

/**
 * Refreshes an index soon after another process has changed the directory. The watcher does not keep the process alive,
 * and does not protect the index from garbage collection.
 */
export class DirectoryWatcher {
  readonly #path: string;
  readonly #index: WeakRef<DirectoryIndex>;
  #timer: NodeJS.Timeout | undefined;
  #polling: Promise<unknown> = Promise.resolve();
  /** Modification time of the directory at the last poll, ms since the epoch. -1 if the directory does not exist. */
  #lastChange = -1;
  /** Whether the last change was recent. If so, the next poll refreshes the index even if the time is the same. */
  #isRecent = false;

  constructor(directory: CacheDirectory, index: DirectoryIndex) {
    this.#path = directory.path;
    this.#index = new WeakRef(index);
  }

  /**
   * Refreshes the index and starts polling.
   *
   * @returns all file names in the directory
   */
  async begin(): Promise<string[]> {
    await this.#hasChanged();
    const names = (await this.#index.deref()?.refresh()) ?? [];
    this.#timer = setInterval(() => {
      this.#polling = this.#polling.then(() => this.#poll()).catch(() => undefined);
    }, POLL_MS);
    this.#timer.unref();
    return names;
  }

  /** Stops polling. Resolves when the current refresh has ended. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#polling;
  }

  async #poll(): Promise<void> {
    if (this.#index.deref() === undefined) {
      clearInterval(this.#timer); // the cache was garbage-collected
    } else if (await this.#hasChanged()) {
      await this.#index.deref()?.refresh();
    }
  }

  async #hasChanged(): Promise<boolean> {
    const change = (await stat(this.#path).catch(() => undefined))?.mtimeMs ?? -1;
    const hasChanged = change !== this.#lastChange || this.#isRecent;
    this.#lastChange = change;
    this.#isRecent = Math.abs(Date.now() - change) < TIME_STEP_MS;
    return hasChanged;
  }
}
