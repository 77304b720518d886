// Measures decode and prefill beside programs that use the processors, for each fixed number of threads and for
// `nThreads: 'auto'`.
//
//   npm run bench:busy [-- --json] [--model FILE] [--loops 0,1,2,4] [--threads 1,2] [--seconds N] [--settle N]
//     [--period N] [--phases N]
//
// - `steady`: tokens per second beside each number of busy loops in --loops. Each measurement takes --seconds. With
//   `auto`, --settle seconds pass first.
// - `changing`: busy loops come and go every --period seconds, for --phases phases. `tokensPerSecond` are means over the
//   part of each phase after --settle seconds.
// - `pair`: two processes decode at the same time. Tokens per second of both together, for each pair of fixed numbers
//   and for `auto`.
//
// `best` is the highest rate of a fixed number. `ratio` is the rate of `auto` divided by it. Without --threads, the fixed
// numbers are 1, 2, 4 and so on, and the number of cores.

import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runBench } from './lib/run-bench.mjs';

const WORKER = new URL('./lib/busy-worker.mjs', import.meta.url);
const WORKS = ['decode', 'prefill'];

/** A process that decodes. */
class Worker {
  #child;
  #ended;

  static async start(model) {
    const worker = new Worker();
    worker.#child = fork(WORKER, [model]);
    worker.#ended = once(worker.#child, 'exit').then(([code]) => {
      throw new Error(`The measured process ended with exit code ${code}. See its message above.`);
    });
    worker.#ended.catch(() => {}); // the process also ends after stop()
    await worker.#nextMessage();
    return worker;
  }

  /** @returns {Promise<{ slots: number[], threads: object }>} the tokens of each tenth of a second */
  run(work, threads, ms) {
    this.#child.send({ work, threads, ms });
    return this.#nextMessage();
  }

  stop() {
    this.#child.disconnect();
    this.#child.kill();
  }

  async #nextMessage() {
    const [message] = await Promise.race([once(this.#child, 'message'), this.#ended]);
    return message;
  }
}

/** Runs `work` beside busy loops. */
async function besideLoops(count, work) {
  const loops = Array.from({ length: count }, () => spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }));
  try {
    if (count > 0) await sleep(500); // until the loops run
    return await work();
  } finally {
    for (const loop of loops) loop.kill();
    await Promise.all(loops.map((loop) => loop.exitCode ?? loop.signalCode ?? once(loop, 'exit')));
  }
}

const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);

/** Mean tokens per second from second `from` on, up to second `to`. */
function rate(slots, from, to) {
  return sum(slots.slice(Math.round(from * 10), Math.round(to * 10))) / (to - from);
}

async function measure({ model }, options, onProgress) {
  const numbers = (text) => text.split(',').map(Number);
  const [seconds, settle, period, phases] = ['seconds', 'settle', 'period', 'phases'].map((name) =>
    Number(options[name]),
  );
  const counts = options.threads === '' ? defaultCounts() : numbers(options.threads);
  const plan = { loops: numbers(options.loops), counts, seconds, settle, period, phases };
  const workers = [await Worker.start(model), await Worker.start(model)];
  try {
    const steady = await measureSteady(workers[0], plan, (fraction, detail) => onProgress(0.6 * fraction, detail));
    onProgress(0.6, 'changing load');
    const changing = await measureChanging(workers[0], plan, steady);
    onProgress(0.8, 'two processes');
    const pair = await measurePair(workers, plan);
    return { model: basename(model), cores: availableParallelism(), steady, changing, pair };
  } finally {
    for (const worker of workers) worker.stop();
  }
}

function defaultCounts() {
  const cores = availableParallelism();
  const counts = [];
  for (let count = 1; count < cores; count *= 2) counts.push(count);
  return [...counts, cores];
}

/** The rates of fixed numbers and of `auto`. */
function compared(fixed, auto) {
  const best = Math.max(...Object.values(fixed));
  return { fixed, auto, best, ratio: auto / best };
}

async function measureSteady(worker, { loops, counts, seconds, settle }, onProgress) {
  const rows = [];
  const total = loops.length * WORKS.length;
  for (const count of loops) {
    for (const work of WORKS) {
      onProgress(rows.length / total, `${work} beside ${count} loops`);
      const row = await besideLoops(count, async () => {
        const fixed = {};
        for (const threads of counts) {
          await worker.run(work, threads, 100 * seconds); // opens the context, and wakes its threads
          fixed[threads] = rate((await worker.run(work, threads, seconds * 1000)).slots, 0, seconds);
        }
        const auto = await worker.run(work, 'auto', (settle + seconds) * 1000);
        return { ...compared(fixed, rate(auto.slots, settle, settle + seconds)), threads: auto.threads[work] };
      });
      rows.push({ loops: count, work, ...row });
    }
  }
  return rows;
}

/** Alternates between the most busy loops and none, while one process decodes. */
async function measureChanging(worker, { loops, settle, period, phases }, steady) {
  if (phases === 0) return [];
  const most = Math.max(...loops);
  const running = worker.run('decode', 'auto', phases * period * 1000);
  const begin = performance.now();
  for (let phase = 0; phase < phases; phase++) {
    const left = () => Math.max(0, (phase + 1) * period * 1000 - (performance.now() - begin));
    if (phase % 2 === 0) await sleep(left());
    else await besideLoops(most, () => sleep(left()));
  }
  const { slots } = await running;
  return Array.from({ length: phases }, (_, phase) => {
    const count = phase % 2 === 0 ? 0 : most;
    const best = steady.find((row) => row.loops === count && row.work === 'decode')?.best;
    const tokensPerSecond = rate(slots, phase * period + settle, (phase + 1) * period);
    return { loops: count, tokensPerSecond, ...(best && { best, ratio: tokensPerSecond / best }) };
  });
}

/** Two processes that decode at the same time. */
async function measurePair(workers, { counts, seconds, settle }) {
  const together = async (threads, from) => {
    const ms = (from + seconds) * 1000;
    const results = await Promise.all(workers.map((worker, index) => worker.run('decode', threads[index], ms)));
    return sum(results.map((result) => rate(result.slots, from, from + seconds)));
  };
  const fixed = {};
  for (const [index, first] of counts.entries()) {
    for (const second of counts.slice(index)) {
      await Promise.all(workers.map((worker, which) => worker.run('decode', [first, second][which], 100)));
      fixed[`${first}+${second}`] = await together([first, second], 0);
    }
  }
  return compared(fixed, await together(['auto', 'auto'], settle));
}

function report({ model, cores, steady, changing, pair }) {
  const rates = ({ fixed, auto, ratio }) =>
    [
      ...Object.entries(fixed).map(([threads, value]) => `${threads} threads ${value.toFixed(1).padStart(7)}`),
      `auto ${auto.toFixed(1).padStart(7)}: ${ratio.toFixed(2)} of the best`,
    ].join('   ');
  return [
    `${model}, ${cores} cores, tokens/s`,
    ...steady.map((row) => `${row.work.padEnd(8)} beside ${row.loops} busy loops   ${rates(row)}`),
    ...changing.map(
      ({ loops, tokensPerSecond, ratio }) =>
        `decode, load that comes and goes, ${loops} busy loops   auto ${tokensPerSecond.toFixed(1)}${ratio ? `: ${ratio.toFixed(2)} of the best` : ''}`,
    ),
    `two processes   ${rates(pair)}`,
    '',
  ].join('\n');
}

await runBench({
  title: 'busy machine',
  options: { loops: '0,1,2,4', threads: '', seconds: '10', settle: '10', period: '20', phases: '4' },
  needs: { baseline: false },
  measure,
  report,
});
