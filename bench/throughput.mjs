// `npm run bench:throughput [-- --json] [--model FILE] [--rounds N] [--steps N] [--tokens N] [--layout unified|split]`:
// compares continuous batching with a native loop over llama.cpp that has the same libraries, threads, prompt, KV
// layout and greedy sampling. Measures tokens per second in 1 to 32 sequences that hold the same prompt. Results are
// medians of alternating trials in one run.
//
// For this package, the benchmark runs one asynchronous loop per sequence. Each loop asks the engine for the next token
// and turns the token into text. The baseline is one loop over all sequences. `sessions` has the rates of an agent's
// sessions. The benchmark reads each session as a stream of parts.
//
// `javaScriptMs` is the time in which JavaScript, or native code that it called, ran per sequence and step. The source is
// V8's profiler, in rounds of their own, because the profiler slows a program down. `jsMs` is the time in which the
// JavaScript thread does not wait for events (`performance.eventLoopUtilization`). `jsMs` includes the time in which the
// thread is ready to run but llama.cpp's threads use all cores. `jsCpuMs` is the thread's processor time, including the
// time to wake up and to go to sleep. `bare` has these times of a loop that only calls `decode` of the native context
// for one sequence.

import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { generate, generateBare, leaseAll, placeSequences } from './lib/generate.mjs';
import { JavaScriptTimes } from './lib/javascript-times.mjs';
import { runBench } from './lib/run-bench.mjs';
import { TimedProgram } from './lib/timed-program.mjs';
import { interleave } from './lib/trials.mjs';

const WIDTHS = [1, 2, 4, 8, 16, 32];
const MAX_WIDTH = Math.max(...WIDTHS);
const SESSIONS = [1, 8];
/** The number of rounds that run under V8's profiler, after the timed rounds. */
const PROFILED_ROUNDS = 3;

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

  const times = new JavaScriptTimes();
  const measures = WIDTHS.flatMap((width) => [
    [
      `ours${width}`,
      async () => {
        await placeSequences(sequences, state, width, unified);
        return await times.measure(`ours${width}`, width * steps, () =>
          Promise.all(sequences.slice(0, width).map((sequence) => generate(model, engine, prefix, sequence, steps))),
        );
      },
    ],
    [`llama${width}`, () => baseline.ms(`generate ${width} ${steps}`)],
  ]);
  measures.push([
    'bare',
    async () => {
      await placeSequences(sequences, state, 1, unified);
      return await times.measure('bare', steps, () => generateBare(context, prefix, steps));
    },
  ]);
  for (const width of SESSIONS) {
    measures.push([
      `sessions${width}`,
      () =>
        streamSessions(agent, width, steps, {
          subscribe: subscribeDiagnostics,
          measure: (tokens, work) => times.measure(`sessions${width}`, tokens, work),
        }),
    ]);
  }
  const medians = await interleave(rounds, Object.fromEntries(measures), onProgress);
  times.profiled = true;
  await interleave(PROFILED_ROUNDS, Object.fromEntries(measures.filter(([name]) => !name.startsWith('llama'))));
  await baseline.stop();
  await agent.close();
  await engine.close();
  await model.close();

  const rows = WIDTHS.map((width) => {
    const rate = (ms) => (width * steps * 1000) / ms;
    const [ours, llama] = [rate(medians[`ours${width}`]), rate(medians[`llama${width}`])];
    return { sequences: width, ours, llama, ratio: ours / llama, ...times.of(`ours${width}`) };
  });
  const sessions = SESSIONS.map((width) => {
    const ms = medians[`sessions${width}`];
    return { sessions: width, tokensPerSecond: (width * steps * 1000) / ms, ...times.of(`sessions${width}`) };
  });
  return {
    model: basename(path),
    layout,
    rows,
    sessions,
    /** The time of the JavaScript thread in a loop that only decodes. */
    bare: times.of('bare'),
    /** The largest `javaScriptMs` of the rows. */
    javaScriptMsPerSequenceStep: Math.max(...rows.map(({ javaScriptMs }) => javaScriptMs)),
    /** The largest `jsMs` of the rows. */
    jsMsPerSequenceStep: Math.max(...rows.map(({ jsMs }) => jsMs)),
  };
}

/**
 * Streams `count` sessions. Returns the milliseconds in which each session generates `steps` tokens. The measurement
 * starts when every session has its first token. By then, some sessions have generated more tokens, which the
 * measurement misses. The result is scaled to the full number of tokens.
 */
async function streamSessions(agent, count, steps, { subscribe, measure }) {
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
  const ms = await measure(tokens, () => Promise.all(streams.map(({ parts }) => readAll(parts))));
  await Promise.all(streams.map(({ session }) => session.close()));
  return (ms * count * steps) / tokens;
}

async function readAll(parts) {
  while (!(await parts.next()).done);
}

function report({ model, layout, rows, sessions, bare, javaScriptMsPerSequenceStep }) {
  const share = ({ javaScriptMs, jsMs, jsCpuMs }) =>
    `JavaScript ${javaScriptMs.toFixed(3)} ms per sequence and step (not waiting ${jsMs.toFixed(3)} ms, processor time ${jsCpuMs.toFixed(3)} ms)`;
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
    `JavaScript: at most ${javaScriptMsPerSequenceStep.toFixed(3)} ms per sequence and step`,
    '',
  ].join('\n');
}

await runBench({
  title: 'throughput',
  options: { rounds: '15', steps: '32', tokens: '256', layout: 'unified' },
  measure,
  report,
});
