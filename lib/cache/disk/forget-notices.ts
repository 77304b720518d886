// Tells the other processes that use a cache directory which conversations to forget. Such a process may still hold a
// forgotten conversation, and would save it later. A notice is a file with digests of the names that `forget` got.
import { randomBytes } from 'node:crypto';
import { readFile, rm, stat } from 'node:fs/promises';
import { LRUCache } from 'lru-cache';
import type { ContentOwner, IsForgotten } from '../../engine/forget-calls.js';
import type { CacheDirectory } from './cache-directory.js';
import { areNamesOf, digestsOf, isOwnerDigests } from './owner-digests.js';

const NAME = /^forgotten_[0-9a-f]{16}\.json$/;

/** Every process reads a new notice within seconds. Notices of this age are deleted, ms. */
const MAX_AGE_MS = 3_600_000;

const MAX_SEEN = 16_384;

/** Posts the notices of this process, and reads those of other processes once. */
export class ForgetNotices {
  readonly #directory: CacheDirectory;
  readonly #onNotice: (isForgotten: IsForgotten) => void;
  /** The names of notices that were read or posted. */
  readonly #seen = new LRUCache<string, true>({ max: MAX_SEEN });
  #reading: Promise<void> = Promise.resolve();

  constructor(directory: CacheDirectory, onNotice: (isForgotten: IsForgotten) => void) {
    this.#directory = directory;
    this.#onNotice = onNotice;
  }

  /**
   * Posts a notice for the other processes.
   *
   * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
   */
  async post(owner: ContentOwner): Promise<void> {
    const name = `forgotten_${randomBytes(8).toString('hex')}.json`;
    this.#seen.set(name, true);
    await this.#directory.replaceText(name, JSON.stringify(digestsOf(owner)));
  }

  /**
   * Reads the new notices of other processes. When the promise resolves, each of them was passed to `onNotice`.
   *
   * @param names all file names in the directory
   */
  read(names: readonly string[]): Promise<void> {
    // One call after another: a caller must not continue while another call still reads a notice.
    this.#reading = this.#reading.then(() => this.#read(names));
    return this.#reading;
  }

  async #read(names: readonly string[]): Promise<void> {
    for (const name of names.filter((each) => NAME.test(each) && !this.#seen.has(each))) {
      this.#seen.set(name, true);
      const digests = await readFile(this.#directory.join(name), 'utf8')
        .then(JSON.parse)
        .catch(() => undefined);
      if (isOwnerDigests(digests)) {
        this.#onNotice((owner) => areNamesOf(digests, owner));
      }
    }
  }

  /**
   * Deletes old notices.
   *
   * @param names all file names in the directory
   */
  async deleteOld(names: readonly string[]): Promise<void> {
    for (const name of names.filter((each) => NAME.test(each))) {
      const { mtimeMs } = (await stat(this.#directory.join(name)).catch(() => undefined)) ?? { mtimeMs: Date.now() };
      if (Date.now() - mtimeMs > MAX_AGE_MS) {
        await rm(this.#directory.join(name), { force: true }).catch(() => undefined);
      }
    }
  }
}
