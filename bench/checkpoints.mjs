// Measures the cost of a checkpoint at the end of a message.
//
//   npm run bench:checkpoints [-- --json] [--model FILE] [--rounds N] [--history N] [--message N] [--opening N]
//
// After a history, a message and the opening of the reply are decoded: once in one piece, and once in two pieces with a cut between
// message and opening. Then the state at the cut is captured. The times are processor time of one thread, so that other programs
// do not count. Trials of all kinds take turns in one run, and the medians are reported.

import { basename } from 'node:path';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { runBench } from './lib/run-bench.mjs';
import { interleave } from './lib/trials.mjs';

/** @param {() => Promise<unknown>} work */
async function processorMs(work) {
  const begin = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(begin);
  return (user + system) / 1000;
}

async function measure({ model: path }, options, onProgress) {
  const numbers = ['rounds', 'history', 'message', 'opening'].map((name) => Number(options[name]));
  const [rounds, history, message, opening] = numbers;
  const { Engine } = await import('llama-headstart/internal');
  const { Model } = await import('llama-headstart/native');
  const model = await Model.load({ path });
  const [cut, end] = [history + message, history + message + opening];
  const tokens = (await model.tokenize(systemPrompt.repeat(Math.ceil(end / 400)))).slice(0, end);
  const kvCells = Math.ceil((end + 1) / 256) * 256;
  const engine = new Engine(await model.createContext({ kvCells, batchSize: 512, nThreads: 1 }));
  const { context } = engine;
  const read = (from, to) => engine.prefill(0, tokens.slice(from, to), from);
  await read(0, history);
  const state = await context.captureSequence(0, tokens.slice(0, history));
  let bytes = 0;
  const capture = async () => {
    const captured = await context.captureSequence(0, tokens.slice(0, cut));
    bytes = captured.byteLength;
    captured.close();
  };
  /** Measures `work` in a sequence that holds the first `from` tokens. */
  const after = (from, work) => async () => {
    await context.removeSequence(0);
    await context.restoreSequence(0, state);
    if (from > history) {
      await read(history, from);
    }
    return processorMs(work);
  };
  const measures = {
    wholeMs: after(history, () => read(history, end)),
    cutMs: after(history, () => read(history, cut).then(() => read(cut, end))),
    captureMs: after(cut, capture),
    tokenMs: after(cut, () => read(cut, cut + 1)),
  };
  const medians = await interleave(rounds, measures, onProgress);
  state.close();
  await engine.close();
  await model.close();
  return { model: basename(path), history, message, opening, ...medians, bytes };
}

function report({ model, history, message, opening, wholeMs, cutMs, captureMs, tokenMs, bytes }) {
  return [
    `${model}: a message of ${message} tokens and an opening of ${opening} behind ${history}; ms of one thread`,
    `read whole ${wholeMs.toFixed(2)}, cut in front of the opening ${cutMs.toFixed(2)}, a single token ${tokenMs.toFixed(2)}`,
    `capture of ${(bytes / 1e6).toFixed(2)} MB ${captureMs.toFixed(2)}`,
    '',
  ].join('\n');
}

const options = { rounds: '9', history: '500', message: '40', opening: '5' };
await runBench({ title: 'checkpoints', options, measure, report });
