// `npm run bench:fanout [-- --json] [--model FILE] [--rounds N]`: eight sessions arrive at once on one template, each with
// about 20 tokens of its own. Milliseconds until the first token of each, warm and cold, beside `floorMs`: what a native
// program needs to decode those tokens in one batch behind the same template. Medians of trials taken in turn in one run.

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { systemPrompt, tools } from '../scripts/demo/template.mjs';
import { Floor } from './lib/floor.mjs';
import { runBench } from './lib/run-bench.mjs';
import { median } from './lib/trials.mjs';

const SESSIONS = 8;
const KV_CELLS = 4096;
const MAX_TOKENS = 8;
const COLD_ROUNDS = 3;
const SUBJECTS = ['river', 'mountain', 'garden', 'station', 'library', 'kitchen', 'harbour', 'theatre'];
const MESSAGES = SUBJECTS.map((subject) => `Please tell me about the ${subject} of this town.`);

async function measure({ model: path, floorProgram, directory }, given, onProgress) {
  const rounds = Number(given.rounds);
  const { AgentServer } = await import('../dist/index.js');
  const threads = availableParallelism();
  const options = {
    model: { source: path, cacheDir: null, nSeqMax: SESSIONS, kvCells: KV_CELLS, contextSize: 2560, nThreads: threads },
    systemPrompt,
    tools,
    sampling: { temperature: 0 },
  };
  const start = () => AgentServer.initialize(options);
  const agent = await start();
  const { template, own } = await tokensOf(agent);
  const [tokensFile, ownFile] = [join(directory, 'template'), join(directory, 'own')];
  await writeFile(tokensFile, new Uint8Array(template.buffer));
  await writeFile(ownFile, new Uint8Array(Int32Array.from(own.flatMap((each) => [...each])).buffer));
  const sequences = SESSIONS + 4; // as the agent's, with its resident templates
  const floor = await Floor.start(floorProgram, { model: path, threads, kvCells: KV_CELLS, sequences, tokensFile });

  const trials = { floor: [], warm: [], cold: [] };
  for (let round = 0; round <= rounds; round++) {
    trials.floor.push(await floor.ms(`fanout ${ownFile} ${SESSIONS}`));
    trials.warm.push(await fanOut(agent));
    onProgress(round / (rounds + 1), `warm, round ${round + 1} of ${rounds + 1}`);
  }
  await agent.close();
  for (let round = 0; round < COLD_ROUNDS; round++) {
    const fresh = await start();
    trials.cold.push(await fanOut(fresh));
    await fresh.close();
    onProgress((rounds + round / COLD_ROUNDS) / (rounds + 1), 'cold');
  }
  await floor.stop();
  return {
    model: basename(path),
    sessions: SESSIONS,
    templateTokens: template.length,
    ownTokens: own[0].length,
    floorMs: median(trials.floor.slice(1)),
    warm: summary(trials.warm.slice(1)), // the first round does not count
    cold: summary(trials.cold),
  };
}

/** The template, and what each conversation adds to it up to its first token, all of one length. */
async function tokensOf(agent) {
  const { Renderer } = await import('../dist/prompt/renderer.js');
  const session = await agent.createSession();
  const length = session.report.templateTokens;
  await session.close();
  const renderer = new Renderer(agent.model);
  const prompts = [];
  for (const content of MESSAGES) {
    prompts.push((await renderer.prompt({ systemPrompt, tools }, [{ role: 'user', content }])).tokens);
  }
  const shortest = Math.min(...prompts.map((prompt) => prompt.length));
  return { template: prompts[0].slice(0, length), own: prompts.map((prompt) => prompt.slice(length, shortest)) };
}

/** @returns {Promise<{ firstTokenMs: number[], decodedTokens: number }>} sorted; tokens up to the last first token */
async function fanOut(agent) {
  let decoded = 0;
  const count = ({ tokens }) => {
    decoded += tokens;
  };
  subscribe('llama-headstart:decode', count);
  const begin = performance.now();
  let decodedTokens = 0;
  const firstTokenMs = await Promise.all(
    MESSAGES.map(async (message) => {
      const session = await agent.createSession();
      let firstMs;
      for await (const _part of session.stream(message, { maxTokens: MAX_TOKENS })) {
        if (firstMs === undefined) {
          firstMs = performance.now() - begin;
          decodedTokens = decoded;
        }
      }
      await session.close();
      return firstMs;
    }),
  );
  unsubscribe('llama-headstart:decode', count);
  return { firstTokenMs: firstTokenMs.sort((a, b) => a - b), decodedTokens };
}

/** The trial whose last first token is the median one. */
function summary(trials) {
  const last = ({ firstTokenMs }) => firstTokenMs.at(-1);
  const sorted = [...trials].sort((a, b) => last(a) - last(b));
  return sorted[(sorted.length - 1) >> 1];
}

function report({ model, sessions, templateTokens, ownTokens, floorMs, warm, cold }) {
  const line = (name, { firstTokenMs, decodedTokens }) =>
    `${name}: first tokens after ${firstTokenMs[0].toFixed(0)} to ${firstTokenMs.at(-1).toFixed(0)} ms, ${decodedTokens} tokens decoded`;
  return [
    `${model}: ${sessions} sessions at once, a template of ${templateTokens} tokens, ${ownTokens} of their own`,
    `llama.cpp alone, their own tokens in one batch: ${floorMs.toFixed(0)} ms`,
    `${line('warm', warm)}: ${(warm.firstTokenMs.at(-1) / floorMs).toFixed(2)} times that`,
    line('cold', cold),
    '',
  ].join('\n');
}

await runBench({ title: 'fan-out', options: { rounds: '5' }, measure, report });
