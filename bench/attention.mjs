// Measures what flash attention costs and saves on the CPU: the measurements behind `flashAttention: 'auto'`.
//
//   npm run bench:attention [-- --json] [--model FILE] [--contexts 1000,4700] [--sequences 1,8,32] [--rounds N]
//     [--steps N] [--micro-batches 128]
//
// Without --model, the benchmark measures SmolLM2 and a generated model with the layers of Qwen2-0.5B. Each model is
// measured with flash attention (`on`), and without it for each size of --micro-batches (`off`). For each number of
// tokens in --contexts:
//
// - `coldMs`: the time to prefill a template with this many tokens.
// - `firstTokenMs`: the time until a warm session has the first token of its reply. The session's message follows the
//   template and has 20 tokens.
// - `eight`: eight warm sessions start at once. `firstTokenMs` is the time until all of them have a token, and `endMs` the
//   time until each of them has 32 tokens.
// - `decode`: tokens per second for each number of sequences. In `shared`, all sequences share the template. In `own`,
//   each sequence has its own history, and all histories together have as many tokens as the template.
//
// Times are medians of --rounds alternating trials. `auto` is the choice of an agent with default options. It contains
// the times of this choice, divided by the shortest times.

import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { leaseAll, placeSequences } from './lib/generate.mjs';
import { runBench } from './lib/run-bench.mjs';
import { shapeModel } from './lib/shape-model.mjs';
import { interleave } from './lib/trials.mjs';

const MESSAGE_TOKENS = 20;
const SESSIONS = 8;
const REPLY_TOKENS = 32;
const BATCH_SIZE = 512;
/** Cells of an agent's KV cache, by default. */
const DEFAULT_CELLS = 16_384;

async function measureAll({ model, isDefaultModel }, options, onProgress) {
  const numbers = (text) => text.split(',').map(Number);
  const sizes = {
    contexts: numbers(options.contexts).sort((a, b) => a - b),
    sequences: numbers(options.sequences),
    microBatches: numbers(options['micro-batches']),
    rounds: Number(options.rounds),
    steps: Number(options.steps),
  };
  const paths = isDefaultModel ? [model, await shapeModel()] : [model];
  const models = [];
  for (const [index, path] of paths.entries()) {
    const report = (fraction, detail) => onProgress((index + fraction) / paths.length, `${basename(path)}, ${detail}`);
    models.push(await measureModel(path, sizes, report));
  }
  return { threads: availableParallelism(), models };
}

async function measureModel(path, sizes, onProgress) {
  const { Model } = await import('llama-headstart/native');
  const model = await Model.load({ path });
  const tokens = await someTokens(model, sizes.contexts.at(-1));
  const variants = await openVariants(model, sizes);
  const contexts = [];
  for (const [index, count] of sizes.contexts.entries()) {
    const report = (fraction, detail) =>
      onProgress((index + fraction) / sizes.contexts.length, `${count} tokens, ${detail}`);
    contexts.push(await measureContext(model, variants, tokens.subarray(0, count), sizes, report));
  }
  for (const { engine } of variants) await engine.close();
  await model.close();
  return { model: basename(path), contexts };
}

async function someTokens(model, count) {
  let text = systemPrompt;
  for (;;) {
    const tokens = await model.tokenize(text);
    if (tokens.length >= count) return tokens.slice(0, count);
    text += text;
  }
}

/** Opens an engine with flash attention, and one without it for each size of the micro-batches. */
async function openVariants(model, { contexts, sequences, steps, microBatches }) {
  const { Engine } = await import('llama-headstart/internal');
  const maxSequences = Math.max(SESSIONS, ...sequences);
  const rowsOfSession = MESSAGE_TOKENS + REPLY_TOKENS + steps;
  const open = async (name, options) => {
    const context = await model.createContext({
      kvCells: contexts.at(-1) + maxSequences * rowsOfSession,
      batchSize: BATCH_SIZE,
      maxSequences,
      maxOutputs: maxSequences,
      nThreads: availableParallelism(),
      ...options,
    });
    const engine = new Engine(context);
    return { name, engine, sequences: await leaseAll(engine), coldMs: 0, prefilled: 0, template: undefined };
  };
  const off = microBatches.map((microBatchSize) =>
    open(microBatches.length === 1 ? 'off' : `off${microBatchSize}`, { flashAttention: false, microBatchSize }),
  );
  return Promise.all([open('on', { flashAttention: true }), ...off]);
}

async function measureContext(model, variants, template, sizes, onProgress) {
  for (const [index, variant] of variants.entries()) {
    onProgress((0.5 * index) / variants.length, `cold, ${variant.name}`);
    await prefillTemplate(variant, template);
  }
  const measures = {};
  const eightFirstMs = {};
  for (const variant of variants) {
    const { name } = variant;
    eightFirstMs[name] = [];
    measures[`${name} first`] = () => firstToken(variant, template);
    measures[`${name} eight`] = async () => {
      const { firstMs, endMs } = await eightSessions(variant, template);
      eightFirstMs[name].push(firstMs);
      return endMs;
    };
    for (const count of sizes.sequences) {
      measures[`${name} shared ${count}`] = () => decode(variant, template, variant.template, count, true, sizes.steps);
      const own = template.subarray(0, Math.max(1, Math.floor(template.length / count)));
      const state = await stateOf(variant, template, own.length);
      measures[`${name} own ${count}`] = () => decode(variant, own, state, count, false, sizes.steps);
    }
  }
  const medians = await interleave(sizes.rounds, measures, (fraction, detail) =>
    onProgress(0.5 + 0.5 * fraction, detail),
  );
  const results = Object.fromEntries(
    variants.map(({ name, coldMs }) => [
      name,
      {
        coldMs,
        firstTokenMs: medians[`${name} first`],
        eight: { firstTokenMs: middle(eightFirstMs[name].slice(1)), endMs: medians[`${name} eight`] },
        decode: sizes.sequences.map((sequences) => {
          const rate = (kind) => (sequences * sizes.steps * 1000) / medians[`${name} ${kind} ${sequences}`];
          return { sequences, shared: rate('shared'), own: rate('own') };
        }),
      },
    ]),
  );
  return { tokens: template.length, ...results, auto: await autoOf(model, template.length, results) };
}

const middle = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Continues the template of the previous number of tokens. `coldMs` is the time for the whole template. */
async function prefillTemplate(variant, template) {
  const { engine, sequences } = variant;
  if (variant.template !== undefined) await placeSequences(sequences, variant.template, 1, false);
  const begin = performance.now();
  await engine.prefill(sequences[0], template.slice(variant.prefilled));
  variant.coldMs += performance.now() - begin;
  variant.prefilled = template.length;
  variant.template = await sequences[0].capture();
}

/** The state of the first `length` tokens of the template. */
async function stateOf({ sequences, template }, tokens, length) {
  if (length === tokens.length) return template;
  await placeSequences(sequences, template, 1, false);
  await sequences[0].trim(length);
  return sequences[0].capture();
}

/** A message whose tokens differ from session to session. */
const messageOf = (template, session) => template.slice(session, session + MESSAGE_TOKENS);

async function firstToken({ engine, sequences, template: state }, template) {
  await placeSequences(sequences, state, 1, true);
  const begin = performance.now();
  await engine.decode({ sequence: sequences[0], tokens: messageOf(template, 0) });
  return performance.now() - begin;
}

async function eightSessions({ engine, sequences, template: state }, template) {
  await placeSequences(sequences, state, SESSIONS, true);
  const begin = performance.now();
  let firstMs = 0;
  const run = async (sequence, index) => {
    let { token } = await engine.decode({ sequence, tokens: messageOf(template, index) });
    firstMs = performance.now() - begin;
    for (let count = 1; count < REPLY_TOKENS; count++) {
      ({ token } = await engine.decode({ sequence, tokens: Int32Array.of(token) }));
    }
  };
  await Promise.all(sequences.slice(0, SESSIONS).map(run));
  return { firstMs, endMs: performance.now() - begin };
}

/** Generates `steps` tokens in each of `count` sequences. */
async function decode({ engine, sequences }, prefix, state, count, isShared, steps) {
  await placeSequences(sequences, state, count, isShared);
  const begin = performance.now();
  const run = async (sequence, index) => {
    let token = prefix[prefix.length - 1 - (index % prefix.length)];
    for (let step = 0; step < steps; step++) {
      ({ token } = await engine.decode({ sequence, tokens: Int32Array.of(token) }));
    }
  };
  await Promise.all(sequences.slice(0, count).map(run));
  return performance.now() - begin;
}

/** The choice of an agent with default options, and its times divided by the shortest ones. */
async function autoOf({ info: { heads, hybrid } }, tokens, results) {
  const { chooseAttention } = await import('llama-headstart/internal');
  const { flashAttention, microBatchSize } = chooseAttention({
    usesGpu: false,
    hybrid,
    valueType: 'f16',
    kvLayout: 'unified',
    cells: Math.max(DEFAULT_CELLS, 2 * tokens),
    sequences: SESSIONS,
    heads,
    batchSize: BATCH_SIZE,
  });
  const name = flashAttention ? 'on' : (Object.keys(results).find((key) => key === `off${microBatchSize}`) ?? 'off');
  const ratio = (timeOf) => timeOf(results[name] ?? results.on) / Math.min(...Object.values(results).map(timeOf));
  return {
    choice: name,
    microBatchSize,
    cold: ratio(({ coldMs }) => coldMs),
    firstToken: ratio(({ firstTokenMs }) => firstTokenMs),
    eightFirstToken: ratio(({ eight }) => eight.firstTokenMs),
  };
}

function report({ threads, models }) {
  const lines = models.flatMap(({ model, contexts }) => [`${model}, ${threads} threads`, ...contexts.flatMap(table)]);
  return `${lines.join('\n')}\n`;
}

function table({ tokens, auto, ...variants }) {
  const row = (name, timeOf, digits = 0) =>
    `  ${name.padEnd(34)}${Object.values(variants)
      .map((variant) => timeOf(variant).toFixed(digits).padStart(10))
      .join('')}`;
  const [{ decode }] = Object.values(variants);
  return [
    `${tokens} tokens`.padEnd(36) +
      Object.keys(variants)
        .map((name) => name.padStart(10))
        .join(''),
    row('cold prefill, ms', ({ coldMs }) => coldMs),
    row('first token of a warm session, ms', ({ firstTokenMs }) => firstTokenMs),
    row('last first token of eight, ms', ({ eight }) => eight.firstTokenMs),
    row('end of eight replies, ms', ({ eight }) => eight.endMs),
    ...decode.flatMap(({ sequences }, index) => [
      row(`${sequences} sequences, shared, tokens/s`, (variant) => variant.decode[index].shared, 1),
      row(`${sequences} sequences, own, tokens/s`, (variant) => variant.decode[index].own, 1),
    ]),
    `  auto is ${auto.choice}: cold ${auto.cold.toFixed(2)}, first token ${auto.firstToken.toFixed(2)}, eight ${auto.eightFirstToken.toFixed(2)} times the best`,
  ];
}

await runBench({
  title: 'attention',
  options: { contexts: '1000,4700', sequences: '1,8,32', rounds: '3', steps: '8', 'micro-batches': '128' },
  needs: { baseline: false },
  measure: measureAll,
  report,
});
