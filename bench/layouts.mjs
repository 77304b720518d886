// `npm run bench:layouts [-- --json] [--model FILE] [--rounds N] [--steps N] [--tokens N]`: compares a unified KV cache
// with a split KV cache. Measures tokens per second in 1 to 16 sequences that hold `--tokens` tokens each (default
// 1024). The unified cache is measured twice: with sequences that share the cells of these tokens, and with sequences
// that have their own copies. Results are medians of alternating trials in one run.

import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { generate, leaseAll, placeSequences } from './lib/generate.mjs';
import { runBench } from './lib/run-bench.mjs';
import { interleave } from './lib/trials.mjs';

const WIDTHS = [1, 2, 4, 8, 16];
const MAX_WIDTH = Math.max(...WIDTHS);

async function measure({ model: path }, options, onProgress) {
  const [rounds, steps, count] = [options.rounds, options.steps, options.tokens].map(Number);
  const { Engine } = await import('llama-headstart/internal');
  const { Model } = await import('llama-headstart/native');
  const model = await Model.load({ path });
  const prefix = (await model.tokenize(systemPrompt.repeat(Math.ceil(count / 400)))).slice(0, count);
  const kvCells = MAX_WIDTH * Math.ceil((count + steps + 1) / 256) * 256;
  const prepareLayout = async (kvLayout) => {
    const threads = availableParallelism();
    const context = await model.createContext({
      kvCells,
      batchSize: 512,
      maxSequences: MAX_WIDTH,
      nThreads: threads,
      kvLayout,
    });
    const engine = new Engine(context);
    const sequences = await leaseAll(engine);
    await engine.prefill(sequences[0], prefix);
    return { engine, sequences, state: await sequences[0].capture() };
  };
  const [unified, split] = [await prepareLayout('unified'), await prepareLayout('split')];
  const trial =
    ({ engine, sequences, state }, width, shared) =>
    async () => {
      await placeSequences(sequences, state, width, shared);
      const begin = performance.now();
      await Promise.all(sequences.slice(0, width).map((sequence) => generate(model, engine, prefix, sequence, steps)));
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
      `unified, copied ${unifiedOwn.toFixed(1).padStart(7)}`,
      `split ${split.toFixed(1).padStart(7)}: ${(split / unifiedShared).toFixed(2)}, ${(split / unifiedOwn).toFixed(2)}`,
    ].join('   '),
  );
  return [
    `${model}, ${tokens} tokens per sequence. Rates in tokens/s. Last columns: split / unified shared, split / unified copied`,
    ...lines,
    '',
  ].join('\n');
}

await runBench({ title: 'layouts', options: { rounds: '5', steps: '24', tokens: '1024' }, measure, report });
