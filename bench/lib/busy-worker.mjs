// A child process of bench/busy.mjs: `node busy-worker.mjs MODEL`. It receives `{ work, threads, ms }` messages, decodes
// or prefills for `ms`, and answers with the tokens of each slot of 100 ms: `{ slots: number[], threads }`.

import { availableParallelism } from 'node:os';
import { argv } from 'node:process';
import { Engine } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { systemPrompt } from '../../scripts/demo/template.mjs';

const SLOT_MS = 100;
const PROMPT_TOKENS = 512;
const HISTORY_TOKENS = 64;
/** A reply of this length is followed by a new one, so that all decodes take a similar time. */
const REPLY_TOKENS = 256;

const model = await Model.load({ path: argv[2] });
const prompt = (await model.tokenize(systemPrompt.repeat(4))).slice(0, PROMPT_TOKENS);
/** Engines by number of threads. */
const engines = new Map();

async function engineOf(threads) {
  const adaptsThreads = threads === 'auto';
  const context = await model.createContext({
    kvCells: 1024,
    batchSize: PROMPT_TOKENS,
    nThreads: adaptsThreads ? availableParallelism() : threads,
    flashAttention: false,
  });
  const engine = new Engine(context, { adaptsThreads });
  const sequence = engine.createSequence();
  await engine.sessions.lease(sequence);
  return { engine, sequence };
}

/** Runs steps until `ms` have passed. @param {() => Promise<number>} step returns its number of tokens */
async function repeat(ms, step) {
  const slots = [];
  const begin = performance.now();
  for (;;) {
    const before = performance.now() - begin;
    if (before >= ms) return slots;
    const tokens = await step();
    count(slots, tokens, before, performance.now() - begin);
  }
}

/** Distributes the tokens of a step over the slots from `before` to `after`, both in ms. */
function count(slots, tokens, before, after) {
  for (let slot = Math.floor(before / SLOT_MS); slot <= Math.floor(after / SLOT_MS); slot++) {
    const share = (Math.min(after, (slot + 1) * SLOT_MS) - Math.max(before, slot * SLOT_MS)) / (after - before);
    slots[slot] = (slots[slot] ?? 0) + tokens * share;
  }
}

/** @param {{ engine: import('llama-headstart/internal').Engine, sequence: import('llama-headstart/internal').Sequence }} parts */
async function decodeFor({ engine, sequence }, ms) {
  if (sequence.length < HISTORY_TOKENS) await engine.prefill(sequence, prompt.slice(0, HISTORY_TOKENS));
  return repeat(ms, async () => {
    if (sequence.length >= HISTORY_TOKENS + REPLY_TOKENS) await sequence.trim(HISTORY_TOKENS);
    await engine.decode({ sequence, tokens: prompt.slice(0, 1) });
    return 1;
  });
}

async function prefillFor({ engine, sequence }, ms) {
  return repeat(ms, async () => {
    await sequence.clear();
    await engine.prefill(sequence, prompt);
    return prompt.length;
  });
}

process.on('message', async ({ work, threads, ms }) => {
  if (!engines.has(threads)) engines.set(threads, await engineOf(threads));
  const parts = engines.get(threads);
  const slots = await (work === 'prefill' ? prefillFor(parts, ms) : decodeFor(parts, ms));
  process.send({ slots, threads: parts.engine.status().threads });
});
process.send('ready');
