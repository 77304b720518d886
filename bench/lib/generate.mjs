// What throughput benchmarks do with an engine: sequences that stand behind the same tokens, and a loop that generates in each.

import { ReplyText } from '../../dist/generate/detokenizer.js';

/**
 * Empties all sequences, and puts `state` into the first `width` of them: cells of its own for each, or, with `shared`, the same
 * for all.
 *
 * @param {import('../../dist/index.js').Engine} engine
 * @param {import('../../dist/native/index.js').SequenceState} state
 * @param {number} width
 * @param {boolean} shared needs a unified cache
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
 * `steps` tokens in one sequence, turned into text as a session does it. As the floor does it, each sequence begins with a token
 * of its own, and goes its own way.
 *
 * @param {import('../../dist/native/index.js').Model} model
 * @param {import('../../dist/index.js').Engine} engine
 * @param {Int32Array} prefix what the sequence holds
 * @param {number} sequence
 * @param {number} steps
 */
export async function generate(model, engine, prefix, sequence, steps) {
  const reply = new ReplyText(model, new Set());
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
 * The same in sequence 0 with nothing between two steps: what a step costs JavaScript where all that it does is to wait for one
 * native call and begin the next.
 *
 * @param {import('../../dist/native/index.js').Context} context
 * @param {Int32Array} prefix what the sequence holds
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
