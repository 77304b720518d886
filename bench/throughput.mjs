// `npm run bench:throughput [-- --json] [--model FILE] [--rounds N] [--steps N] [--tokens N] [--layout unified|split]`:
// continuous batching beside a native loop over llama.cpp: the same libraries, threads, prompt, layout and greedy choice.
// Tokens a second of 1 to 32 sequences that share a template, medians of trials taken in turn in one run.
//
// Ours is one asynchronous loop a sequence, each of which asks the engine for its next token and turns it into text, as a
// session does; the floor is one loop that knows all of them.
//
// JavaScript's share is the time in which its thread does not wait for events (`performance.eventLoopUtilization`): what it
// executes, and what it waits for a core that llama.cpp's threads have.

import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { Floor } from './lib/floor.mjs';
import { generate, placeSequences } from './lib/generate.mjs';
import { runBench } from './lib/run-bench.mjs';
import { interleave } from './lib/trials.mjs';

const WIDTHS = [1, 2, 4, 8, 16, 32];
const MOST = Math.max(...WIDTHS);

async function measure({ model: path, floorProgram, directory }, options, onProgress) {
  const [rounds, steps, count] = [options.rounds, options.steps, options.tokens].map(Number);
  const { layout } = options;
  const { Engine } = await import('../dist/index.js');
  const { Model } = await import('../dist/native/index.js');
  const threads = availableParallelism();
  const unified = layout === 'unified';
  const each = Math.ceil((count + steps + 1) / 256) * 256;
  const kvCells = unified ? each + MOST * (steps + 1) : MOST * each;
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells, batchSize: 512, maxSequences: MOST, threads, unified });
  const engine = new Engine(context);
  const prefix = (await model.tokenize(systemPrompt.repeat(Math.ceil(count / 400)))).slice(0, count);
  await engine.prefill(0, prefix, 0);
  const state = await engine.context.captureSequence(0, prefix);
  const tokensFile = join(directory, 'tokens');
  await writeFile(tokensFile, new Uint8Array(prefix.buffer));
  const floor = await Floor.start(floorProgram, { model: path, threads, kvCells, sequences: MOST, tokensFile, layout });

  const js = Object.fromEntries(WIDTHS.map((width) => [width, []]));
  const measures = WIDTHS.flatMap((width) => [
    [
      `ours${width}`,
      async () => {
        await placeSequences(engine, state, width, unified);
        const idle = performance.eventLoopUtilization();
        const begin = performance.now();
        await Promise.all(Array.from({ length: width }, (_, id) => generate(model, engine, prefix, id, steps)));
        const ms = performance.now() - begin;
        js[width].push(performance.eventLoopUtilization(idle).active / (width * steps));
        return ms;
      },
    ],
    [`llama${width}`, () => floor.ms(`generate ${width} ${steps}`)],
  ]);
  const medians = await interleave(rounds, Object.fromEntries(measures), onProgress);
  await floor.stop();
  await engine.close();
  await model.close();

  const rows = WIDTHS.map((width) => {
    const rate = (ms) => (width * steps * 1000) / ms;
    const [ours, llama] = [rate(medians[`ours${width}`]), rate(medians[`llama${width}`])];
    const sorted = js[width].slice(1).sort((a, b) => a - b); // the first round does not count
    return { sequences: width, ours, llama, ratio: ours / llama, jsMs: sorted[sorted.length >> 1] };
  });
  return {
    model: basename(path),
    layout,
    rows,
    /** Of the widest row: what one more sequence costs. Each row has its own as well. */
    jsMsPerSequenceStep: rows.at(-1).jsMs,
  };
}

function report({ model, layout, rows, jsMsPerSequenceStep }) {
  const lines = rows.map(
    ({ sequences, ours, llama, ratio, jsMs }) =>
      `${String(sequences).padStart(3)} sequences ${ours.toFixed(1).padStart(8)} tokens/s, llama.cpp alone ${llama.toFixed(1).padStart(8)}: ${ratio.toFixed(3)}   JavaScript ${jsMs.toFixed(3)} ms a sequence and step`,
  );
  return [
    `${model}, ${layout}`,
    ...lines,
    `JavaScript: ${jsMsPerSequenceStep.toFixed(3)} ms a sequence and step`,
    '',
  ].join('\n');
}

await runBench({
  title: 'throughput',
  options: { rounds: '15', steps: '32', tokens: '256', layout: 'unified' },
  measure,
  report,
});
