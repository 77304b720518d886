// Uses a lock file next to the entry, so that only one of several processes prefills a template. This process holds the
// lock from the prefill until the entry is saved. The lock only prevents duplicate work: a process that does not get
// the lock in time prefills without the lock.
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { throwIfAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import { FileLock } from '../../native/file-lock.js';
import { publish } from '../events.js';
import type { CacheDirectory } from './cache-directory.js';
import type { DiskStore } from './disk-store.js';
import { lockName } from './entry.js';

/** The lock that this process holds while it prefills and saves a template. `release` is idempotent. */
export interface EntryLock {
  release(): Promise<void>;
}

/** The result of waiting for a template that another process may be prefilling. */
export interface LockWait {
  /**
   * The lock. Undefined if the file system has no locks or the wait took too long: this process then prefills without
   * it.
   */
  lock: EntryLock | undefined;
  /** Whether the entry may have been saved during the wait. If true, the caller must read the entry again. */
  appeared: boolean;
  waitedMs: number;
}

const FIRST_POLL_MS = 5;
const LAST_POLL_MS = 50;

/**
 * Waits for the lock of a template, or until another process has saved the entry.
 *
 * @param foreign whether the file with the short name belongs to another key
 * @param limitMs maximum wait in ms. The limit is necessary because the process that holds the lock may hang.
 * @throws HeadstartError `ABORTED`
 */
export async function waitForLock(
  disk: DiskStore,
  key: string,
  foreign: boolean,
  limitMs: number,
  signal: AbortSignal,
): Promise<LockWait> {
  const begin = performance.now();
  const initial = foreign ? await disk.identity(key) : '';
  let poll = FIRST_POLL_MS;
  for (;;) {
    const lock = await tryLock(disk.directory, key);
    const waitedMs = performance.now() - begin;
    const isNew = (await disk.identity(key)) !== initial;
    // If the short name belongs to another key, the entry is saved under its full name. Only a read shows whether that
    // file exists.
    const appeared = isNew || (foreign && lock !== 'taken' && waitedMs > FIRST_POLL_MS);
    if (lock !== 'taken' || appeared || waitedMs > limitMs) {
      return { lock: lock === 'taken' ? undefined : lock, appeared, waitedMs: poll === FIRST_POLL_MS ? 0 : waitedMs };
    }
    if (poll === FIRST_POLL_MS) {
      publish({ type: 'wait', key });
    }
    await sleep(poll, undefined, { signal }).catch(() => throwIfAborted(signal));
    poll = Math.min(LAST_POLL_MS, poll * 2);
  }
}

/** @returns undefined if the file system has no locks or the directory is not writable */
async function tryLock(directory: CacheDirectory, key: string): Promise<EntryLock | undefined | 'taken'> {
  try {
    const lock = await FileLock.tryAcquire(directory.join(lockName(key)));
    return lock === null ? 'taken' : { release: () => releaseLock(lock) };
  } catch (error) {
    if (HeadstartError.isInstance(error, 'CLOSED')) {
      throw error;
    }
    return undefined;
  }
}

/**
 * Deletes the lock file and then releases the lock. If another process has locked the deleted file, `FileLock` notices
 * that and locks a new file: see {@link FileLock.tryAcquire}.
 */
async function releaseLock(lock: FileLock): Promise<void> {
  if (lock.held) {
    await rm(lock.path, { force: true }).catch(() => undefined);
    lock.release();
  }
}
