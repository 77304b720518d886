// workers.mjs SCENARIO MODEL DIRECTORY: worker threads use the addon and then end or are terminated. The process must
// print nothing and exit with code 0.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isMainThread, parentPort, threadId, Worker, workerData } from 'node:worker_threads';
import { HeadstartError, Model, SequenceState, setNativeLogger } from 'llama-headstart/native';

const LENGTH = 1500;
const tokens = Int32Array.from({ length: LENGTH }, (_, index) => (index * 31) % 300);
const batch = (sequence, length) => ({
  tokens: tokens.subarray(0, length),
  positions: Int32Array.from({ length }, (_, index) => index),
  sequences: new Int32Array(length).fill(sequence),
  outputs: new Uint8Array(length).fill(1, length - 1),
});

async function prepared(path) {
  const model = await Model.load({ path });
  return { model, context: await model.createContext({ kvCells: 4096, batchSize: 2048, maxSequences: 2 }) };
}

/** A state of this length takes little time to compute, and is large enough to be captured, restored and written slowly. */
const STATE_LENGTH = 500;
const stateTokens = tokens.subarray(0, STATE_LENGTH);

async function captured(path) {
  const { context } = await prepared(path);
  await context.decode(batch(0, STATE_LENGTH));
  return context.captureSequence(0, stateTokens);
}

const newFile = (directory, name) => join(directory, `${process.pid}-${threadId}-${name}.kv`);

/** The most likely token after 40 tokens. It must be the same in every thread. */
async function answer(path) {
  const { model, context } = await prepared(path);
  const [token] = await context.decode(batch(0, 40));
  await model.close();
  return token;
}

/** The tasks of workers. A worker posts 'begun' when its work is in progress. */
const WORK = {
  async answer(path) {
    parentPort.postMessage(await answer(path));
  },
  async load(path) {
    parentPort.postMessage('begun');
    for (;;) await (await Model.load({ path })).close();
  },
  async decode(path) {
    const { context } = await prepared(path);
    parentPort.postMessage('begun');
    for (;;) {
      await context.decode(batch(0, LENGTH));
      await context.clear();
    }
  },
  async capture(path) {
    const { context } = await prepared(path);
    await context.decode(batch(0, STATE_LENGTH));
    parentPort.postMessage('begun');
    for (;;) (await context.captureSequence(0, stateTokens)).close();
  },
  async restore(path) {
    const { context } = await prepared(path);
    await context.decode(batch(0, STATE_LENGTH));
    const state = await context.captureSequence(0, stateTokens);
    parentPort.postMessage('begun');
    for (;;) {
      await context.restoreSequence(1, state);
      await context.removeSequence(1);
    }
  },
  async write(path, directory) {
    const state = await captured(path);
    parentPort.postMessage('begun');
    for (let count = 0; ; count++) await state.writeFile(newFile(directory, count));
  },
  async read(path, directory) {
    const file = newFile(directory, 'read');
    await (await captured(path)).writeFile(file);
    parentPort.postMessage('begun');
    for (;;) (await SequenceState.readFile(file)).close();
  },
  async tokenize(path) {
    const { model } = await prepared(path);
    parentPort.postMessage('begun');
    for (;;) await model.tokenize('some words '.repeat(10_000));
  },
  /** Starts another task and throws an uncaught error a few turns of the event loop after 'begun'. */
  async 'uncaught error'(path, directory) {
    const { postMessage } = parentPort;
    let left = workerData.turns;
    const fail = () => {
      if (left-- > 0) return setImmediate(fail);
      throw new Error('meant to happen');
    };
    parentPort.postMessage = (message) => {
      postMessage.call(parentPort, message);
      setImmediate(fail);
    };
    await WORK[workerData.during](path, directory);
  },
  async log(path) {
    setNativeLogger(() => {}, { level: 'debug' });
    parentPort.postMessage('begun');
    for (;;) await (await Model.load({ path })).close();
  },
  async close(path) {
    for (;;) {
      const { model, context } = await prepared(path);
      for (const sequence of [0, 1]) void context.decode(batch(sequence, LENGTH)).catch(() => {});
      const closing = model.close();
      parentPort.postMessage('begun');
      await closing;
    }
  },
  async error(path) {
    // Each thread has its own addon instance and error class. The error must be of this thread's class.
    const error = await Model.load({ path: `${path}.missing` }).catch((reason) => reason);
    parentPort.postMessage(error instanceof HeadstartError && error.code);
  },
  async forget(path) {
    const { context } = await prepared(path);
    void context.decode(batch(0, LENGTH)).catch(() => {});
    parentPort.postMessage('begun');
  },
};

const directory = process.argv[4];
const start = (work, path, more) =>
  new Worker(new URL(import.meta.url), { workerData: { work, path, directory, ...more } });
const firstMessage = async (worker) => (await once(worker, 'message'))[0];

async function terminated(work, path) {
  for (let round = 0; round < 5; round++) {
    const worker = start(work, path);
    assert.equal(await firstMessage(worker), 'begun');
    for (let turn = 0; turn < round * 3; turn++) await new Promise(setImmediate);
    await worker.terminate();
  }
  assert.equal(typeof (await answer(path)), 'number');
}

async function uncaught(during, path) {
  for (let turns = 0; turns < 9; turns += 4) {
    const worker = start('uncaught error', path, { during, turns });
    const errors = [];
    worker.on('error', (error) => errors.push(error.message));
    await new Promise((resolve) => worker.on('exit', resolve));
    assert.deepEqual(errors, ['meant to happen']);
  }
  assert.equal(typeof (await answer(path)), 'number');
}

async function requireWholeFiles(path) {
  // A write continues after its worker is terminated. The write below ends after all earlier writes, because one thread
  // makes all writes in order.
  await (await captured(path)).writeFile(newFile(directory, 'last'));
  for (const name of await readdir(directory)) (await SequenceState.readFile(join(directory, name))).close();
}

/** The tasks during which a worker ends. The keys are the names in scenarios, and the values are the names in WORK. */
const INTERRUPTED = Object.entries({
  load: 'load',
  decode: 'decode',
  capture: 'capture',
  restore: 'restore',
  tokenize: 'tokenize',
  'file read': 'read',
  'file write': 'write',
});

/** Returns one scenario per interrupted task. Each scenario runs `end` and then checks the written files. */
const scenariosOf = (title, end) =>
  Object.fromEntries(
    INTERRUPTED.map(([name, work]) => [
      `${title} during ${name}`,
      async (path) => {
        await end(work, path);
        if (work === 'write') await requireWholeFiles(path);
      },
    ]),
  );

const SCENARIOS = {
  ...scenariosOf('terminate', terminated),
  ...scenariosOf('an uncaught error', uncaught),
  'terminate while logging': (path) => terminated('log', path),
  async 'four workers'(path) {
    const expected = await answer(path);
    const workers = Array.from({ length: 4 }, () => start('answer', path));
    const exits = workers.map((worker) => once(worker, 'exit'));
    assert.deepEqual(await Promise.all(workers.map(firstMessage)), Array(4).fill(expected));
    await Promise.all(exits);
  },
  async 'errors of each thread'(path) {
    const workers = Array.from({ length: 3 }, () => start('error', path));
    assert.deepEqual(await Promise.all(workers.map(firstMessage)), Array(3).fill('MODEL_NOT_FOUND'));
    const error = await Model.load({ path: `${path}.missing` }).catch((reason) => reason);
    assert(error instanceof HeadstartError);
  },
  async 'a worker that forgets to close'(path) {
    const worker = start('forget', path);
    const [code] = await once(worker, 'exit');
    assert.equal(code, 0);
    assert.equal(typeof (await answer(path)), 'number');
  },
  async 'exit with workers at work'(path) {
    const workers = ['decode', 'load', 'capture', 'log'].map((work) => start(work, path));
    await Promise.all(workers.map(firstMessage));
    process.exit(0);
  },
  async 'exit while workers end'(path) {
    const workers = Array.from({ length: 3 }, () => start('close', path));
    await Promise.all(workers.map(firstMessage));
    for (const worker of workers) void worker.terminate();
    setImmediate(() => process.exit(0));
  },
  async 'main and worker at once'(path) {
    const worker = start('decode', path);
    await firstMessage(worker);
    const expected = await answer(path);
    for (let round = 0; round < 5; round++) assert.equal(await answer(path), expected);
    await worker.terminate();
    assert.equal(await answer(path), expected);
  },
};

if (isMainThread) {
  const [scenario, path] = process.argv.slice(2);
  await SCENARIOS[scenario](path);
} else {
  await WORK[workerData.work](workerData.path, workerData.directory);
}
