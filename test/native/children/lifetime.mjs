// lifetime.mjs WORK END MODEL DIRECTORY: starts the work WORK (see WORKS), then ends the process in the way END (see
// ENDS) while the work is in progress.
import { truncateSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Model, SequenceState, systemInfo } from 'llama-headstart/native';

const [work, end, path, directory] = process.argv.slice(2);

/** A batch of this size is still being decoded when the process ends. */
const LENGTH = 2000;
const tokens = Int32Array.from({ length: LENGTH }, (_, index) => (index * 31) % 300);
const batch = (sequence, length = LENGTH) => ({
  tokens: tokens.subarray(0, length),
  positions: Int32Array.from({ length }, (_, index) => index),
  sequences: new Int32Array(length).fill(sequence),
  outputs: new Uint8Array(length),
});

async function prepared(length) {
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells: 8192, batchSize: 2048, maxSequences: 4 });
  if (length) await context.decode(batch(0, length));
  return { model, context };
}

/** Each function resolves when its work has started. It does not wait for the end of the work. */
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
    const { FileHash } = await import('llama-headstart/internal');
    const file = join(directory, `${process.pid}.hole`);
    writeFileSync(file, '');
    truncateSync(file, 2 ** 25); // a sparse file, which uses no disk space
    for (let round = 0; round < 3; round++) {
      void new FileHash().add(file, [{ offset: 0, length: 2 ** 25 }]).catch(() => {});
    }
  },
  async tokenize() {
    const { model } = await prepared();
    for (let round = 0; round < 20; round++) void model.tokenize('some words '.repeat(10_000)).catch(() => {});
  },
  async close() {
    const { model, context } = await prepared();
    void context.decode(batch(0)).catch(() => {});
    void model.close();
  },
};

// The package's listener was registered first, so this listener runs after the package has stopped all its threads. The
// addon comes from the module cache, because an import of `llama-headstart/internal` takes longer than most of the work.
systemInfo(); // loads the addon
const { cache } = createRequire(import.meta.url);
const addon = Object.values(cache).find((module) => module.filename.endsWith('.node')).exports;
process.on('exit', () => addon.park() || process.stderr.write('threads were still running at the end'));

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
