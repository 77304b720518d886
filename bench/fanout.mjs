// `npm run bench:fanout [-- --json] [--model FILE] [--rounds N]`: starts eight sessions with one template at the same
// time. Each session gets a message of about 20 tokens. Measures the milliseconds until each session has its first
// token, with a warm and with a cold cache. The baseline is a native program that decodes the same tokens in one batch
// after the same template. Results are medians. The trials of the baseline and of the warm cache alternate in one run.
// The trials with a cold cache run last.

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { systemPrompt, tools } from '../scripts/demo/template.mjs';
import { runBench } from './lib/run-bench.mjs';
import { TimedProgram } from './lib/timed-program.mjs';
import { median } from './lib/trials.mjs';

const SESSIONS = 8;
const KV_CELLS = 4096;
const MAX_TOKENS = 8;
const COLD_ROUNDS = 3;
const SUBJECTS = ['river', 'mountain', 'garden', 'station', 'library', 'kitchen', 'harbor', 'theater'];
const MESSAGES = SUBJECTS.map((subject) => `Please tell me about the ${subject} of this town.`);

async function measure({ model: path, baselineProgram, directory }, benchOptions, onProgress) {
  const rounds = Number(benchOptions.rounds);
  const { AgentServer } = await import('llama-headstart');
  const threads = availableParallelism();
  const options = {
    model: { source: path, cacheDir: null, nSeqMax: SESSIONS, kvCells: KV_CELLS, contextSize: 2560, nThreads: threads },
    systemPrompt,
    tools,
    sampling: { temperature: 0 },
  };
  const start = () => AgentServer.initialize(options);
  const agent = await start();
  const { template, suffixes } = await tokensOf(agent);
  const [tokensFile, suffixFile] = [join(directory, 'template'), join(directory, 'suffixes')];
  await writeFile(tokensFile, new Uint8Array(template.buffer));
  await writeFile(suffixFile, new Uint8Array(Int32Array.from(suffixes.flatMap((suffix) => [...suffix])).buffer));
  const sequences = SESSIONS + 4; // the agent has the same number: one per session, and 4 for resident templates
  const settings = { model: path, threads, kvCells: KV_CELLS, sequences, tokensFile };
  const baseline = await TimedProgram.start(baselineProgram, settings);

  const trials = { baseline: [], warm: [], cold: [] };
  for (let round = 0; round <= rounds; round++) {
    trials.baseline.push(await baseline.ms(`fanout ${suffixFile} ${SESSIONS}`));
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
  await baseline.stop();
  const baselineMs = median(trials.baseline.slice(1));
  return {
    model: basename(path),
    sessions: SESSIONS,
    templateTokens: template.length,
    ownTokens: suffixes[0].length,
    baselineMs,
    floorMs: baselineMs, // the earlier name of `baselineMs`, for programs that still read it
    warm: summary(trials.warm.slice(1)), // the first round is a warm-up
    cold: summary(trials.cold),
  };
}

/**
 * Returns the tokens of the template, and the tokens of each session between the template and the reply. Each session
 * has the same number of tokens, because longer prompts are truncated to the length of the shortest prompt.
 */
async function tokensOf(agent) {
  const { Renderer } = await import('llama-headstart/internal');
  const session = await agent.createSession();
  const length = session.report.templateTokens;
  await session.close();
  const renderer = new Renderer(agent.model);
  const prompts = [];
  for (const content of MESSAGES) {
    prompts.push((await renderer.prompt({ systemPrompt, tools }, [{ role: 'user', content }])).tokens);
  }
  const shortest = Math.min(...prompts.map((prompt) => prompt.length));
  return { template: prompts[0].slice(0, length), suffixes: prompts.map((prompt) => prompt.slice(length, shortest)) };
}

/**
 * Runs one session per message, all at the same time.
 * @returns {Promise<{ firstTokenMs: number[], decodedTokens: number }>} firstTokenMs: one per session, in ascending
 *   order; decodedTokens: the tokens decoded until the last session had its first token
 */
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

/** Sorts the trials by the time until the last session had its first token, and returns the middle trial. */
function summary(trials) {
  const last = ({ firstTokenMs }) => firstTokenMs.at(-1);
  const sorted = [...trials].sort((a, b) => last(a) - last(b));
  return sorted[(sorted.length - 1) >> 1];
}

function report({ model, sessions, templateTokens, ownTokens, baselineMs, warm, cold }) {
  const line = (name, { firstTokenMs, decodedTokens }) =>
    `${name}: first tokens after ${firstTokenMs[0].toFixed(0)} to ${firstTokenMs.at(-1).toFixed(0)} ms, ${decodedTokens} tokens decoded`;
  return [
    `${model}: ${sessions} sessions at once, a template of ${templateTokens} tokens, ${ownTokens} more tokens per session`,
    `llama.cpp alone, the tokens after the template in one batch: ${baselineMs.toFixed(0)} ms`,
    `${line('warm', warm)}: ${(warm.firstTokenMs.at(-1) / baselineMs).toFixed(2)} times the baseline`,
    line('cold', cold),
    '',
  ].join('\n');
}

await runBench({ title: 'fan-out', options: { rounds: '5' }, measure, report });
