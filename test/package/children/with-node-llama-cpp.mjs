// node with-node-llama-cpp.mjs MODEL: uses this package and node-llama-cpp alternately in one process, with the
// same model.
import { createHash } from 'node:crypto';
import { Model } from 'llama-headstart/native';
import { getLlama } from 'node-llama-cpp';

const path = process.argv[2];

/** Returns a hash of logits that this package computes. */
async function logitsHash() {
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells: 256, batchSize: 64, maxSequences: 1, nThreads: 2 });
  const tokens = Int32Array.from({ length: 40 }, (_, index) => (index * 7) % 50);
  const outputs = new Uint8Array(tokens.length);
  outputs[tokens.length - 1] = 1;
  await context.decode({
    tokens,
    positions: tokens.map((_, index) => index),
    sequences: new Int32Array(tokens.length),
    outputs,
  });
  const logits = await context.logits(tokens.length - 1);
  await model.close();
  return createHash('sha256')
    .update(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength))
    .digest('hex');
}

const before = await logitsHash();
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' });
const model = await llama.loadModel({ modelPath: path });
const context = await model.createContext({ contextSize: 128 });
const between = await logitsHash();
const sequence = context.getSequence();
let tokenCount = 0;
for await (const _ of sequence.evaluate([1, 2, 3, 4, 5])) {
  tokenCount += 1;
  if (tokenCount === 4) break;
}
await llama.dispose();
const after = await logitsHash();
if (between !== before) throw new Error('Expected the same logits while node-llama-cpp is loaded, got other logits');
process.stdout.write(`${JSON.stringify({ before, after, tokenCount })}\n`);
process.exit(0);
