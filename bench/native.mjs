// `npm run bench:native [-- --json] [--model FILE] [--rounds N] [--tokens N]`: the low-level API beside llama.cpp alone.
// Prefill and decode in tokens a second, restores in milliseconds; medians of trials taken in turn in one run.

import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { step } from '../scripts/lib/progress.mjs';
import { runMain } from '../scripts/lib/run.mjs';
import { Floor } from './lib/floor.mjs';
import { prepare } from './lib/prepare.mjs';
import { interleave, median } from './lib/trials.mjs';

const DECODE_STEPS = 64;
const WIDTH = 8;
const BATCH_SIZE = 512;
const KV_CELLS = 8192;
/** A trial of what takes a millisecond or two: the median of so many in a row, on either side. */
const REPEATS = 7;

async function main() {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean' },
      model: { type: 'string' },
      rounds: { type: 'string', default: '9' },
      tokens: { type: 'string', default: '1500' },
    },
  });
  const prepared = await prepare(values.model);
  try {
    const result = await step('native benchmark', {}, (progress) =>
      measure(prepared, Number(values.rounds), Number(values.tokens), (fraction, detail) =>
        progress.update({ fraction, detail }),
      ),
    );
    process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : report(result));
  } finally {
    await prepared.cleanUp();
  }
}

async function measure({ model: modelPath, floorProgram, directory }, rounds, tokenCount, onProgress) {
  const { Model, SequenceState } = await import('../dist/native/index.js');
  const threads = availableParallelism();
  const model = await Model.load({ path: modelPath });
  const context = await model.createContext({ kvCells: KV_CELLS, batchSize: BATCH_SIZE, maxSequences: WIDTH, threads });
  const tokens = (await model.tokenize(systemPrompt.repeat(8))).slice(0, tokenCount);

  await prefill(context, tokens);
  const state = await context.captureSequence(0, tokens);
  const [tokensFile, stateFile] = [join(directory, 'tokens'), join(directory, 'state.kv')];
  await writeFile(tokensFile, new Uint8Array(tokens.buffer));
  await state.writeFile(stateFile);
  const floor = await Floor.start(floorProgram, {
    model: modelPath,
    threads,
    kvCells: KV_CELLS,
    sequences: WIDTH,
    tokensFile,
    stateFile,
  });

  const restored = async (begin, from) => {
    await context.restoreSequence(0, from);
    return performance.now() - begin;
  };
  const medians = await interleave(
    rounds,
    {
      oursPrefill: () => timed(context, () => prefill(context, tokens)),
      llamaPrefill: () => floor.ms('prefill'),
      oursDecode: () => generate(context, state, tokens, 1),
      llamaDecode: () => floor.ms(`decode ${DECODE_STEPS}`),
      oursDecode8: () => generate(context, state, tokens, WIDTH),
      llamaDecode8: () => floor.ms(`decode8 ${DECODE_STEPS}`),
      oursMs: () =>
        repeated(async () => {
          await empty(context);
          return restored(performance.now(), state);
        }),
      setDataMs: () => repeated(() => floor.ms('setData')),
      oursFileMs: () =>
        repeated(async () => {
          await empty(context);
          const begin = performance.now();
          const read = await SequenceState.readFile(stateFile);
          const ms = await restored(begin, read);
          read.close();
          return ms;
        }),
      readChecksumMs: () => repeated(() => floor.ms('readChecksum')),
      loadFileMs: () => repeated(() => floor.ms('loadFile')),
      memcpyMs: () => repeated(() => floor.ms('memcpy')),
    },
    onProgress,
  );
  await floor.stop();
  await model.close();

  const rate = (count, ms) => (count * 1000) / ms;
  const { oursMs, oursFileMs, setDataMs, readChecksumMs, loadFileMs, memcpyMs } = medians;
  return {
    model: basename(modelPath),
    restore: { oursMs, oursFileMs, setDataMs, readChecksumMs, loadFileMs, memcpyMs },
    prefill: { ours: rate(tokens.length, medians.oursPrefill), llama: rate(tokens.length, medians.llamaPrefill) },
    decode: { ours: rate(DECODE_STEPS, medians.oursDecode), llama: rate(DECODE_STEPS, medians.llamaDecode) },
    decode8: {
      ours: rate(WIDTH * DECODE_STEPS, medians.oursDecode8),
      llama: rate(WIDTH * DECODE_STEPS, medians.llamaDecode8),
    },
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

await runMain(main);
