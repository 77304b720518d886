import { addon, type RawFileLock } from './addon.js';

/**
 * A lock on a file, between processes and between owners in one process: `flock` (on Windows `LockFileEx`). The operating system
 * releases it when its process dies in any way. Child processes do not inherit it. Made by {@link FileLock.tryAcquire}.
 *
 * The lock ends with `release()`, with the worker thread that acquired it, or when this object is garbage-collected: keep a reference.
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
   * Locks the file at `path`. If there is no file, an empty one is created that only its owner can read. The call never waits for the
   * lock: try again later if you want to wait.
   *
   * The file stays when the lock is released. The holder of the lock may remove the file just before the release. A waiting process may
   * then have locked a removed file; `tryAcquire` notices that and locks the file that is now at the path.
   *
   * @returns null if the lock is held, by another process or by this one
   * @throws HeadstartError `LOCK_UNSUPPORTED` (the file system has no locks, or is on another machine, such as NFS, SMB or 9P, where a
   *   lock may block for long or outlive its owner), `WRITE_FAILED` (the file cannot be opened, or is not a regular file), `DISK_FULL`,
   *   `INVALID_ARGUMENT`.
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
