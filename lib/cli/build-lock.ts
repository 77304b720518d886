// A lock for builds. The lock is a file that contains the id of the building process. This module does not use
// `flock()`, because only the addon could call `flock()`. If the building process dies, the lock file remains. The next
// build detects that the process no longer exists, and takes over the lock.
import { rmSync, writeFileSync } from 'node:fs';
import { readFile, rename, rm } from 'node:fs/promises';

/**
 * Runs some work while this process holds a lock.
 *
 * @param path the path of the lock
 * @throws Error if another process holds the lock
 */
export async function whileLocked<Result>(path: string, work: () => Promise<Result>): Promise<Result> {
  if (!acquire(path)) {
    const holder = Number(await readFile(path, 'utf8').catch(() => ''));
    if (!(holder > 0) || isAlive(holder)) {
      throw new Error(
        `Another build with these options is running${holder > 0 ? `, in process ${holder}` : ''}. Wait until it ends, or stop it.\n` +
          `  If no build is running, remove ${path}`,
      );
    }
    // If two processes find a stale lock, only one of them can rename it.
    await rename(path, `${path}.${process.pid}`).catch(() => undefined);
    await rm(`${path}.${process.pid}`, { force: true });
    if (!acquire(path)) {
      return whileLocked(path, work);
    }
  }
  const release = () => rmSync(path, { force: true });
  process.once('exit', release);
  try {
    return await work();
  } finally {
    process.off('exit', release);
    release();
  }
}

/** @returns whether this process holds the lock now */
function acquire(path: string): boolean {
  try {
    writeFileSync(path, `${process.pid}\n`, { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') {
      return false;
    }
    rmSync(path, { force: true }); // on a full disk, the system may have created the file without its content
    throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'; // EPERM means that the process belongs to another user
  }
}
