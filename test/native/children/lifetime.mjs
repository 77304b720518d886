// lifetime.mjs WORK END MODEL DIRECTORY: begins WORK, then ends the process by END while it is under way.
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Model, SequenceState } from 'llama-headstart/native';

const [work, end, path, directory] = process.argv.slice(2);

/** A batch that takes long enough to be under way when the process ends. */
const LENGTH = 2000;
const tokens = Int32Array.from({ length: LENGTH }, (_, at) => (at * 31) % 300);
const batch = (sequence, length = LENGTH) => ({
  tokens: tokens.subarray(0, length),
  positions: Int32Array.from({ length }, (_, at) => at),
  sequences: new Int32Array(length).fill(sequence),
  outputs: new Uint8Array(length),
});

async function prepared(length) {
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells: 8192, batchSize: 2048, maxSequences: 4 });
  if (length) await context.decode(batch(0, length));
  return { model, context };
}

/** Each resolves when its work has begun, and leaves it under way: promises that nobody awaits. */
const WORKS = {
  async nothing() {},
  async load() {
    void Model.load({ path }).catch(() => {});
  },
  async 'a load that has progressed'() {
    await new Promise((resolve) => {
      void Model.load({ path, onProgress: resolve }).catch(() => {});
    });
  },
  async loaded() {
    globalThis.kept = await prepared(10);
  },
  async decode() {
    const { context } = await prepared();
    for (const sequence of [0, 1, 2]) void context.decode(batch(sequence)).catch(() => {});
  },
  async capture() {
    const { context } = await prepared(500);
    for (let round = 0; round < 50; round++) void context.captureSequence(0, tokens.subarray(0, 500)).catch(() => {});
  },
  async restore() {
    const { context } = await prepared(500);
    const state = await context.captureSequence(0, tokens.subarray(0, 500));
    for (let round = 0; round < 50; round++) {
      void context.removeSequence(1).catch(() => {});
      void context.restoreSequence(1, state).catch(() => {});
    }
  },
  async 'file write'() {
    const { context } = await prepared(1500);
    const state = await context.captureSequence(0, tokens.subarray(0, 1500));
    for (let round = 0; round < 20; round++) {
      void state.writeFile(join(directory, `${process.pid}-${round}.kv`)).catch(() => {});
    }
  },
  async 'file read'() {
    const { context } = await prepared(1500);
    const state = await context.captureSequence(0, tokens.subarray(0, 1500));
    const file = join(directory, `${process.pid}.kv`);
    await state.writeFile(file);
    for (let round = 0; round < 20; round++) void SequenceState.readFile(file).catch(() => {});
  },
  async hash() {
    const { FileHash } = await import('../../../dist/native/file-hash.js');
    const file = join(directory, `${process.pid}.hole`);
    writeFileSync(file, '');
    truncateSync(file, 2 ** 26); // a hole, which takes no room
    for (let round = 0; round < 3; round++) {
      void new FileHash().add(file, [{ offset: 0, length: 2 ** 26 }]).catch(() => {});
    }
  },
  async tokenise() {
    const { model } = await prepared();
    for (let round = 0; round < 20; round++) void model.tokenize('some words '.repeat(10_000)).catch(() => {});
  },
  async close() {
    const { model, context } = await prepared();
    void context.decode(batch(0)).catch(() => {});
    void model.close();
  },
};

// Behind the package's own listener: by then nothing is at work.
const { addon } = await import('../../../dist/native/addon.js');
addon();
process.on('exit', () => addon().park() || process.stderr.write('threads were at work at the end'));

const ENDS = {
  exit: () => process.exit(0),
  'exit a turn later': () => setImmediate(() => process.exit(0)),
  'uncaught error': () => {
    throw new Error('meant to happen');
  },
  'by itself': () => {},
};

await WORKS[work]();
ENDS[end]();
