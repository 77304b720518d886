// file-lock.mjs ACTION PATH: runs ACTION (see ACTIONS) with the lock at PATH. Prints the outcome of each attempt to
// acquire the lock.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { FileLock, HeadstartError } from 'llama-headstart/native';

/** Longer than any test. The test kills the process earlier. */
const FOREVER_MS = 100_000;

/** Tries to acquire the lock. Returns the outcome as text, and the lock or null. */
async function tryLock(path) {
  try {
    const lock = await FileLock.tryAcquire(path);
    return [lock === null ? 'taken by another' : 'locked', lock];
  } catch (error) {
    return [HeadstartError.isInstance(error) ? error.code : String(error), null];
  }
}

async function lockAndPrint(path) {
  const [outcome, lock] = await tryLock(path);
  process.stdout.write(`${outcome}\n`);
  return lock;
}

const ACTIONS = {
  /** Holds the lock until the process is killed. */
  async hold(path) {
    globalThis.kept = await lockAndPrint(path);
    setTimeout(() => {}, FOREVER_MS);
  },
  /** Does the same, and starts a child process that outlives this process. */
  async 'hold and spawn'(path) {
    globalThis.kept = await lockAndPrint(path);
    const child = spawn(process.execPath, ['-e', `console.log('up'); setTimeout(() => {}, ${FOREVER_MS})`], {
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    });
    await once(child.stdout, 'data');
    process.stdout.write(`${child.pid}\n`);
    setTimeout(() => {}, FOREVER_MS);
  },
  /** Terminates a worker that holds the lock. */
  async 'terminate a worker'(path) {
    const worker = new Worker(new URL(import.meta.url), { workerData: { path } });
    const [inWorker] = await once(worker, 'message');
    const [beside] = await tryLock(path);
    await worker.terminate();
    const [after, lock] = await tryLock(path);
    process.stdout.write(`${[inWorker, beside, after].join(', ')}\n`);
    lock?.release();
  },
  /** Drops the lock without a release. Collects garbage until the lock can be acquired again. */
  async 'drop and collect'(path) {
    await (async () => void (await lockAndPrint(path)))();
    for (let turn = 0; turn < 2000; turn++) {
      gc();
      await new Promise(setImmediate);
      const [outcome, lock] = await tryLock(path);
      if (lock === null) continue;
      process.stdout.write(`${outcome}\n`);
      return;
    }
  },
  async 'end by itself'(path) {
    globalThis.kept = await lockAndPrint(path);
  },
  async exit(path) {
    globalThis.kept = await lockAndPrint(path);
    process.exit(0);
  },
};

if (isMainThread) {
  const [action, path] = process.argv.slice(2);
  await ACTIONS[action](path);
} else {
  const [outcome, lock] = await tryLock(workerData.path);
  globalThis.kept = lock;
  parentPort.postMessage(outcome);
  setTimeout(() => {}, FOREVER_MS);
}
