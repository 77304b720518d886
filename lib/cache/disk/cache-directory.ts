// The cache directory itself: made for its owner alone, refused where others can write, and swept of what died in it.
import { randomBytes } from 'node:crypto';
import { readdir, rename, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HeadstartError } from '../../errors.js';
import { makeDirectory, replaceFile, replaceText, writeFailure } from '../../files.js';
import { FileLock } from '../../native/file-lock.js';

const CACHE_TAG =
  'Signature: 8a477f597d28d172789f06886806bc55\n# This directory holds caches of llama-headstart; it can be deleted.\n';
const MIN_FREE_RATIO = 0.05;
const MIN_FREE_BYTES = 2 * 1024 ** 3;

/** Set-aside files that are kept, newest first: enough to look into, never a growing heap. */
export const MAX_CORRUPT_FILES = 8;

/** A temporary file whose owner cannot be asked (written elsewhere, or without locks) is dead after an hour. */
const ORPHAN_MS = 3_600_000;

/** `<what>.<owner>.<number>.tmp`: the owner holds the lock on `owner_<owner>.lock` for as long as it lives. */
const TEMPORARY_NAME = /\.([0-9a-f]{16})\.\d+\.tmp$/;
const OWNER_NAME = /^owner_([0-9a-f]{16})\.lock$/;
const ENTRY_LOCK_NAME = /^template_[0-9a-f]{64}\.lock$/;

export class CacheDirectory {
  readonly path: string;
  readonly #minFreeBytes: number | undefined;
  readonly #owner = randomBytes(8).toString('hex');
  #ownerLock: Promise<FileLock | undefined> | undefined;
  #temporaryFiles = 0;

  /** @param minFreeBytes nothing is saved that would leave less free; default: the larger of 5 % and 2 GiB */
  constructor(path: string, minFreeBytes?: number) {
    this.path = path;
    this.#minFreeBytes = minFreeBytes;
  }

  join(name: string): string {
    return join(this.path, name);
  }

  /** @throws HeadstartError `CACHE_DIR_SHARED` where others can put files into the directory. */
  async requirePrivate(): Promise<void> {
    const facts = await stat(this.path).catch(() => undefined);
    const user = process.getuid?.();
    if (facts === undefined || !facts.isDirectory() || user === undefined) {
      return;
    }
    const foreignOwner = facts.uid !== user && facts.uid !== 0;
    if (foreignOwner || (facts.mode & 0o022) !== 0) {
      const why = foreignOwner
        ? `it belongs to user ${facts.uid}, not to ${user}`
        : `its mode is ${(facts.mode & 0o7777).toString(8).padStart(4, '0')}`;
      throw new HeadstartError(
        'CACHE_DIR_SHARED',
        `Expected a cache directory that only its owner can write, but others can put files into "${this.path}": ${why}. ` +
          'Run `chmod go-w` on it, name another with `cacheDir`, or set `allowSharedDirectory` if you trust all who can write there',
      );
    }
  }

  /** @throws HeadstartError `WRITE_FAILED`, `DISK_FULL`. */
  async make(): Promise<void> {
    try {
      await makeDirectory(this.path, 0o700);
      await writeFile(this.join('CACHEDIR.TAG'), CACHE_TAG, { flag: 'wx', mode: 0o600 }).catch(
        (error: NodeJS.ErrnoException) => {
          if (error.code !== 'EEXIST') {
            throw error;
          }
        },
      );
    } catch (error) {
      throw writeFailure(error, this.path);
    }
  }

  /** All names; none where the directory cannot be read. */
  names(): Promise<string[]> {
    return readdir(this.path).catch(() => []);
  }

  /** @throws HeadstartError `DISK_FULL` where `bytes` more would leave less than the floor. */
  async requireRoom(bytes: number): Promise<void> {
    const disk = await statfs(this.path);
    const floor = this.#minFreeBytes ?? Math.max(MIN_FREE_RATIO * disk.blocks * disk.bsize, MIN_FREE_BYTES);
    const left = disk.bavail * disk.bsize - bytes;
    if (left < floor) {
      throw new HeadstartError(
        'DISK_FULL',
        `Saving ${bytes} bytes would leave ${Math.max(0, left)} bytes free in ${this.path}, under the floor of ${Math.round(floor)}`,
      );
    }
  }

  /**
   * Replaces a file atomically: see {@link replaceFile}.
   *
   * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
   */
  async replace<Result>(name: string, write: (temporary: string) => Promise<Result>): Promise<Result> {
    return replaceFile(this.join(name), write, { temporary: await this.#temporaryName(name) });
  }

  /**
   * Replaces a small file atomically but without syncs, because its loss costs little.
   *
   * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
   */
  async replaceText(name: string, text: string): Promise<void> {
    await replaceText(this.join(name), text, { temporary: await this.#temporaryName(name), durable: false });
  }

  /** Puts a bad file out of the way; of all those, the newest few stay. */
  async setAside(name: string): Promise<void> {
    const path = this.join(name);
    await rename(path, `${path}.corrupt`).catch(async () => {
      await rm(`${path}.corrupt`, { force: true, recursive: true }).catch(() => undefined);
      await rename(path, `${path}.corrupt`).catch(() =>
        rm(path, { force: true, recursive: true }).catch(() => undefined),
      );
    });
    await this.deleteOldCorrupt();
  }

  /** @returns how many set-aside files were deleted */
  async deleteOldCorrupt(): Promise<number> {
    const names = (await this.names()).filter((name) => name.endsWith('.corrupt'));
    if (names.length <= MAX_CORRUPT_FILES) {
      return 0;
    }
    const dated = await Promise.all(
      names.map(async (name) => ({ name, at: (await stat(this.join(name)).catch(() => undefined))?.ctimeMs ?? 0 })),
    );
    dated.sort((a, b) => b.at - a.at);
    const surplus = dated.slice(MAX_CORRUPT_FILES);
    await Promise.all(surplus.map(({ name }) => rm(this.join(name), { force: true, recursive: true })));
    return surplus.length;
  }

  /**
   * Deletes temporary files whose owners are dead: nobody holds their lock. Those of live processes, stopped ones too, stay.
   *
   * @param names what is in the directory
   * @returns how many files were deleted
   */
  async sweep(names: readonly string[]): Promise<number> {
    let swept = 0;
    const alive = new Map<string, Promise<boolean>>([[this.#owner, Promise.resolve(true)]]);
    for (const name of names) {
      const owner = OWNER_NAME.exec(name)?.[1] ?? TEMPORARY_NAME.exec(name)?.[1];
      if (owner !== undefined) {
        alive.set(owner, alive.get(owner) ?? this.#isAlive(owner, names));
      }
      if (ENTRY_LOCK_NAME.test(name)) {
        await this.#isHeld(name); // removes it where nobody holds it
      } else if (
        name.endsWith('.tmp') &&
        !(owner === undefined ? !(await this.#isOld(name)) : await alive.get(owner))
      ) {
        await rm(this.join(name), { force: true }).catch(() => undefined);
        swept++;
      }
    }
    return swept;
  }

  async close(): Promise<void> {
    const lock = await this.#ownerLock;
    if (lock !== undefined) {
      await rm(lock.path, { force: true }).catch(() => undefined); // while it is held: nobody can mistake it
      lock.release();
    }
  }

  async #temporaryName(name: string): Promise<string> {
    this.#ownerLock ??= this.#lockOwner();
    await this.#ownerLock;
    return `${this.join(name)}.${this.#owner}.${this.#temporaryFiles++}.tmp`;
  }

  async #lockOwner(): Promise<FileLock | undefined> {
    return (await FileLock.tryAcquire(this.join(`owner_${this.#owner}.lock`)).catch(() => null)) ?? undefined;
  }

  /** Asked of the lock, not of process ids: those mean nothing across containers, and are used again. */
  async #isAlive(owner: string, names: readonly string[]): Promise<boolean> {
    const name = `owner_${owner}.lock`;
    if (!names.includes(name)) {
      // It had no lock to hold (a file system without any), or is gone: only age can tell.
      const files = names.filter((each) => TEMPORARY_NAME.exec(each)?.[1] === owner);
      return !(await Promise.all(files.map((each) => this.#isOld(each)))).every(Boolean);
    }
    return this.#isHeld(name);
  }

  /** Removes a lock file that nobody holds. */
  async #isHeld(name: string): Promise<boolean> {
    try {
      const lock = await FileLock.tryAcquire(this.join(name));
      if (lock === null) {
        return true;
      }
      await rm(lock.path, { force: true }).catch(() => undefined); // while it is held: see FileLock
      lock.release();
      return false;
    } catch {
      return true; // cannot be told
    }
  }

  async #isOld(name: string): Promise<boolean> {
    const facts = await stat(this.join(name)).catch(() => undefined);
    return facts !== undefined && Date.now() - facts.mtimeMs > ORPHAN_MS;
  }
}
