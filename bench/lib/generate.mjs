// Building blocks of the throughput benchmarks: fill sequences with the same prefix, then generate in each of them.

import { Detokenizer } from 'llama-headstart/internal';

/**
 * Empties all sequences, then restores `state` into the first `width` sequences. If `shared` is true, these sequences
 * use the same KV cells. Otherwise each has its own copy.
 *
 * @param {import('llama-headstart/internal').Engine} engine
 * @param {import('llama-headstart/native').SequenceState} state
 * @param {number} width
 * @param {boolean} shared needs a unified KV cache
 */
export async function placeSequences(engine, state, width, shared) {
  for (let sequence = 0; sequence < engine.context.info.maxSequences; sequence++) {
    await engine.context.removeSequence(sequence);
  }
  await engine.context.restoreSequence(0, state);
  for (let sequence = 1; sequence < width; sequence++) {
    if (shared) await engine.context.copySequence(0, sequence);
    else await engine.context.restoreSequence(sequence, state);
  }
}

/**
 * Generates `steps` tokens in one sequence and turns them into text, as a session does. As in the baseline, each sequence
 * starts with a different token, so that the continuations differ.
 *
 * @param {import('llama-headstart/native').Model} model
 * @param {import('llama-headstart/internal').Engine} engine
 * @param {Int32Array} prefix the tokens that the sequence holds
 * @param {number} sequence
 * @param {number} steps
 */
export async function generate(model, engine, prefix, sequence, steps) {
  const reply = new Detokenizer(model, new Set());
  let text = '';
  let token = prefix[prefix.length - 1 - sequence];
  for (let done = 0; done < steps; done++) {
    const tokens = Int32Array.of(token);
    ({ token } = await engine.decode({ sequence, tokens, from: prefix.length + done }));
    if (!model.isEndOfGeneration(token)) text += reply.push(token);
  }
  return text;
}

/**
 * Generates tokens in sequence 0 without other work: JavaScript only awaits one native call and starts the next call.
 * The result shows the part of a step's cost that no JavaScript code can avoid.
 *
 * @param {import('llama-headstart/native').Context} context
 * @param {Int32Array} prefix the tokens that the sequence holds
 * @param {number} steps
 */
export async function generateBare(context, prefix, steps) {
  const tokens = Int32Array.of(prefix.at(-1));
  const positions = new Int32Array(1);
  const batch = { tokens, positions, sequences: new Int32Array(1), outputs: Uint8Array.of(1) };
  for (let done = 0; done < steps; done++) {
    positions[0] = prefix.length + done;
    tokens[0] = (await context.decode(batch))[0];
  }
}
