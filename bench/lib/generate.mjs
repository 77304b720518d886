// Functions for the throughput benchmarks. They fill sequences with the same prefix, and generate tokens in each
// sequence.

import { Detokenizer } from 'llama-headstart/internal';

/**
 * Leases all sequences of an engine.
 *
 * @param {import('llama-headstart/internal').Engine} engine
 * @returns {Promise<import('llama-headstart/internal').Sequence[]>}
 */
export async function leaseAll(engine) {
  const sequences = Array.from({ length: engine.context.info.maxSequences }, () => engine.createSequence());
  for (const sequence of sequences) await engine.sessions.lease(sequence);
  return sequences;
}

/**
 * Empties all sequences, then restores `state` into the first `width` sequences. If `shared` is true, these sequences
 * share the same KV cells. Otherwise each sequence has its own copy.
 *
 * @param {readonly import('llama-headstart/internal').Sequence[]} sequences
 * @param {import('llama-headstart/native').SequenceState} state
 * @param {number} width
 * @param {boolean} shared needs a unified KV cache
 */
export async function placeSequences(sequences, state, width, shared) {
  for (const sequence of sequences) await sequence.clear();
  const [first, ...others] = sequences.slice(0, width);
  await first.restore(state);
  for (const sequence of others) {
    if (shared) await sequence.forkFrom(first);
    else await sequence.restore(state);
  }
}

/**
 * Generates `steps` tokens in one sequence and turns them into text, as a session does. Each sequence starts with a
 * different token, so that the continuations differ. The baseline (bench/native/baseline.cpp) uses the same tokens.
 *
 * @param {import('llama-headstart/native').Model} model
 * @param {import('llama-headstart/internal').Engine} engine
 * @param {Int32Array} prefix the tokens that the sequence holds
 * @param {import('llama-headstart/internal').Sequence} sequence
 * @param {number} steps
 */
export async function generate(model, engine, prefix, sequence, steps) {
  const reply = new Detokenizer(model, new Set());
  let text = '';
  let token = prefix[prefix.length - 1 - sequence.id];
  for (let done = 0; done < steps; done++) {
    ({ token } = await engine.decode({ sequence, tokens: Int32Array.of(token) }));
    if (!model.isEndOfGeneration(token)) text += reply.push(token);
  }
  return text;
}

/**
 * Generates tokens in sequence 0 without other work: JavaScript only awaits one native call and starts the next call.
 * The caller measures this loop, because no other JavaScript code can have a lower cost per step.
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
