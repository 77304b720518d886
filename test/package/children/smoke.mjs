// Load, prefill, save, restore, in this process and from a file, and the logits are equal to the bit: node smoke.mjs MODEL DIRECTORY
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
  for (let at = 0; at < tokens.length; at += 50) {
    const piece = tokens.slice(at, at + 50);
    const positions = piece.map((_, index) => at + index);
    const outputs = new Uint8Array(piece.length);
    outputs[piece.length - 1] = 1;
    await context.decode({ tokens: piece, positions, sequences: new Int32Array(piece.length), outputs });
  }
}

async function next(context) {
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
const cold = await next(context);

await context.clear();
await context.restoreSequence(0, state);
const fromMemory = await next(context);

const fresh = await loaded.createContext(options);
await fresh.restoreSequence(0, await SequenceState.readFile(file));
const fromFile = await next(fresh);
await rm(file);
await loaded.close();

const { cpuModule, addonPath, addonSource, gpu, features } = systemInfo();
const facts = { cold, fromMemory, fromFile, cpuModule, addonPath, addonSource, gpu, features };
process.stdout.write(`${JSON.stringify({ ...facts, node: process.versions.node, arch: process.arch })}\n`);
