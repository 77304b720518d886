// `npm run bench:layouts [-- --json] [--model FILE] [--rounds N] [--steps N] [--tokens N]`: a unified KV cache beside a split one.
// Tokens a second of 1 to 16 sequences that hold `--tokens` tokens each (1024), shared or cells of their own for each; medians of
// trials taken in turn in one run.

import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { generate, placeSequences } from './lib/generate.mjs';
import { runBench } from './lib/run-bench.mjs';
import { interleave } from './lib/trials.mjs';

const WIDTHS = [1, 2, 4, 8, 16];
const MOST = Math.max(...WIDTHS);

async function measure({ model: path }, options, onProgress) {
  const [rounds, steps, count] = [options.rounds, options.steps, options.tokens].map(Number);
  const { Engine } = await import('../dist/index.js');
  const { Model } = await import('../dist/native/index.js');
  const model = await Model.load({ path });
  const prefix = (await model.tokenize(systemPrompt.repeat(Math.ceil(count / 400)))).slice(0, count);
  const kvCells = MOST * Math.ceil((count + steps + 1) / 256) * 256;
  const stand = async (kvLayout) => {
    const threads = availableParallelism();
    const context = await model.createContext({
      kvCells,
      batchSize: 512,
      maxSequences: MOST,
      nThreads: threads,
      kvLayout,
    });
    const engine = new Engine(context);
    await engine.prefill(0, prefix, 0);
    return { engine, state: await engine.context.captureSequence(0, prefix) };
  };
  const [unified, split] = [await stand('unified'), await stand('split')];
  const trial =
    ({ engine, state }, width, shared) =>
    async () => {
      await placeSequences(engine, state, width, shared);
      const begin = performance.now();
      await Promise.all(Array.from({ length: width }, (_, id) => generate(model, engine, prefix, id, steps)));
      return performance.now() - begin;
    };
  const measures = WIDTHS.flatMap((width) => [
    [`shared${width}`, trial(unified, width, true)],
    [`split${width}`, trial(split, width, false)],
    [`own${width}`, trial(unified, width, false)],
  ]);
  const medians = await interleave(rounds, Object.fromEntries(measures), onProgress);
  for (const { engine, state } of [unified, split]) {
    state.close();
    await engine.close();
  }
  await model.close();
  const rows = WIDTHS.map((width) => {
    const rate = (name) => (width * steps * 1000) / medians[`${name}${width}`];
    return { sequences: width, unifiedShared: rate('shared'), unifiedOwn: rate('own'), split: rate('split') };
  });
  return { model: basename(path), tokens: prefix.length, rows };
}

function report({ model, tokens, rows }) {
  const lines = rows.map(({ sequences, unifiedShared, unifiedOwn, split }) =>
    [
      `${String(sequences).padStart(3)} sequences`,
      `unified, shared ${unifiedShared.toFixed(1).padStart(7)}`,
      `unified, each its own ${unifiedOwn.toFixed(1).padStart(7)}`,
      `split ${split.toFixed(1).padStart(7)}: ${(split / unifiedShared).toFixed(2)}, ${(split / unifiedOwn).toFixed(2)}`,
    ].join('   '),
  );
  return [`${model}, ${tokens} tokens in each; tokens/s, and split as a ratio to either`, ...lines, ''].join('\n');
}

await runBench({ title: 'layouts', options: { rounds: '5', steps: '24', tokens: '1024' }, measure, report });
