import { addon, type RawFileLock } from './addon.js';

/**
 * A lock on a file (`flock`, on Windows `LockFileEx`). The lock excludes other processes, and other owners in the same
 * process. The operating system releases the lock when the process dies, whatever the cause. Child processes do not
 * inherit the lock. Create one with {@link FileLock.tryAcquire}.
 *
 * The lock ends with `release()` or with the worker thread that acquired it. The lock also ends when this object is
 * garbage-collected, so keep a reference to the object.
 */
export class FileLock {
  /** The path of the locked file. */
  readonly path: string;
  readonly #raw: RawFileLock;

  private constructor(path: string, raw: RawFileLock) {
    this.path = path;
    this.#raw = raw;
  }

  /**
   * Locks the file at `path`. If the file does not exist, an empty file is created that only the user can read. The
   * call never waits for the lock. To wait, call it again later.
   *
   * The file stays when the lock is released. The holder of the lock may remove the file just before the release. Then
   * another process may have locked the removed file: `tryAcquire` notices that and locks the file that is now at the
   * path.
   *
   * @returns null if another process, or this one, already holds the lock
   * @throws HeadstartError `LOCK_UNSUPPORTED` (a file system without locks, or a network file system such as NFS, SMB
   *   or 9P, on which a lock may block for a long time or outlive its owner), `WRITE_FAILED` (the file cannot be
   *   opened, or is not a regular file), `DISK_FULL`, `INVALID_ARGUMENT`.
   */
  static async tryAcquire(path: string): Promise<FileLock | null> {
    const raw = await addon().FileLock.tryAcquire(path);
    return raw === null ? null : new FileLock(path, raw);
  }

  /** False after `release()`. */
  get held(): boolean {
    return this.#raw.held();
  }

  /** Releases the lock. Idempotent. */
  release(): void {
    this.#raw.release();
  }

  /** The same as {@link release}, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }
}
