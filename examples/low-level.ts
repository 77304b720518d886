// The low-level API. This program prefills a prefix once, saves its state to a file, and generates three continuations
// from this state.
//
//   node low-level.js MODEL.gguf
import { rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { Model, SequenceState } from 'llama-headstart/native';

const path = process.argv[2];
if (path === undefined) {
  throw new Error('Expected the path of a GGUF file: node low-level.js MODEL.gguf');
}
await using model = await Model.load({ path });
await using context = await model.createContext({ kvCells: 2048, maxSequences: 4, nThreads: availableParallelism() });

const prefix = await model.tokenize('Here are three facts about the sea. ');
await context.decode(batch(0, 0, prefix));
const captured = await context.captureSequence(0, prefix);
await captured.writeFile('facts.kv', {});
console.log(`${prefix.length} tokens, ${(captured.byteLength / 1024).toFixed(0)} KiB of state in facts.kv`);

using state = await SequenceState.readFile('facts.kv');
await context.restoreSequence(1, state);
for (const [index, start] of ['First,', 'Whales', 'Salt'].entries()) {
  const sequence = 2;
  await context.copySequence(1, sequence); // sequence 2 shares the cells of sequence 1, so no data is copied
  const text = await continueWith(sequence, await model.tokenize(start), 16);
  console.log(`${index + 1}. ${start}${text.trimEnd()}`);
  await context.removeSequence(sequence);
}
await rm('facts.kv');

/** Continues the prefix and the given tokens, always with the most likely token. Returns the generated text. */
async function continueWith(sequence: number, tokens: Int32Array, count: number): Promise<string> {
  let position = prefix.length;
  let [next = 0] = await context.decode(batch(sequence, position, tokens));
  position += tokens.length;
  const pieces: Uint8Array[] = [];
  while (pieces.length < count && !model.isEndOfGeneration(next)) {
    pieces.push(model.tokenToBytes(next));
    [next = 0] = await context.decode(batch(sequence, position++, Int32Array.of(next)));
  }
  return Buffer.concat(pieces).toString('utf8');
}

/** Makes a batch of the next tokens of one sequence. Only the last token has an output. */
function batch(sequence: number, from: number, tokens: Int32Array) {
  return {
    tokens,
    positions: tokens.map((_, index) => from + index),
    sequences: new Int32Array(tokens.length).fill(sequence),
    outputs: Uint8Array.from(tokens, (_, index) => (index === tokens.length - 1 ? 1 : 0)),
  };
}
