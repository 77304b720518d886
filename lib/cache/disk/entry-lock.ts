// One prefill for several processes: a lock file next to the entry, held from the prefill until the entry is saved. The lock only saves
// work: a process that does not get it in time prefills too.
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { throwIfAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import { FileLock } from '../../native/file-lock.js';
import { publish } from '../events.js';
import type { CacheDirectory } from './cache-directory.js';
import type { DiskStore } from './disk-store.js';
import { lockName } from './entry.js';

/** Held while this process prefills and saves. `release` may be called twice. */
export interface EntryLock {
  release(): Promise<void>;
}

/** The result of waiting for a template that another process may be prefilling. */
export interface LockWait {
  /** Undefined if there are no locks or the wait took too long: this process then prefills without the lock. */
  lock: EntryLock | undefined;
  /** The entry may be there now: read it again. */
  appeared: boolean;
  waitedMs: number;
}

const FIRST_POLL_MS = 5;
const LAST_POLL_MS = 50;

/**
 * @param foreign whether an entry of another key has the short name
 * @param limitMs longest wait, for example if the holder of the lock hangs
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
    // If the short name belongs to another key, the entry gets its full name. Then only reading can tell whether it is there.
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

/** Undefined if the file system has no locks or the directory is not writable. */
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

/** Deletes the file while the lock is held. A process that then gets the lock of the deleted file tries again (see FileLock). */
async function releaseLock(lock: FileLock): Promise<void> {
  if (lock.held) {
    await rm(lock.path, { force: true }).catch(() => undefined);
    lock.release();
  }
}
