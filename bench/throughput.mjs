// `npm run bench:throughput [-- --json] [--model FILE] [--rounds N] [--steps N] [--tokens N] [--layout unified|split]`:
// compares continuous batching with a native loop over llama.cpp that has the same libraries, threads, prompt, KV
// layout and greedy sampling. Measures tokens per second in 1 to 32 sequences that hold the same prompt. Results are
// medians of alternating trials in one run.
//
// For this package, the benchmark runs one asynchronous loop per sequence. Each loop asks the engine for the next token
// and turns the token into text. The baseline is one loop over all sequences. `sessions` has the rates of an agent's
// sessions. The benchmark reads each session as a stream of parts.
//
// `jsMs` is the time in which the JavaScript thread does not wait for events (`performance.eventLoopUtilization`), per
// sequence and step. `jsMs` includes the time in which the thread is ready to run but llama.cpp's threads use all
// cores. `jsCpuMs` is the thread's processor time per sequence and step. `bare` has `jsMs` and `jsCpuMs` of a loop that
// only calls `decode` of the native context for one sequence.

import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { generate, generateBare, leaseAll, placeSequences } from './lib/generate.mjs';
import { measureShare } from './lib/js-share.mjs';
import { runBench } from './lib/run-bench.mjs';
import { TimedProgram } from './lib/timed-program.mjs';
import { interleave, median } from './lib/trials.mjs';

const WIDTHS = [1, 2, 4, 8, 16, 32];
const MAX_WIDTH = Math.max(...WIDTHS);
const SESSIONS = [1, 8];

async function measure({ model: path, baselineProgram, directory }, options, onProgress) {
  const [rounds, steps, count] = [options.rounds, options.steps, options.tokens].map(Number);
  const { layout } = options;
  const { AgentServer, subscribeDiagnostics } = await import('llama-headstart');
  const { Engine } = await import('llama-headstart/internal');
  const { Model } = await import('llama-headstart/native');
  const threads = availableParallelism();
  const unified = layout === 'unified';
  const sequenceCells = Math.ceil((count + steps + 1) / 256) * 256;
  const kvCells = unified ? sequenceCells + MAX_WIDTH * (steps + 1) : MAX_WIDTH * sequenceCells;
  const model = await Model.load({ path });
  const context = await model.createContext({
    kvCells,
    batchSize: 512,
    maxSequences: MAX_WIDTH,
    nThreads: threads,
    kvLayout: layout,
  });
  const engine = new Engine(context);
  const prefix = (await model.tokenize(systemPrompt.repeat(Math.ceil(count / 400)))).slice(0, count);
  const sequences = await leaseAll(engine);
  await engine.prefill(sequences[0], prefix);
  const state = await sequences[0].capture();
  const tokensFile = join(directory, 'tokens');
  await writeFile(tokensFile, new Uint8Array(prefix.buffer));
  const settings = { model: path, threads, kvCells, sequences: MAX_WIDTH, tokensFile, layout };
  const baseline = await TimedProgram.start(baselineProgram, settings);

  const agent = await AgentServer.initialize({
    model: { source: path, cacheDir: null, nThreads: threads, nSeqMax: Math.max(...SESSIONS), kvLayout: layout },
    systemPrompt,
    sampling: { temperature: 0 },
  });

  const shares = {}; // by the measure's name: the times from measureShare(), divided by the number of tokens
  const recordShare = (name, { active, cpu }, tokens) => {
    shares[name] ??= { active: [], cpu: [] };
    shares[name].active.push(active / tokens);
    shares[name].cpu.push(cpu / tokens);
  };
  const shareOf = (name) => {
    const { active, cpu } = shares[name]; // the first round is a warm-up
    return { jsMs: median(active.slice(1)), jsCpuMs: median(cpu.slice(1)) };
  };
  const measures = WIDTHS.flatMap((width) => [
    [
      `ours${width}`,
      async () => {
        await placeSequences(sequences, state, width, unified);
        const end = measureShare();
        const begin = performance.now();
        await Promise.all(
          sequences.slice(0, width).map((sequence) => generate(model, engine, prefix, sequence, steps)),
        );
        const ms = performance.now() - begin;
        recordShare(`ours${width}`, end(), width * steps);
        return ms;
      },
    ],
    [`llama${width}`, () => baseline.ms(`generate ${width} ${steps}`)],
  ]);
  measures.push([
    'bare',
    async () => {
      await placeSequences(sequences, state, 1, unified);
      const end = measureShare();
      const begin = performance.now();
      await generateBare(context, prefix, steps);
      const ms = performance.now() - begin;
      recordShare('bare', end(), steps);
      return ms;
    },
  ]);
  for (const width of SESSIONS) {
    measures.push([
      `sessions${width}`,
      () =>
        streamSessions(agent, width, steps, {
          subscribe: subscribeDiagnostics,
          onShare: (...args) => recordShare(`sessions${width}`, ...args),
        }),
    ]);
  }
  const medians = await interleave(rounds, Object.fromEntries(measures), onProgress);
  await baseline.stop();
  await agent.close();
  await engine.close();
  await model.close();

  const rows = WIDTHS.map((width) => {
    const rate = (ms) => (width * steps * 1000) / ms;
    const [ours, llama] = [rate(medians[`ours${width}`]), rate(medians[`llama${width}`])];
    return { sequences: width, ours, llama, ratio: ours / llama, ...shareOf(`ours${width}`) };
  });
  const sessions = SESSIONS.map((width) => {
    const ms = medians[`sessions${width}`];
    return { sessions: width, tokensPerSecond: (width * steps * 1000) / ms, ...shareOf(`sessions${width}`) };
  });
  return {
    model: basename(path),
    layout,
    rows,
    sessions,
    /** The time of the JavaScript thread in a loop that only decodes. */
    bare: shareOf('bare'),
    /** The largest `jsMs` of the rows. */
    jsMsPerSequenceStep: Math.max(...rows.map(({ jsMs }) => jsMs)),
  };
}

/**
 * Streams `count` sessions. Returns the milliseconds in which each session generates `steps` tokens. The measurement
 * starts when every session has its first token. By then, some sessions have generated more tokens, which the
 * measurement misses. The result is scaled to the full number of tokens.
 */
async function streamSessions(agent, count, steps, { subscribe, onShare }) {
  const streams = [];
  for (let index = 0; index < count; index++) {
    const session = await agent.createSession();
    const options = { maxTokens: steps + 1, sampling: { temperature: 0, ignoreEos: true } };
    const stream = session.stream(`Tell me a long story, number ${index}.`, options);
    streams.push({ session, parts: stream[Symbol.asyncIterator]() });
  }
  let tokens = count * steps;
  const unsubscribe = subscribe('decode', (batch) => {
    tokens -= batch.tokens - batch.promptTokens;
  });
  await Promise.all(streams.map(({ parts }) => parts.next())); // wait until every prompt is prefilled
  unsubscribe();
  const end = measureShare();
  const begin = performance.now();
  await Promise.all(streams.map(({ parts }) => readAll(parts)));
  const ms = performance.now() - begin;
  onShare(end(), tokens);
  await Promise.all(streams.map(({ session }) => session.close()));
  return (ms * count * steps) / tokens;
}

async function readAll(parts) {
  while (!(await parts.next()).done);
}

function report({ model, layout, rows, sessions, bare, jsMsPerSequenceStep }) {
  const share = ({ jsMs, jsCpuMs }) =>
    `JavaScript ${jsMs.toFixed(3)} ms per sequence and step (processor time ${jsCpuMs.toFixed(3)} ms)`;
  return [
    `${model}, ${layout}`,
    ...rows.map(
      (row) =>
        `${String(row.sequences).padStart(3)} sequences ${row.ours.toFixed(1).padStart(8)} tokens/s, llama.cpp alone ${row.llama.toFixed(1).padStart(8)}: ${row.ratio.toFixed(3)}   ${share(row)}`,
    ),
    ...sessions.map(
      (row) =>
        `${String(row.sessions).padStart(3)} sessions  ${row.tokensPerSecond.toFixed(1).padStart(8)} tokens/s   ${share(row)}`,
    ),
    `  decode alone in 1 sequence: ${share(bare)}`,
    `JavaScript: at most ${jsMsPerSequenceStep.toFixed(3)} ms per sequence and step`,
    '',
  ].join('\n');
}

await runBench({
  title: 'throughput',
  options: { rounds: '15', steps: '32', tokens: '256', layout: 'unified' },
  measure,
  report,
});
