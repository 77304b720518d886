// `npm run bench:native [-- --json] [--model FILE] [--rounds N] [--tokens N]`: compares the low-level API with
// llama.cpp alone. Prints prefill and decode in tokens per second, and restores in milliseconds. Results are medians of
// alternating trials in one run. The run takes about five minutes.

import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { runBench } from './lib/run-bench.mjs';
import { TimedProgram } from './lib/timed-program.mjs';
import { median, medians, trials } from './lib/trials.mjs';

const DECODE_STEPS = 64;
const WIDTH = 8;
const KV_CELLS = 8192;
/**
 * Each round starts a new process of each program. A process can be a few percent faster or slower than another process
 * of the same program for its whole lifetime. Possible reasons are memory placement and the cores of its threads.
 */
const DEFAULT_ROUNDS = '9';
/**
 * Trials of decode in one sequence per round. Other measures have one trial per round. This decode is short, and its
 * results vary most.
 */
const DECODE_TRIALS = 4;
/** One trial is the median of this many restores, because a restore takes only a few milliseconds. */
const REPEATS = 7;
const OURS = fileURLToPath(new URL('native/ours.mjs', import.meta.url));

async function measure(prepared, options, onProgress) {
  const rounds = Number(options.rounds);
  const { files, tokenCount } = await writeFiles(prepared, Number(options.tokens));
  const results = [];
  for (let round = 0; round < rounds; round++) {
    onProgress(round / rounds, `round ${round + 1} of ${rounds}`);
    results.push(await measureRound(prepared, files, round % 2 === 1));
  }
  return { model: basename(prepared.model), ...resultOf(medians(results), tokenCount) };
}

/** Writes the files that both programs read: the tokens of the prefix, and the saved state of the prefix. */
async function writeFiles({ model: path, directory }, count) {
  const { Model } = await import('llama-headstart/native');
  const [tokensFile, stateFile] = [join(directory, 'tokens'), join(directory, 'state.kv')];
  const model = await Model.load({ path });
  const tokens = (await model.tokenize(systemPrompt.repeat(8))).slice(0, count);
  const context = await model.createContext({
    kvCells: KV_CELLS,
    batchSize: tokens.length,
    nThreads: availableParallelism(),
  });
  await context.decode({
    tokens,
    positions: tokens.map((_, index) => index),
    sequences: new Int32Array(tokens.length),
    outputs: new Uint8Array(tokens.length),
  });
  const state = await context.captureSequence(0, tokens);
  await writeFile(tokensFile, new Uint8Array(tokens.buffer));
  await state.writeFile(stateFile);
  await model.close();
  return { files: { tokensFile, stateFile }, tokenCount: tokens.length };
}

/** @param {boolean} reversed true in every second round, so that no program and no measure always runs first */
async function measureRound({ model, baselineProgram }, files, reversed) {
  const options = { model, threads: availableParallelism(), kvCells: KV_CELLS, sequences: WIDTH, ...files };
  const startOurs = () => TimedProgram.start(process.execPath, options, [OURS]);
  const startedFirst = reversed ? undefined : await startOurs();
  const baseline = await TimedProgram.start(baselineProgram, options);
  const ours = startedFirst ?? (await startOurs());
  const ordered = (measures) => (reversed ? Object.fromEntries(Object.entries(measures).reverse()) : measures);
  try {
    const slow = await trials(1, ordered(slowMeasures(ours, baseline)), undefined, 0);
    const fast = await trials(DECODE_TRIALS, ordered(decodeMeasures(ours, baseline)));
    return { ...slow, ...fast };
  } finally {
    await Promise.all([ours.stop(), baseline.stop()]);
  }
}

/** These measures need no warm-up round, because each program has run a prefill at its start. */
const slowMeasures = (ours, baseline) => ({
  oursPrefill: () => ours.ms('prefill'),
  llamaPrefill: () => baseline.ms('prefill'),
  oursMs: () => repeated(() => ours.ms('restore')),
  setDataMs: () => repeated(() => baseline.ms('setData')),
  oursFileMs: () => repeated(() => ours.ms('restoreFile')),
  readChecksumMs: () => repeated(() => baseline.ms('readChecksum')),
  loadFileMs: () => repeated(() => baseline.ms('loadFile')),
  memcpyMs: () => repeated(() => baseline.ms('memcpy')),
  oursDecode8: () => ours.ms(`decode8 ${DECODE_STEPS}`),
  llamaDecode8: () => baseline.ms(`decode8 ${DECODE_STEPS}`),
});

const decodeMeasures = (ours, baseline) => ({
  oursDecode: () => ours.ms(`decode ${DECODE_STEPS}`),
  llamaDecode: () => baseline.ms(`decode ${DECODE_STEPS}`),
});

function resultOf(ms, tokenCount) {
  const { oursMs, oursFileMs, setDataMs, readChecksumMs, loadFileMs, memcpyMs } = ms;
  const rates = (count, ours, llama) => ({ ours: (count * 1000) / ours, llama: (count * 1000) / llama });
  return {
    restore: { oursMs, oursFileMs, setDataMs, readChecksumMs, loadFileMs, memcpyMs },
    prefill: rates(tokenCount, ms.oursPrefill, ms.llamaPrefill),
    decode: rates(DECODE_STEPS, ms.oursDecode, ms.llamaDecode),
    decode8: rates(WIDTH * DECODE_STEPS, ms.oursDecode8, ms.llamaDecode8),
  };
}

async function repeated(trial) {
  const all = [];
  for (let time = 0; time < REPEATS; time++) all.push(await trial());
  return median(all);
}

function report({ model, restore, prefill, decode, decode8 }) {
  const rates = Object.entries({ prefill, decode, 'decode, 8 sequences': decode8 });
  const lines = rates.map(
    ([name, { ours, llama }]) =>
      `${name.padEnd(22)} ${ours.toFixed(1)} tokens/s, llama.cpp alone ${llama.toFixed(1)}: ${(ours / llama).toFixed(3)}`,
  );
  const { oursMs, oursFileMs, setDataMs, readChecksumMs, loadFileMs, memcpyMs } = restore;
  const fileBaselineMs = readChecksumMs + setDataMs;
  return [
    model,
    ...lines,
    `restore from memory    ${oursMs.toFixed(2)} ms, llama_state_seq_set_data ${setDataMs.toFixed(2)} ms: ${(oursMs / setDataMs).toFixed(2)}`,
    `restore from a file    ${oursFileMs.toFixed(2)} ms, read + checksum + set_data ${fileBaselineMs.toFixed(2)} ms: ${(oursFileMs / fileBaselineMs).toFixed(2)}`,
    `                       (llama_state_seq_load_file, without a checksum: ${loadFileMs.toFixed(2)} ms; memcpy ${memcpyMs.toFixed(2)} ms)`,
    '',
  ].join('\n');
}

await runBench({ title: 'native benchmark', options: { rounds: DEFAULT_ROUNDS, tokens: '1500' }, measure, report });
