// Compares this package's server with llama-server, which is built from the vendored sources.
//
//   npm run bench:server [-- --json] [--model FILE] [--trials N] [--head N] [--tokens N] [--overhead N]
//
// bench/lib/server-scenarios.mjs describes the scenarios. The system prompt has about --head tokens, and each reply has
// --tokens tokens. Both servers have the same model file, K/V type, number of threads and number of KV cells.
// llama-server runs with these settings:
//
// - `defaults`: no other settings.
// - `oneSlot`: one slot. The benchmark saves the state of the slot before the restart, and restores the state afterwards.
// - `oneSlotNoFlash`: the same without flash attention.
// - `twoSlots`: two slots, so that a request for a title does not use the slot of the conversation.
//
// For each scenario, `best` is the setting of llama-server with the earliest first text. The trials of all programs
// alternate. Times are medians, in ms.
//
// `overhead` compares streamed replies of the server with the same requests by `agent.chat` in the server's process.
// The model of this comparison is a micro model, so that computing takes little of the time. --overhead is the number
// of trials.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemPrompt as demoPrompt } from '../scripts/demo/template.mjs';
import { streamChat } from './lib/chat-client.mjs';
import { buildLlamaServer, startLlamaServer } from './lib/llama-server.mjs';
import { runBench } from './lib/run-bench.mjs';
import { runScenarios, SCENARIOS } from './lib/server-scenarios.mjs';
import { median } from './lib/trials.mjs';

const PROGRAM = fileURLToPath(new URL('lib/server-program.mjs', import.meta.url));
const AT_ONCE = 8;
/** The tokens of a conversation besides its head and its replies. */
const OTHER_TOKENS = 400;
const THREADS = availableParallelism();
const QUESTION = 'My chain broke. What should I do now?';
/** The tokens of the long replies in the measurement of the overhead. */
const LONG_REPLY = 65;
const LINES = demoPrompt.split('\n').filter((line) => line !== '');
const LLAMA_SETTINGS = {
  defaults: [],
  oneSlot: ['--parallel', '1'],
  oneSlotNoFlash: ['--parallel', '1', '--flash-attn', 'off'],
  twoSlots: ['--parallel', '2', '--kv-unified'],
};

async function measure({ model, microModels, directory }, options, onProgress) {
  const [trials, headTokens, tokens, overheadTrials] = ['trials', 'head', 'tokens', 'overhead'].map((name) =>
    Number(options[name]),
  );
  const llamaServer = await buildLlamaServer();
  const kvCells = Math.ceil((AT_ONCE * (headTokens + OTHER_TOKENS + 3 * tokens)) / 256) * 256;
  const workload = await workloadOf(model, { headTokens, tokens });
  const programs = {
    ours: (files) =>
      startOurs({ source: model, contextSize: Math.min(kvCells, 8192), kvCells, nThreads: THREADS }, files),
    ...Object.fromEntries(
      Object.entries(LLAMA_SETTINGS).map(([name, args]) => [
        name,
        (files) => startLlama(llamaServer, { model, kvCells, args }, files),
      ]),
    ),
  };
  const names = Object.keys(programs);
  const results = Object.fromEntries(names.map((name) => [name, []]));
  for (let trial = 0; trial < trials; trial++) {
    for (const [index, name] of names.entries()) {
      onProgress((trial * names.length + index) / (trials * names.length), name);
      results[name].push(await trialOf(name, programs[name], { directory, workload }));
    }
  }
  return {
    model: basename(model),
    threads: THREADS,
    headTokens: workload.headTokens,
    replyTokens: tokens,
    scenarios: Object.keys(SCENARIOS).map((name) => scenarioOf(name, results)),
    overhead: await measureOverhead(microModels === undefined ? model : await denseModel(microModels), {
      trials: overheadTrials,
      directory,
    }),
  };
}

/** Runs all scenarios of one program, with an empty directory for its files. */
async function trialOf(name, start, { directory, workload }) {
  const files = await mkdtemp(join(directory, `${name}-`));
  try {
    return await runScenarios(() => start(files), workload);
  } finally {
    await rm(files, { recursive: true, force: true });
  }
}

async function startOurs(model, directory) {
  const options = { model: { ...model, cacheDir: join(directory, 'cache') }, cache: { conversations: true } };
  const child = fork(PROGRAM, [JSON.stringify(options)]);
  const [{ url }] = await once(child, 'message');
  return {
    url,
    chat: async (chat) => {
      child.send({ chat });
      const [{ endMs }] = await once(child, 'message');
      return endMs;
    },
    stop: async () => {
      if (child.exitCode !== null) return;
      const exited = once(child, 'exit');
      child.send('stop');
      await exited;
    },
  };
}

async function startLlama(program, { model, kvCells, args }, directory) {
  const common = ['--model', model, '--ctx-size', `${kvCells}`, '--threads', `${THREADS}`];
  const server = await startLlamaServer(program, [...common, ...args, '--slot-save-path', directory]);
  const slot = async (action) => {
    const body = JSON.stringify({ filename: 'slot.bin' });
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${server.url}/slots/0?action=${action}`, { method: 'POST', headers, body });
    if (!response.ok) throw new Error(`llama-server could not ${action} its slot: ${await response.text()}`);
  };
  const isByHand = args.length > 0;
  return { ...server, ...(isByHand && { save: () => slot('save'), restore: () => slot('restore') }) };
}

/** Returns the system prompt, and request fields that keep a reply from ending before its limit. */
async function workloadOf(path, { headTokens, tokens }) {
  return await withModel(path, async (model) => {
    const lines = [];
    let length = 0;
    while (length < headTokens) {
      lines.push(`${lines.length}. ${LINES[lines.length % LINES.length]}`);
      length = (await model.tokenize(lines.join('\n'))).length;
    }
    const request = { max_tokens: tokens, temperature: 0, logit_bias: withoutEnd(model) };
    return { head: lines.join('\n'), headTokens: length, request };
  });
}

async function withModel(path, use) {
  const { Model } = await import('llama-headstart/native');
  const model = await Model.load({ path, vocabularyOnly: true });
  try {
    return await use(model);
  } finally {
    await model.close();
  }
}

/** Forbids the tokens that end a reply. */
function withoutEnd(model) {
  const all = Array.from({ length: model.info.vocabulary.size }, (_, token) => token);
  return Object.fromEntries(all.filter((token) => model.isEndOfGeneration(token)).map((token) => [token, -100]));
}

/** Returns the medians of a scenario, and how they compare. */
function scenarioOf(name, results) {
  const medians = Object.fromEntries(
    Object.entries(results).map(([program, trials]) => [
      program,
      {
        firstMs: median(trials.map((scenarios) => scenarios[name].firstMs)),
        endMs: median(trials.map((scenarios) => scenarios[name].endMs)),
      },
    ]),
  );
  const { ours, ...llama } = medians;
  const [best] = Object.keys(llama).sort((a, b) => llama[a].firstMs - llama[b].firstMs);
  return {
    name,
    ours,
    llama,
    best,
    timesSoonerThanDefaults: llama.defaults.firstMs / ours.firstMs,
    ratioToBest: ours.firstMs / llama[best].firstMs,
    endRatioToBest: ours.endMs / Math.min(...Object.values(llama).map(({ endMs }) => endMs)),
  };
}

/** Returns what HTTP adds to a request and to each token, in ms. */
async function measureOverhead(path, { trials, directory }) {
  const server = await startOurs({ source: path, nThreads: 1 }, directory);
  const bias = await withModel(path, withoutEnd);
  const messages = [{ role: 'user', content: QUESTION }];
  const times = { 1: [], [LONG_REPLY]: [] };
  try {
    for (let trial = 0; trial <= trials; trial++) {
      for (const tokens of [1, LONG_REPLY]) {
        const sampling = { temperature: 0, logitBias: bias };
        const chatMs = await server.chat({ messages, maxTokens: tokens, sampling });
        const body = { messages, max_tokens: tokens, temperature: 0, logit_bias: bias };
        const { endMs } = await streamChat(server.url, body);
        if (trial > 0) times[tokens].push(endMs - chatMs); // trial 0 is a warm-up
      }
    }
  } finally {
    await server.stop();
  }
  const [requestMs, longMs] = [1, LONG_REPLY].map((tokens) => median(times[tokens]));
  return { model: basename(path), requestMs, tokenMs: (longMs - requestMs) / (LONG_REPLY - 1) };
}

async function denseModel(directory) {
  const { generateMicroModels } = await import('../test/fixtures/micro-models/models.mjs');
  return (await generateMicroModels(directory, { only: ['dense'] })).dense;
}

function report({ model, threads, headTokens, replyTokens, scenarios, overhead }) {
  const times = ({ firstMs, endMs }) => `${firstMs.toFixed(0).padStart(7)} ${endMs.toFixed(0).padStart(7)}`;
  return [
    `${model}, ${threads} threads, a head of ${headTokens} tokens, replies of ${replyTokens} tokens`,
    'ms to the first text and to the end; ours, llama-server with its defaults, llama-server at its best',
    ...scenarios.map(
      ({ name, ours, llama, best, timesSoonerThanDefaults, ratioToBest }) =>
        `${name.padEnd(14)}${times(ours)}   ${times(llama.defaults)}   ${times(llama[best])} (${best})   ` +
        `${timesSoonerThanDefaults.toFixed(1)} times sooner than the defaults, ${ratioToBest.toFixed(2)} of the best`,
    ),
    `HTTP adds ${overhead.requestMs.toFixed(2)} ms to a request and ${overhead.tokenMs.toFixed(3)} ms to a token (${overhead.model})`,
    '',
  ].join('\n');
}

await runBench({
  title: 'server',
  options: { trials: '3', head: '4700', tokens: '100', overhead: '30' },
  needs: { baseline: false, microModels: true },
  measure,
  report,
});
