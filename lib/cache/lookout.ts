// Other processes save and delete: an index that nobody asks for a look still has to be right before long.
import { stat } from 'node:fs/promises';
import type { CacheDirectory } from './directory.js';
import type { DirectoryIndex } from './index-file.js';

/** How often the directory is asked whether it has changed: one `stat`, off the JavaScript thread. */
const LOOK_MS = 2000;

/** Refreshes an index soon after its directory has changed. Holds neither the process nor the index. */
export class Lookout {
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> = Promise.resolve();
  #seen = 0n;
  /** A file system's clock ticks in up to two seconds: what changed in the same tick is seen with one look more. */
  #again = false;

  constructor(directory: CacheDirectory, index: DirectoryIndex) {
    const known = new WeakRef(index);
    this.#timer = setInterval(() => {
      this.#looking = this.#looking.then(() => this.#look(directory.path, known)).catch(() => undefined);
    }, LOOK_MS);
    this.#timer.unref();
  }

  /** Resolves when a look under way has ended. */
  close(): Promise<void> {
    clearInterval(this.#timer);
    return this.#looking;
  }

  async #look(path: string, known: WeakRef<DirectoryIndex>): Promise<void> {
    const index = known.deref();
    if (index === undefined) {
      clearInterval(this.#timer);
      return;
    }
    const changed = await stat(path, { bigint: true }).then(
      ({ mtimeNs }) => mtimeNs,
      () => -1n,
    ); // gone: that is a change, too
    if (changed !== this.#seen || this.#again) {
      this.#again = changed !== this.#seen;
      this.#seen = changed;
      await index.refresh();
    }
  }
}
