// `npm run bench:throughput [-- --json] [--model FILE] [--rounds N] [--steps N] [--tokens N] [--layout unified|split]`:
// continuous batching beside a native loop over llama.cpp: the same libraries, threads, prompt, layout and greedy choice.
// Tokens a second of 1 to 32 sequences that share a template, medians of trials taken in turn in one run.
//
// Ours is one asynchronous loop a sequence, each of which asks the engine for its next token and turns it into text; the floor is
// one loop that knows all of them. `sessions` has whole sessions beside them, each read as a stream of parts.
//
// JavaScript's share is the time in which its thread does not wait for events (`performance.eventLoopUtilization`), a sequence
// and step: what it executes, and what it waits for a core that llama.cpp's threads have. What it executes is told beside it, and
// what remains of both where JavaScript does nothing but call `decode` of the native context in one sequence (`bare`).

import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { Floor } from './lib/floor.mjs';
import { generate, generateBare, placeSequences } from './lib/generate.mjs';
import { measureShare } from './lib/js-share.mjs';
import { runBench } from './lib/run-bench.mjs';
import { interleave, median } from './lib/trials.mjs';

const WIDTHS = [1, 2, 4, 8, 16, 32];
const MOST = Math.max(...WIDTHS);
const SESSIONS = [1, 8];

async function measure({ model: path, floorProgram, directory }, options, onProgress) {
  const [rounds, steps, count] = [options.rounds, options.steps, options.tokens].map(Number);
  const { layout } = options;
  const { AgentServer, Engine } = await import('../dist/index.js');
  const { Model } = await import('../dist/native/index.js');
  const threads = availableParallelism();
  const unified = layout === 'unified';
  const each = Math.ceil((count + steps + 1) / 256) * 256;
  const kvCells = unified ? each + MOST * (steps + 1) : MOST * each;
  const model = await Model.load({ path });
  const context = await model.createContext({
    kvCells,
    batchSize: 512,
    maxSequences: MOST,
    nThreads: threads,
    kvLayout: layout,
  });
  const engine = new Engine(context);
  const prefix = (await model.tokenize(systemPrompt.repeat(Math.ceil(count / 400)))).slice(0, count);
  await engine.prefill(0, prefix, 0);
  const state = await engine.context.captureSequence(0, prefix);
  const tokensFile = join(directory, 'tokens');
  await writeFile(tokensFile, new Uint8Array(prefix.buffer));
  const floor = await Floor.start(floorProgram, { model: path, threads, kvCells, sequences: MOST, tokensFile, layout });

  const agent = await AgentServer.initialize({
    model: { source: path, cacheDir: null, nThreads: threads, nSeqMax: Math.max(...SESSIONS), kvLayout: layout },
    systemPrompt,
    sampling: { temperature: 0 },
  });

  const shares = {}; // of JavaScript, by measure; the first round does not count
  const note = (name, { active, cpu }, tokens) => {
    shares[name] ??= { active: [], cpu: [] };
    shares[name].active.push(active / tokens);
    shares[name].cpu.push(cpu / tokens);
  };
  const shareOf = (name) => {
    const { active, cpu } = shares[name];
    return { jsMs: median(active.slice(1)), jsCpuMs: median(cpu.slice(1)) };
  };
  const measures = WIDTHS.flatMap((width) => [
    [
      `ours${width}`,
      async () => {
        await placeSequences(engine, state, width, unified);
        const end = measureShare();
        const begin = performance.now();
        await Promise.all(Array.from({ length: width }, (_, id) => generate(model, engine, prefix, id, steps)));
        const ms = performance.now() - begin;
        note(`ours${width}`, end(), width * steps);
        return ms;
      },
    ],
    [`llama${width}`, () => floor.ms(`generate ${width} ${steps}`)],
  ]);
  measures.push([
    'bare',
    async () => {
      await placeSequences(engine, state, 1, unified);
      const end = measureShare();
      const begin = performance.now();
      await generateBare(context, prefix, steps);
      const ms = performance.now() - begin;
      note('bare', end(), steps);
      return ms;
    },
  ]);
  for (const width of SESSIONS) {
    measures.push([
      `sessions${width}`,
      () => streamSessions(agent, width, steps, (...args) => note(`sessions${width}`, ...args)),
    ]);
  }
  const medians = await interleave(rounds, Object.fromEntries(measures), onProgress);
  await floor.stop();
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
    /** Of a loop that does nothing but decode. */
    bare: shareOf('bare'),
    /** The largest of the rows. */
    jsMsPerSequenceStep: Math.max(...rows.map(({ jsMs }) => jsMs)),
  };
}

/** Streams of so many sessions: milliseconds for `steps` tokens of each, once all have their first. */
async function streamSessions(agent, count, steps, onShare) {
  const streams = [];
  for (let index = 0; index < count; index++) {
    const session = await agent.createSession();
    const options = { maxTokens: steps + 1, sampling: { temperature: 0, ignoreEos: true } };
    streams.push({ session, parts: session.stream(`Tell me a long story, number ${index}.`, options) });
  }
  await Promise.all(streams.map(({ parts }) => parts.next())); // prompts are read
  const end = measureShare();
  const begin = performance.now();
  await Promise.all(streams.map(({ parts }) => readAll(parts)));
  const ms = performance.now() - begin;
  onShare(end(), count * steps);
  await Promise.all(streams.map(({ session }) => session.close()));
  return ms;
}

async function readAll(parts) {
  for await (const part of parts) if (part.type === 'finish') return part;
}

function report({ model, layout, rows, sessions, bare, jsMsPerSequenceStep }) {
  const share = ({ jsMs, jsCpuMs }) =>
    `JavaScript ${jsMs.toFixed(3)} ms a sequence and step (${jsCpuMs.toFixed(3)} on its core)`;
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
    `  bare decodes in 1 sequence: ${share(bare)}`,
    `JavaScript: at most ${jsMsPerSequenceStep.toFixed(3)} ms a sequence and step`,
    '',
  ].join('\n');
}

await runBench({
  title: 'throughput',
  options: { rounds: '15', steps: '32', tokens: '256', layout: 'unified' },
  measure,
  report,
});
