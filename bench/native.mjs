// `npm run bench:native [-- --json] [--model FILE] [--rounds N] [--tokens N]`: the low-level API beside llama.cpp alone.
// Prefill and decode in tokens a second, restores in milliseconds; medians of trials taken in turn in one run. About five minutes.

import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { Floor } from './lib/floor.mjs';
import { runBench } from './lib/run-bench.mjs';
import { median, medians, trials } from './lib/trials.mjs';

const DECODE_STEPS = 64;
const WIDTH = 8;
const BATCH_SIZE = 512;
const KV_CELLS = 8192;
/**
 * One process is a few percent faster or slower than another of the same program, for as long as it lives: so the rounds are
 * spread over contexts and floor programs that are started anew.
 */
const PASSES = 3;
/** Trials of decode a round: they vary most, and are short. */
const DECODE_TRIALS = 2;
/** A trial of what takes a millisecond or two: the median of so many in a row, on either side. */
const REPEATS = 7;

async function measure(prepared, options, onProgress) {
  const [rounds, tokenCount] = [Number(options.rounds), Number(options.tokens)];
  const { Model } = await import('../dist/native/index.js');
  const model = await Model.load({ path: prepared.model });
  const tokens = (await model.tokenize(systemPrompt.repeat(8))).slice(0, tokenCount);
  const files = await writeFiles(model, tokens, prepared.directory);
  await model.close();
  const passes = [];
  for (let pass = 0; pass < PASSES; pass++) {
    passes.push(
      await measurePass(prepared, files, tokens, Math.ceil(rounds / PASSES), pass, (fraction, detail) =>
        onProgress((pass + fraction) / PASSES, `pass ${pass + 1} of ${PASSES}, ${detail}`),
      ),
    );
  }
  return { model: basename(prepared.model), ...resultOf(medians(passes), tokens.length) };
}

/** What the floor program starts from. */
async function writeFiles(model, tokens, directory) {
  const [tokensFile, stateFile] = [join(directory, 'tokens'), join(directory, 'state.kv')];
  const context = await model.createContext(contextOptions());
  await prefill(context, tokens);
  const state = await context.captureSequence(0, tokens);
  await writeFile(tokensFile, new Uint8Array(tokens.buffer));
  await state.writeFile(stateFile);
  state.close();
  await context.close();
  return { tokensFile, stateFile };
}

const contextOptions = () => ({
  kvCells: KV_CELLS,
  batchSize: BATCH_SIZE,
  maxSequences: WIDTH,
  threads: availableParallelism(),
});

/** Rounds with a context and a floor program of their own, of which every second pass starts the other one first. */
async function measurePass({ model: path, floorProgram }, files, tokens, rounds, pass, onProgress) {
  const { Model, SequenceState } = await import('../dist/native/index.js');
  const sizes = { threads: availableParallelism(), kvCells: KV_CELLS, sequences: WIDTH };
  const startFloor = () => Floor.start(floorProgram, { model: path, ...sizes, ...files });
  const early = pass % 2 === 1 ? await startFloor() : undefined;
  const model = await Model.load({ path });
  const context = await model.createContext(contextOptions());
  const readState = () => SequenceState.readFile(files.stateFile);
  const state = await readState();
  const floor = early ?? (await startFloor());
  try {
    const slow = await trials(rounds, slowMeasures(context, floor, tokens, state, readState), (fraction, detail) =>
      onProgress(0.7 * fraction, detail),
    );
    const fast = await trials(rounds * DECODE_TRIALS, decodeMeasures(context, floor, tokens, state), (fraction) =>
      onProgress(0.7 + 0.3 * fraction, 'decode'),
    );
    return { ...slow, ...fast };
  } finally {
    await floor.stop();
    state.close();
    await model.close();
  }
}

function slowMeasures(context, floor, tokens, state, readState) {
  const restored = async (begin, from) => {
    await context.restoreSequence(0, from);
    return performance.now() - begin;
  };
  const readAndRestored = async () => {
    const begin = performance.now();
    const read = await readState();
    const ms = await restored(begin, read);
    read.close();
    return ms;
  };
  const emptied = (trial) => () =>
    repeated(async () => {
      await empty(context);
      return trial();
    });
  return {
    oursPrefill: () => timed(context, () => prefill(context, tokens)),
    llamaPrefill: () => floor.ms('prefill'),
    oursMs: emptied(() => restored(performance.now(), state)),
    setDataMs: () => repeated(() => floor.ms('setData')),
    oursFileMs: emptied(readAndRestored),
    readChecksumMs: () => repeated(() => floor.ms('readChecksum')),
    loadFileMs: () => repeated(() => floor.ms('loadFile')),
    memcpyMs: () => repeated(() => floor.ms('memcpy')),
  };
}

const decodeMeasures = (context, floor, tokens, state) => ({
  oursDecode: () => generate(context, state, tokens, 1),
  llamaDecode: () => floor.ms(`decode ${DECODE_STEPS}`),
  oursDecode8: () => generate(context, state, tokens, WIDTH),
  llamaDecode8: () => floor.ms(`decode8 ${DECODE_STEPS}`),
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

/** As the floor does it: without zeroing the cache's memory, which would put all else out of the processor's caches. */
async function empty(context) {
  for (let sequence = 0; sequence < WIDTH; sequence++) await context.removeSequence(sequence);
}

async function timed(context, work) {
  await empty(context);
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

async function prefill(context, tokens) {
  for (let start = 0; start < tokens.length; start += BATCH_SIZE) {
    const piece = tokens.slice(start, start + BATCH_SIZE);
    const outputs = new Uint8Array(piece.length);
    outputs[piece.length - 1] = start + piece.length === tokens.length ? 1 : 0;
    const positions = piece.map((_, index) => start + index);
    await context.decode({ tokens: piece, positions, sequences: new Int32Array(piece.length), outputs });
  }
}

/** As the floor does it: `width` sequences behind the same template, one token each a step, each going its own way. */
async function generate(context, state, prefix, width) {
  await empty(context);
  await context.restoreSequence(0, state);
  for (let sequence = 1; sequence < width; sequence++) await context.copySequence(0, sequence);
  let tokens = Int32Array.from({ length: width }, (_, index) => prefix[prefix.length - 1 - index]);
  const sequences = Int32Array.from({ length: width }, (_, index) => index);
  const outputs = new Uint8Array(width).fill(1);
  const begin = performance.now();
  for (let done = 0; done < DECODE_STEPS; done++) {
    const positions = new Int32Array(width).fill(prefix.length + done);
    tokens = await context.decode({ tokens, positions, sequences, outputs });
  }
  return performance.now() - begin;
}

function report({ model, restore, prefill, decode, decode8 }) {
  const rates = Object.entries({ prefill, decode, 'decode, 8 sequences': decode8 });
  const lines = rates.map(
    ([name, { ours, llama }]) =>
      `${name.padEnd(22)} ${ours.toFixed(1)} tokens/s, llama.cpp alone ${llama.toFixed(1)}: ${(ours / llama).toFixed(3)}`,
  );
  const { oursMs, oursFileMs, setDataMs, readChecksumMs, loadFileMs, memcpyMs } = restore;
  const floorMs = readChecksumMs + setDataMs;
  return [
    model,
    ...lines,
    `restore from memory    ${oursMs.toFixed(2)} ms, llama_state_seq_set_data ${setDataMs.toFixed(2)} ms: ${(oursMs / setDataMs).toFixed(2)}`,
    `restore from a file    ${oursFileMs.toFixed(2)} ms, read + checksum + set_data ${floorMs.toFixed(2)} ms: ${(oursFileMs / floorMs).toFixed(2)}`,
    `                       (llama_state_seq_load_file, which verifies nothing: ${loadFileMs.toFixed(2)} ms; memcpy ${memcpyMs.toFixed(2)} ms)`,
    '',
  ].join('\n');
}

await runBench({ title: 'native benchmark', options: { rounds: '9', tokens: '1500' }, measure, report });
