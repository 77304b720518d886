// Measures this package. bench/native.mjs compares the times of this program with the times of the baseline. The
// protocol is the same as in bench/native/baseline.cpp, and so are the arguments and the commands `prefill`, `decode`
// and `decode8`.
//
//   node ours.mjs MODEL THREADS KV_CELLS SEQUENCES TOKENS_FILE STATE_FILE

import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { Model, SequenceState } from 'llama-headstart/native';

const BATCH_SIZE = 512;

const [path, threads, kvCells, maxSequences, tokensFile, stateFile] = process.argv.slice(2);
const bytes = await readFile(tokensFile);
const prefix = new Int32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
const model = await Model.load({ path });
const context = await model.createContext({
  kvCells: Number(kvCells),
  batchSize: BATCH_SIZE,
  maxSequences: Number(maxSequences),
  nThreads: Number(threads),
});
await decodePrefix();
const state = await context.captureSequence(0, prefix);

/**
 * Empties all sequences without zeroing the memory of the KV cache, as the baseline does. Zeroing would evict
 * all other data from the processor's caches.
 */
async function removeAllSequences() {
  for (let sequence = 0; sequence < context.info.maxSequences; sequence++) await context.removeSequence(sequence);
}

async function decodePrefix() {
  for (let start = 0; start < prefix.length; start += BATCH_SIZE) {
    const tokens = prefix.slice(start, start + BATCH_SIZE);
    const outputs = new Uint8Array(tokens.length);
    outputs[tokens.length - 1] = start + tokens.length === prefix.length ? 1 : 0;
    const positions = tokens.map((_, index) => start + index);
    await context.decode({ tokens, positions, sequences: new Int32Array(tokens.length), outputs });
  }
}

async function timed(work) {
  await removeAllSequences();
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

/**
 * Generates tokens in `width` sequences with the same prefix: one token per sequence and step. Each sequence starts
 * with a different token.
 */
async function generate(width, steps) {
  await removeAllSequences();
  await context.restoreSequence(0, state);
  for (let sequence = 1; sequence < width; sequence++) await context.copySequence(0, sequence);
  let tokens = Int32Array.from({ length: width }, (_, index) => prefix[prefix.length - 1 - index]);
  const sequences = Int32Array.from({ length: width }, (_, index) => index);
  const outputs = new Uint8Array(width).fill(1);
  const begin = performance.now();
  for (let done = 0; done < steps; done++) {
    const positions = new Int32Array(width).fill(prefix.length + done);
    tokens = await context.decode({ tokens, positions, sequences, outputs });
  }
  return performance.now() - begin;
}

const COMMANDS = {
  prefill: () => timed(decodePrefix),
  decode: (steps) => generate(1, steps),
  decode8: (steps) => generate(8, steps),
  restore: () => timed(() => context.restoreSequence(0, state)),
  restoreFile: () =>
    timed(async () => {
      const read = await SequenceState.readFile(stateFile);
      await context.restoreSequence(0, read);
      read.close();
    }),
};

process.stdout.write('ready\n');
for await (const line of createInterface(process.stdin)) {
  const [name, ...numbers] = line.split(' ');
  process.stdout.write(`${await COMMANDS[name](...numbers.map(Number))}\n`);
}
await model.close();
