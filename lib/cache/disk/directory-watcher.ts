// Other processes save and delete: an index that nobody asks for a look still has to be right before long.
import { stat } from 'node:fs/promises';
import type { CacheDirectory } from './cache-directory.js';
import type { DirectoryIndex } from './directory-index.js';

/** How often the directory is asked whether it has changed: one `stat`, off the JavaScript thread. */
const LOOK_MS = 2000;
/** File systems' clocks tick in up to two seconds: a change in the same tick as the last one shows in nothing but a look. */
const TICK_MS = 3000;

/** Refreshes an index soon after its directory has changed. Holds neither the process nor the index. */
export class DirectoryWatcher {
  readonly #path: string;
  readonly #index: WeakRef<DirectoryIndex>;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<unknown> = Promise.resolve();
  /** When the directory changed last, as far as the index has seen: ms since the epoch; -1 where it is gone. */
  #seen = -1;
  /** The next look must not rely on that. */
  #again = false;

  constructor(directory: CacheDirectory, index: DirectoryIndex) {
    this.#path = directory.path;
    this.#index = new WeakRef(index);
  }

  /**
   * The first look, and all that follow.
   *
   * @returns all names in the directory
   */
  async begin(): Promise<string[]> {
    await this.#hasChanged();
    const names = (await this.#index.deref()?.refresh()) ?? [];
    this.#timer = setInterval(() => {
      this.#looking = this.#looking.then(() => this.#look()).catch(() => undefined);
    }, LOOK_MS);
    this.#timer.unref();
    return names;
  }

  /** Resolves when a look under way has ended. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
  }

  async #look(): Promise<void> {
    if (this.#index.deref() === undefined) {
      clearInterval(this.#timer); // forgotten with its cache
    } else if (await this.#hasChanged()) {
      await this.#index.deref()?.refresh();
    }
  }

  async #hasChanged(): Promise<boolean> {
    const changed = (await stat(this.#path).catch(() => undefined))?.mtimeMs ?? -1;
    const isNew = changed !== this.#seen || this.#again;
    this.#seen = changed;
    this.#again = Math.abs(Date.now() - changed) < TICK_MS;
    return isNew;
  }
}
