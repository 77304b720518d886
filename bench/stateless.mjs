// Compares a stateless client, which sends its whole conversation with each request (`agent.chat`), with a session.
//
//   npm run bench:stateless [-- --json] [--model FILE] [--rounds N] [--turns N] [--tokens N] [--system N] [--agents N]
//     [--head N] [--threads N]
//
// A reply has up to --tokens tokens. The system prompt of the conversation has about --system tokens, and the shared
// head of the agents has about --head tokens. --threads 0 means the default of an agent.
//
// Without --model, the benchmark measures SmolLM2 and three micro models whose memory cannot be trimmed. The hybrid
// model has a chat template that rewrites earlier replies: it leaves out their reasoning. For each model, the benchmark
// measures:
//
// - `turns`: a conversation in separate requests; - `session`: the same conversation in a session; - `sideCalls`: the
// same requests, with a request for a title between every two of them; - `restart`: the next request of the
// conversation in a new agent on the same cache directory; - `agents`: requests that arrive together in a new agent,
// with the same head and different messages.
//
// Replies are greedy, so the numbers of tokens are the same in each round. Times are medians of the rounds, in ms.

import { mkdtemp, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { systemPrompt as demoPrompt } from '../scripts/demo/template.mjs';
import { runBench } from './lib/run-bench.mjs';
import { median } from './lib/trials.mjs';

const MICRO_MODELS = ['hybrid', 'recurrent', 'sliding-window'];
/** The chat template of the hybrid model. */
const REASONING_TEMPLATE = new URL('../vendor/llama.cpp/models/templates/Qwen-QwQ-32B.jinja', import.meta.url);
/** A turn may prefill this many tokens more than its new ones. */
const MARGIN = 8;
/** The most tokens of a request of `agents` after the head: its message, and the markup around it. */
const OWN_TOKENS = 40;
/** The part of a conversation's earlier tokens that the first turn after a restart must reuse. */
const RESTART_SHARE = 0.95;
const CONTEXT_SIZE = 4096;
const QUESTIONS = [
  'Please add a route to the server that lists all open orders of one customer, newest first.',
  'Now add a test for the case in which the customer has no orders at all.',
  'The test fails on my machine, because the time zone is different there. What should I change?',
  'Good. Which files did you change, and which of them need a migration of the database?',
  'Write a short message for the commit, and say why the change was necessary.',
  'One more thing: the list should have pages of fifty orders each.',
  'Is there a faster query for this? The table has ten million rows.',
  'Thank you. What is left to do?',
];
const LINES = demoPrompt.split('\n').filter((line) => line !== '');
const TITLE = 'Write a title of at most five words for this conversation: ';

async function measureAll({ model, microModels, directory }, options, onProgress) {
  const sizes = Object.fromEntries(Object.entries(options).map(([name, value]) => [name, Number(value)]));
  const models = microModels === undefined ? [model] : [model, ...(await microPaths(microModels))];
  const results = [];
  for (const [index, path] of models.entries()) {
    const report = (fraction) => onProgress((index + fraction) / models.length, basename(path));
    results.push(await measureModel(path, directory, sizes, report));
  }
  return results;
}

/** Whether the chat template leaves out the reasoning of earlier replies. */
function rewritesReplies(model) {
  return model.startsWith('micro-hybrid');
}

async function microPaths(directory) {
  const { generateMicroModels } = await import('../test/fixtures/micro-models/models.mjs');
  return Object.values(await generateMicroModels(directory, { only: MICRO_MODELS }));
}

async function measureModel(path, directory, sizes, onProgress) {
  const { AgentServer } = await import('llama-headstart');
  const chatTemplate = rewritesReplies(basename(path)) ? await readFile(REASONING_TEMPLATE, 'utf8') : undefined;
  const model = {
    source: path,
    contextSize: CONTEXT_SIZE,
    ...(chatTemplate !== undefined && { chatTemplate }),
    ...(sizes.threads > 0 && { nThreads: sizes.threads }),
  };
  const initialize = (systemPrompt, { cacheDir = null, ...more } = {}) =>
    AgentServer.initialize({
      model: { ...model, cacheDir, ...more },
      cache: { conversations: cacheDir !== null && { minSpeedup: 0 } }, // a micro model prefills very fast
      systemPrompt,
      sampling: { temperature: 0 },
    });
  const { memory, system, head } = await withAgent(initialize(''), async (agent) => ({
    memory: memoryOf(agent.model.info),
    system: await promptOf(agent, sizes.system),
    head: await promptOf(agent, sizes.head),
  }));
  const start = (more) => initialize(system, more);
  const rounds = [];
  for (let round = 0; round < sizes.rounds; round++) {
    const cacheDir = await mkdtemp(join(directory, 'cache-'));
    const { turns, restart } = await measureRestart(start, cacheDir, sizes);
    rounds.push({
      turns,
      session: await withAgent(start(), (agent) => sessionTurns(agent, sizes)),
      restart,
      sideCalls: { turns: await withAgent(start(), (agent) => chatTurns(agent, sizes, sideCall)) },
      agents: await measureAgents(start, head, sizes),
    });
    onProgress((round + 1) / sizes.rounds);
  }
  return { model: basename(path), memory, ...mediansOf(rounds) };
}

/** Runs `work` with an agent, and closes the agent. */
async function withAgent(starting, work) {
  const agent = await starting;
  try {
    return await work(agent);
  } finally {
    await agent.close();
  }
}

function memoryOf({ recurrent, hybrid, slidingWindow }) {
  return hybrid ? 'hybrid' : recurrent ? 'recurrent' : slidingWindow > 0 ? 'sliding-window' : 'attention';
}

/** Runs the conversation in separate requests. Each request has all messages so far. */
async function chatTurns(agent, { turns, tokens }, between = async () => {}, messages = []) {
  const rows = [];
  for (let turn = 0; turn < turns; turn++) {
    messages.push({ role: 'user', content: questionAt(turn) });
    const { text, reasoning, usage } = await agent.chat({ messages, maxTokens: tokens }).result;
    messages.push({ role: 'assistant', content: text, ...(reasoning && { reasoning }) });
    rows.push(rowOf(usage));
    if (turn + 1 < turns) await between(agent, messages);
  }
  return rows;
}

/** The request for a title, as agents send it beside the main conversation. */
async function sideCall(agent, messages) {
  const content = TITLE + messages.findLast(({ role }) => role === 'user').content;
  await agent.chat({
    messages: [
      { role: 'system', content: 'You write titles.' },
      { role: 'user', content },
    ],
    maxTokens: 8,
  }).result;
}

async function sessionTurns(agent, { turns, tokens }) {
  const session = await agent.createSession();
  const rows = [];
  for (let turn = 0; turn < turns; turn++) {
    rows.push(rowOf((await session.send(questionAt(turn), { maxTokens: tokens })).usage));
  }
  return rows;
}

/** Runs the conversation, and then its next request in a new agent. */
async function measureRestart(start, cacheDir, sizes) {
  const messages = [];
  const turns = await withAgent(start({ cacheDir }), (agent) => chatTurns(agent, sizes, undefined, messages));
  messages.push({ role: 'user', content: questionAt(sizes.turns) });
  const restart = await withAgent(start({ cacheDir }), async (agent) => {
    const { usage } = await agent.chat({ messages, maxTokens: sizes.tokens }).result;
    const { inputTokens, cachedTokens, firstTokenMs } = rowOf(usage);
    return { inputTokens, cachedTokens, firstTokenMs };
  });
  return { turns, restart };
}

/** Sends all requests at once to a new agent. */
async function measureAgents(start, head, { agents: count, tokens }) {
  return withAgent(start({ nSeqMax: count }), async (agent) => {
    const system = { role: 'system', content: head };
    const requests = Array.from({ length: count }, (_, index) => ({
      messages: [system, { role: 'user', content: `Task ${index + 1}: what is left to do?` }],
      maxTokens: tokens,
    }));
    const { sharedTokens: headTokens } = await agent.explain(requests[0], requests[1]);
    const usages = await Promise.all(requests.map(async (request) => (await agent.chat(request).result).usage));
    const sum = (of) => usages.reduce((total, usage) => total + of(usage), 0);
    return {
      count,
      headTokens,
      prefilledTokens: sum(({ inputTokens, cachedInputTokens }) => inputTokens - cachedInputTokens),
      firstTokenMs: usages.map(({ firstTokenMs }) => firstTokenMs).sort((a, b) => a - b),
    };
  });
}

/** A system prompt of about this many tokens. */
async function promptOf(agent, tokens) {
  const lines = [];
  for (let line = 0; (await agent.countTokens(lines.join('\n'))) < tokens; line++) {
    lines.push(`${line}. ${LINES[line % LINES.length]}`);
  }
  return lines.join('\n');
}

function questionAt(turn) {
  return QUESTIONS[turn % QUESTIONS.length];
}

function rowOf({ inputTokens, outputTokens, cachedInputTokens: cachedTokens, firstTokenMs }) {
  return { inputTokens, outputTokens, cachedTokens, prefilledTokens: inputTokens - cachedTokens, firstTokenMs };
}

/** The last of several results with the same fields, with the medians of their times. */
function mediansOf(results) {
  const last = results.at(-1);
  if (Array.isArray(last)) {
    return last.map((_, index) => mediansOf(results.map((each) => each[index])));
  }
  const entries = Object.entries(last).map(([name, value]) => {
    const values = results.map((each) => each[name]);
    const isTime = name === 'firstTokenMs';
    if (isTime)
      return [name, Array.isArray(value) ? value.map((_, i) => median(values.map((each) => each[i]))) : median(values)];
    return [name, typeof value === 'object' ? mediansOf(values) : value];
  });
  return Object.fromEntries(entries);
}

/** The targets, and whether the results meet them. */
function targetsOf({ model, turns, sideCalls, restart, agents }) {
  const rewrites = rewritesReplies(model);
  const extra = (turn) => {
    const { inputTokens, outputTokens } = turns[turn - 1];
    return turns[turn].prefilledTokens - (turns[turn].inputTokens - inputTokens - (rewrites ? 0 : outputTokens));
  };
  const most = Math.max(...turns.slice(1).map((_, index) => extra(index + 1)));
  const old = turns.at(-1).inputTokens + (rewrites ? 0 : turns.at(-1).outputTokens);
  const withoutTimes = (rows) => JSON.stringify(rows.map(({ firstTokenMs: _, ...tokens }) => tokens));
  const again = agents.prefilledTokens - agents.headTokens;
  return [
    [
      most <= MARGIN,
      `a turn prefills its new tokens${rewrites ? ', the last reply' : ''} and at most ${MARGIN} more: ${most} more`,
    ],
    [withoutTimes(sideCalls.turns) === withoutTimes(turns), 'requests for a title change no number of tokens'],
    [
      restart.cachedTokens >= RESTART_SHARE * old,
      `after a restart, ${RESTART_SHARE * 100} % of the earlier tokens are reused: ${restart.cachedTokens} of ${old}`,
    ],
    [
      again <= OWN_TOKENS * agents.count,
      `${agents.count} requests prefill their head once, and at most ${OWN_TOKENS} tokens each after it: ${again} tokens more than the head`,
    ],
  ];
}

function report(results) {
  return results.map(reportModel).join('\n');
}

function reportModel(result) {
  const { model, memory, turns, session, restart, agents } = result;
  const line = ({ inputTokens, outputTokens, cachedTokens, prefilledTokens, firstTokenMs }, index) => [
    index + 1,
    inputTokens,
    outputTokens,
    cachedTokens,
    prefilledTokens,
    firstTokenMs.toFixed(0),
    session[index].cachedTokens,
    session[index].firstTokenMs.toFixed(0),
  ];
  const table = [
    ['turn', 'input', 'output', 'cached', 'prefilled', 'first token, ms', 'session: cached', 'first token, ms'],
    ...turns.map(line),
  ];
  return [
    `${model}: memory ${memory}${rewritesReplies(model) ? ', a chat template that rewrites earlier replies' : ''}`,
    ...columns(table),
    `after a restart: ${restart.cachedTokens} of ${restart.inputTokens} tokens reused, first token after ${restart.firstTokenMs.toFixed(0)} ms`,
    `${agents.count} agents, a shared head of ${agents.headTokens} tokens: ${agents.prefilledTokens} tokens prefilled, first tokens after ${agents.firstTokenMs[0].toFixed(0)} to ${agents.firstTokenMs.at(-1).toFixed(0)} ms`,
    ...targetsOf(result).map(([isMet, text]) => `${isMet ? 'met    ' : 'not met'} ${text}`),
    '',
  ].join('\n');
}

/** Aligns the cells of a table to the right. */
function columns(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  return rows.map((row) => row.map((cell, column) => String(cell).padStart(widths[column])).join('  '));
}

await runBench({
  title: 'stateless requests',
  options: { rounds: '3', turns: '6', tokens: '32', system: '500', agents: '8', head: '1500', threads: '0' },
  needs: { baseline: false, microModels: true },
  measure: measureAll,
  report,
});
