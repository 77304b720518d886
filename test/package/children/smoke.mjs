// node smoke.mjs MODEL DIRECTORY: loads a model, prefills, saves the state, and restores it from memory and from a
// file. Prints a description of the loaded addon, and hashes of the logits. The hashes must be equal.
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Model, SequenceState, systemInfo } from 'llama-headstart/native';

const [model, directory] = process.argv.slice(2);
const loaded = await Model.load({ path: model });
const options = { kvCells: 512, batchSize: 64, maxSequences: 2, nThreads: 2 };
const tokens = Int32Array.from({ length: 100 }, (_, index) => (index * 7) % 50);

const last = { tokens: Int32Array.of(11), positions: Int32Array.of(tokens.length), outputs: Uint8Array.of(1) };

async function prefill(context) {
  for (let start = 0; start < tokens.length; start += 50) {
    const batch = tokens.slice(start, start + 50);
    const positions = batch.map((_, index) => start + index);
    const outputs = new Uint8Array(batch.length);
    outputs[batch.length - 1] = 1;
    await context.decode({ tokens: batch, positions, sequences: new Int32Array(batch.length), outputs });
  }
}

/** Decodes the last token and returns a hash of its logits. */
async function logitsHash(context) {
  await context.decode({ ...last, sequences: Int32Array.of(0) });
  const logits = await context.logits(0);
  return createHash('sha256')
    .update(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength))
    .digest('hex');
}

const context = await loaded.createContext(options);
await prefill(context);
const state = await context.captureSequence(0, tokens);
const file = join(directory, `smoke-${process.pid}.kv`);
await state.writeFile(file);
const cold = await logitsHash(context);

await context.clear();
await context.restoreSequence(0, state);
const fromMemory = await logitsHash(context);

const fresh = await loaded.createContext(options);
await fresh.restoreSequence(0, await SequenceState.readFile(file));
const fromFile = await logitsHash(fresh);
await rm(file);
await loaded.close();

const { cpuModule, addonPath, addonSource, gpu, features } = systemInfo();
const hashes = { cold, fromMemory, fromFile };
const addon = { cpuModule, addonPath, addonSource, gpu, features };
process.stdout.write(`${JSON.stringify({ ...hashes, ...addon, node: process.versions.node, arch: process.arch })}\n`);
