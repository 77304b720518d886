// The cache directory. A new directory is accessible only to its owner. A directory that other users can write to is
// refused. Files that dead processes left in the directory are deleted.
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

/** The number of `*.corrupt` files to keep for inspection. The newest files stay. */
export const MAX_CORRUPT_FILES = 8;

/**
 * If the owner of a temporary file has no lock file (for example on a file system without locks), the temporary file is
 * deleted when it reaches this age.
 */
const ORPHAN_MS = 3_600_000;

/**
 * `<name>.<owner>.<number>.tmp`. The owner is an open cache in a process. This cache holds the lock on
 * `owner_<owner>.lock` until the cache is closed.
 */
const TEMPORARY_NAME = /\.([0-9a-f]{16})\.\d+\.tmp$/;
const OWNER_NAME = /^owner_([0-9a-f]{16})\.lock$/;
const ENTRY_LOCK_NAME = /^template_[0-9a-f]{64}\.lock$/;

export class CacheDirectory {
  readonly path: string;
  readonly #minFreeBytes: number | undefined;
  readonly #owner = randomBytes(8).toString('hex');
  #ownerLock: Promise<FileLock | undefined> | undefined;
  #temporaryFiles = 0;

  /** @param minFreeBytes free disk space that a save must leave, in bytes. @default the larger of 5 % and 2 GiB */
  constructor(path: string, minFreeBytes?: number) {
    this.path = path;
    this.#minFreeBytes = minFreeBytes;
  }

  join(name: string): string {
    return join(this.path, name);
  }

  /** @throws HeadstartError `CACHE_DIR_SHARED` if other users can write to the directory. */
  async requirePrivate(): Promise<void> {
    const stats = await stat(this.path).catch(() => undefined);
    const user = process.getuid?.();
    if (stats === undefined || !stats.isDirectory() || user === undefined) {
      return;
    }
    const hasForeignOwner = stats.uid !== user && stats.uid !== 0;
    if (hasForeignOwner || (stats.mode & 0o022) !== 0) {
      const why = hasForeignOwner
        ? `it belongs to user ${stats.uid}, not to ${user}`
        : `its mode is ${(stats.mode & 0o7777).toString(8).padStart(4, '0')}`;
      throw new HeadstartError(
        'CACHE_DIR_SHARED',
        `Expected a cache directory that only its owner can write to, but other users can write to "${this.path}": ${why}. ` +
          'Run `chmod go-w` on it, choose another directory with `cache.dir`, or set `cache.allowSharedDirectory` if you trust these users',
      );
    }
  }

  /**
   * Creates the directory if it does not exist.
   *
   * @throws HeadstartError `WRITE_FAILED`, `DISK_FULL`.
   */
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

  /** All file names in the directory. An empty array if the directory cannot be read. */
  names(): Promise<string[]> {
    return readdir(this.path).catch(() => []);
  }

  /** @throws HeadstartError `DISK_FULL` if a file of `bytes` bytes would leave too little free disk space. */
  async requireFreeSpace(bytes: number): Promise<void> {
    const disk = await statfs(this.path);
    const minFree = this.#minFreeBytes ?? Math.max(MIN_FREE_RATIO * disk.blocks * disk.bsize, MIN_FREE_BYTES);
    const left = disk.bavail * disk.bsize - bytes;
    if (left < minFree) {
      throw new HeadstartError(
        'DISK_FULL',
        `Expected at least ${Math.round(minFree)} bytes of free disk space after the save, but saving ${bytes} bytes in ${this.path} would leave ${Math.max(0, left)}. Delete files, or lower \`minFreeDiskBytes\``,
      );
    }
  }

  /**
   * Replaces a file atomically: see {@link replaceFile}.
   *
   * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
   */
  async replace<Result>(name: string, write: (temporary: string) => Promise<Result>): Promise<Result> {
    return replaceFile(this.join(name), write, { temporary: await this.temporaryPath(name) });
  }

  /**
   * Replaces a small file atomically. Does not sync the file, because the loss of the file costs little.
   *
   * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
   */
  async replaceText(name: string, text: string): Promise<void> {
    await replaceText(this.join(name), text, { temporary: await this.temporaryPath(name), durable: false });
  }

  /**
   * Renames a damaged file to `*.corrupt`. Then keeps only the newest {@link MAX_CORRUPT_FILES} of these files.
   */
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

  /**
   * Deletes all `*.corrupt` files except the newest {@link MAX_CORRUPT_FILES}.
   *
   * @returns the number of deleted files
   */
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
   * Deletes the temporary files and lock files of dead owners. An owner is dead if its lock is free. A suspended
   * process still holds its lock, so its files stay.
   *
   * @param names all file names in the directory
   * @returns the number of deleted temporary files
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
        await this.#isHeld(name); // deletes the file if the lock is free
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

  /** Deletes the temporary files of other owners. The owner of such a file then fails to save it. */
  async deleteTemporary(names: readonly string[]): Promise<void> {
    const foreign = names.filter((name) => (TEMPORARY_NAME.exec(name)?.[1] ?? this.#owner) !== this.#owner);
    await Promise.all(foreign.map((name) => rm(this.join(name), { force: true }).catch(() => undefined)));
  }

  async close(): Promise<void> {
    const lock = await this.#ownerLock;
    if (lock !== undefined) {
      // Delete the file while this process holds the lock, so that no other process gets the lock of a deleted file.
      await rm(lock.path, { force: true }).catch(() => undefined);
      lock.release();
    }
  }

  /** The path of a new temporary file. If this process dies, another process deletes the file. */
  async temporaryPath(name: string): Promise<string> {
    this.#ownerLock ??= this.#lockOwner();
    await this.#ownerLock;
    return `${this.join(name)}.${this.#owner}.${this.#temporaryFiles++}.tmp`;
  }

  async #lockOwner(): Promise<FileLock | undefined> {
    return (await FileLock.tryAcquire(this.join(`owner_${this.#owner}.lock`)).catch(() => null)) ?? undefined;
  }

  /**
   * Checks the owner's lock. A process id would prove nothing, because ids are reused and each container has its own
   * ids.
   */
  async #isAlive(owner: string, names: readonly string[]): Promise<boolean> {
    const name = `owner_${owner}.lock`;
    if (!names.includes(name)) {
      // Either the file system has no locks, or the owner is dead. Only the age of the owner's files can decide.
      const files = names.filter((file) => TEMPORARY_NAME.exec(file)?.[1] === owner);
      return !(await Promise.all(files.map((file) => this.#isOld(file)))).every(Boolean);
    }
    return this.#isHeld(name);
  }

  /** Whether a process holds the lock. If the lock is free, this deletes the lock file. */
  async #isHeld(name: string): Promise<boolean> {
    try {
      const lock = await FileLock.tryAcquire(this.join(name));
      if (lock === null) {
        return true;
      }
      await rm(lock.path, { force: true }).catch(() => undefined); // before the release: see FileLock
      lock.release();
      return false;
    } catch {
      return true; // the state of the lock is unknown, so the files stay
    }
  }

  async #isOld(name: string): Promise<boolean> {
    const stats = await stat(this.join(name)).catch(() => undefined);
    return stats !== undefined && Date.now() - stats.mtimeMs > ORPHAN_MS;
  }
}
