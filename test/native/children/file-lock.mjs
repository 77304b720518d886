// file-lock.mjs WHAT PATH: takes the lock at PATH, says what came of it in one line, and does WHAT with it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { FileLock, HeadstartError } from 'llama-headstart/native';

/** Far longer than a test takes: who is killed while it waits for nothing. */
const FOREVER_MS = 100_000;

async function outcome(path) {
  try {
    const lock = await FileLock.tryAcquire(path);
    return [lock === null ? 'taken by another' : 'locked', lock];
  } catch (error) {
    return [HeadstartError.isInstance(error) ? error.code : String(error), null];
  }
}

async function lockAt(path) {
  const [said, lock] = await outcome(path);
  process.stdout.write(`${said}\n`);
  return lock;
}

const WORKS = {
  /** Until it is killed. */
  async hold(path) {
    globalThis.kept = await lockAt(path);
    setTimeout(() => {}, FOREVER_MS);
  },
  /** And leaves a child of its own behind. */
  async 'hold and spawn'(path) {
    globalThis.kept = await lockAt(path);
    const child = spawn(process.execPath, ['-e', `console.log('up'); setTimeout(() => {}, ${FOREVER_MS})`], {
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    });
    await once(child.stdout, 'data');
    process.stdout.write(`${child.pid}\n`);
    setTimeout(() => {}, FOREVER_MS);
  },
  /** And is ended while it holds it. */
  async 'a worker that is ended'(path) {
    const worker = new Worker(new URL(import.meta.url), { workerData: { path } });
    const [inWorker] = await once(worker, 'message');
    const [meanwhile] = await outcome(path);
    await worker.terminate();
    const [after, lock] = await outcome(path);
    process.stdout.write(`${[inWorker, meanwhile, after].join(', ')}\n`);
    lock?.release();
  },
  async 'drop and collect'(path) {
    await (async () => void (await lockAt(path)))();
    for (let turn = 0; turn < 2000; turn++) {
      gc();
      await new Promise(setImmediate);
      const [said, lock] = await outcome(path);
      if (lock === null) continue;
      process.stdout.write(`${said}\n`);
      return;
    }
  },
  async 'end by itself'(path) {
    globalThis.kept = await lockAt(path);
  },
  async exit(path) {
    globalThis.kept = await lockAt(path);
    process.exit(0);
  },
};

if (isMainThread) {
  const [work, path] = process.argv.slice(2);
  await WORKS[work](path);
} else {
  const [said, lock] = await outcome(workerData.path);
  globalThis.kept = lock;
  parentPort.postMessage(said);
  setTimeout(() => {}, FOREVER_MS);
}
