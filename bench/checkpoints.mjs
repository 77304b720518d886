// Measures the cost of a checkpoint at the end of a message.
//
//   npm run bench:checkpoints [-- --json] [--model FILE] [--rounds N] [--history N] [--message N] [--opening N]
//
// A sequence holds a history. The benchmark prefills a message and the opening of the reply after that history: once in
// one piece, and once in two pieces with a cut between message and opening. For comparison, the benchmark also prefills
// a single token at the cut.
//
// The benchmark also captures a checkpoint at the cut. If the model's memory can be trimmed, the checkpoint is the
// whole state. Otherwise the checkpoint is only the part of the state that cannot be trimmed.
//
// All times are processor time of one thread, so that other programs do not affect the results. The trials of all
// measurements alternate in one run. The results are medians.

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
  const sequence = engine.createSequence();
  await engine.sessions.lease(sequence);
  const prefill = (from, to) => engine.prefill(sequence, tokens.slice(from, to));
  await prefill(0, history);
  const state = await sequence.capture();
  const isPartial = !engine.canTrim && sequence.hasAttention;
  let bytes = 0;
  const capture = async () => {
    const captured = await sequence.capture(isPartial);
    bytes = captured.byteLength;
    captured.close();
  };
  /** Measures `work` in a sequence that holds the first `from` tokens. */
  const after = (from, work) => async () => {
    await sequence.clear();
    await sequence.restore(state);
    if (from > history) {
      await prefill(history, from);
    }
    return processorMs(work);
  };
  const measures = {
    wholeMs: after(history, () => prefill(history, end)),
    cutMs: after(history, () => prefill(history, cut).then(() => prefill(cut, end))),
    captureMs: after(cut, capture),
    tokenMs: after(cut, () => prefill(cut, cut + 1)),
  };
  const medians = await interleave(rounds, measures, onProgress);
  const stateBytes = state.byteLength;
  state.close();
  await engine.close();
  await model.close();
  return { model: basename(path), history, message, opening, ...medians, bytes, stateBytes };
}

function report({ model, history, message, opening, wholeMs, cutMs, captureMs, tokenMs, bytes, stateBytes }) {
  return [
    `${model}: a history of ${history} tokens, a message of ${message}, an opening of ${opening}; times of one thread`,
    `prefill in one piece ${wholeMs.toFixed(2)} ms, in two pieces ${cutMs.toFixed(2)} ms, of one token ${tokenMs.toFixed(2)} ms`,
    `capture of a checkpoint ${captureMs.toFixed(2)} ms, its size is ${(bytes / 1e6).toFixed(3)} MB`,
    `the whole state of the history has ${(stateBytes / 1e6).toFixed(3)} MB`,
    '',
  ].join('\n');
}

const options = { rounds: '9', history: '500', message: '40', opening: '5' };
await runBench({ title: 'checkpoints', options, measure, report });
