// One build at a time: a file that names the process which works. Without the addon there is no `flock`, so a process that died leaves
// its file behind, and the next one sees that it is gone.

import { rmSync, writeFileSync } from 'node:fs';
import { readFile, rename, rm } from 'node:fs/promises';

/**
 * @template T
 * @param {string} path of the lock
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 * @throws {Error} where another process works
 */
export async function whileLocked(path, work) {
  if (!take(path)) {
    const holder = Number(await readFile(path, 'utf8').catch(() => ''));
    if (!(holder > 0) || isAlive(holder)) {
      throw new Error(
        `Another build with these options is under way${holder > 0 ? `, in process ${holder}` : ''}: wait for its end, or stop it.\n` +
          `  If there is none, remove ${path}`,
      );
    }
    // Of two that find it stale, one moves it away.
    await rename(path, `${path}.${process.pid}`).catch(() => {});
    await rm(`${path}.${process.pid}`, { force: true });
    if (!take(path)) return whileLocked(path, work);
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

/** @param {string} path @returns {boolean} whether it is ours now */
function take(path) {
  try {
    writeFileSync(path, `${process.pid}\n`, { flag: 'wx' });
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === 'EEXIST') return false;
    rmSync(path, { force: true }); // a full disk takes the file's name and not its content
    throw error;
  }
}

/** @param {number} pid */
function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: another user's.
    return /** @type {NodeJS.ErrnoException} */ (error).code !== 'ESRCH';
  }
}
