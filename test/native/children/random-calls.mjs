// random-calls.mjs SEED CALLS MODELS DIRECTORY LORA: makes random calls with right and wrong arguments on four threads.
// Each thread has its own objects and many calls in progress. Every call must end with a result or with an error that
// has a code. Prints to stdout, as JSON, how many calls of each kind ended with a result or with an error code. Prints
// every other call to stderr, with the seed.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Model } from 'llama-headstart/native';
import { Caller } from './random-calls/caller.mjs';

const WORKERS = 3;

/** Returns the logits after a prompt. They must be the same before and after all random calls. */
async function logitsOf(path) {
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells: 256 });
  const length = 40;
  const positions = Int32Array.from({ length }, (_, at) => at);
  const outputs = new Uint8Array(length).fill(1, length - 1);
  await context.decode({ tokens: positions, positions, sequences: new Int32Array(length), outputs });
  const logits = await context.logits(length - 1);
  await model.close();
  return logits;
}

async function optionsFromArguments() {
  const [seed, calls, models, directory, lora] = process.argv.slice(2);
  const paths = JSON.parse(models);
  const [garbage, halfModel] = ['garbage', 'half'].map((name) => join(directory, name));
  await writeFile(garbage, Buffer.from(Array.from({ length: 5000 }, (_, at) => (at * 31) % 256)));
  await writeFile(halfModel, readFileSync(paths[0]).subarray(0, 100_000));
  const callsOfThread = Math.ceil(calls / (WORKERS + 1));
  return { seed: Number(seed), calls: callsOfThread, models: paths, directory, garbage, halfModel, lora };
}

/** Makes random calls on all threads. Returns the outcomes and failures of each thread. */
async function callFromAllThreads(options) {
  const workers = Array.from(
    { length: WORKERS },
    (_, at) => new Worker(new URL(import.meta.url), { workerData: { ...options, thread: at + 1 } }),
  );
  const caller = new Caller({ ...options, thread: 0 });
  const reports = Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
  const exits = Promise.all(workers.map((worker) => once(worker, 'exit')));
  await caller.run();
  const all = [caller, ...(await reports)];
  await exits;
  return all;
}

async function main() {
  const options = await optionsFromArguments();
  process.chdir(options.directory); // for relative paths
  const before = await logitsOf(options.models[0]);
  const all = await callFromAllThreads(options);
  assert.deepEqual(await logitsOf(options.models[0]), before, 'the same logits as before');

  const total = {};
  for (const { outcomes } of all) {
    for (const [kind, [values, errors]] of Object.entries(outcomes)) {
      total[kind] = [(total[kind]?.[0] ?? 0) + values, (total[kind]?.[1] ?? 0) + errors];
    }
  }
  process.stdout.write(JSON.stringify(total));
  const failures = all.flatMap((report) => report.failures);
  if (failures.length > 0) {
    process.stderr.write(failures.join('\n\n'));
    process.exitCode = 1;
  }
}

if (isMainThread) {
  await main();
} else {
  const caller = new Caller(workerData);
  await caller.run();
  parentPort.postMessage({ outcomes: caller.outcomes, failures: caller.failures });
}
