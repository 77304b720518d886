// One prefill between processes: a lock beside the entry, held from the prefill until the entry is saved. It only saves work:
// who cannot have it in time prefills too.
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { throwIfAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import { FileLock } from '../../native/file-lock.js';
import { publish } from '../events.js';
import type { CacheDirectory } from './cache-directory.js';
import type { DiskStore } from './disk-store.js';
import { lockName } from './entry.js';

/** Held while this process prefills and saves; `release` may be called twice. */
export interface EntryLock {
  release(): Promise<void>;
}

/** How the wait for a template that another process may be prefilling ended. */
export interface LockWait {
  /** Undefined where there is none to have: this process goes on by itself. */
  lock: EntryLock | undefined;
  /** Somebody else has saved the entry meanwhile: look again. */
  appeared: boolean;
  waitedMs: number;
}

const FIRST_POLL_MS = 5;
const LAST_POLL_MS = 50;

/**
 * @param foreign another key's entry has the name, and is not what we wait for
 * @param limitMs longest wait: an owner that hangs, or is stopped, costs no more
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
  const before = foreign ? await disk.identity(key) : '';
  let poll = FIRST_POLL_MS;
  for (;;) {
    const lock = await tryLock(disk.directory, key);
    const waitedMs = performance.now() - begin;
    const isNew = (await disk.identity(key)) !== before;
    // Under the other name that an entry of this key then gets: only a look can tell.
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

/** Undefined where the file system has no locks, or the directory cannot be written. */
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

/** The file goes while the lock is held: whoever gets a lock on a file that is no longer there tries again. */
async function releaseLock(lock: FileLock): Promise<void> {
  if (lock.held) {
    await rm(lock.path, { force: true }).catch(() => undefined);
    lock.release();
  }
}
