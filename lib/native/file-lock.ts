import { addon, type RawFileLock } from './addon.js';

/**
 * A lock on a file between processes, and within one: `flock` (on Windows `LockFileEx`). The operating system lets go of it
 * when its owner dies, however it dies; a child process does not inherit it. Made by {@link FileLock.tryAcquire}.
 *
 * It ends with `release()`, with the worker thread that acquired it, or when it is collected: keep a reference.
 */
export class FileLock {
  /** The locked file's. */
  readonly path: string;
  readonly #raw: RawFileLock;

  private constructor(path: string, raw: RawFileLock) {
    this.path = path;
    this.#raw = raw;
  }

  /**
   * Locks the file at `path`, which is made (empty, readable by its owner only) where there is none. It does not wait: who
   * wants to, tries again.
   *
   * The file stays when the lock is released. Whoever holds the lock may remove the file, as the last thing before its
   * release: a lock that another gets on a file that is no longer at the path does not count, and the path is tried anew.
   *
   * @returns null where somebody holds the lock: another process, or this one
   * @throws HeadstartError `LOCK_UNSUPPORTED` where the file system has no locks, or is another machine's (NFS, SMB, 9P and
   *   their like), where one may wait for long or outlive its owner; `WRITE_FAILED` where the file cannot be opened or is no
   *   regular one; `DISK_FULL`; `INVALID_ARGUMENT`.
   */
  static async tryAcquire(path: string): Promise<FileLock | null> {
    const raw = await addon().FileLock.tryAcquire(path);
    return raw === null ? null : new FileLock(path, raw);
  }

  /** False from `release()` on. */
  get held(): boolean {
    return this.#raw.held();
  }

  /** Idempotent. */
  release(): void {
    this.#raw.release();
  }

  /** As {@link release}, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }
}
