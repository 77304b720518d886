// `npm run bench:prebuilt [-- --json] [--model FILE] [--rounds N] [--tokens N]`: the prebuilt addon beside the one compiled for this
// machine, prefill and decode in tokens a second. Both run in one go, in turn, each in a process of its own.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { step } from '../bin/lib/progress.mjs';
import { root, runMain } from '../bin/lib/run.mjs';
import { systemPrompt } from '../scripts/demo/template.mjs';
import { prebuiltAddon } from '../scripts/lib/prebuilt-addon.mjs';
import { setup } from '../scripts/setup.mjs';
import { interleave } from './lib/trials.mjs';

const DECODE_STEPS = 64;
const BATCH_SIZE = 512;

/** One addon in its process. */
class Runner {
  #child;
  /** Rejects when the process ends early. */
  #ended;

  /** @param {string} addon @param {string} model @param {number} tokens */
  static async start(addon, model, tokens) {
    const runner = new Runner();
    runner.#child = fork(import.meta.filename, ['--child', model, String(tokens)], {
      env: { ...process.env, LLAMA_HEADSTART_ADDON: addon },
    });
    runner.#ended = once(runner.#child, 'exit').then(([code]) => {
      throw new Error(`a runner ended with ${code}`);
    });
    runner.#ended.catch(() => {}); // when it is stopped, it ends
    runner.facts = await runner.#answer();
    return runner;
  }

  /** @param {'prefill' | 'decode'} measure @returns {Promise<number>} milliseconds */
  ms(measure) {
    this.#child.send(measure);
    return this.#answer();
  }

  stop() {
    this.#child.disconnect();
    return once(this.#child, 'exit');
  }

  async #answer() {
    const [message] = await Promise.race([once(this.#child, 'message'), this.#ended]);
    return message;
  }
}

async function main() {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean' },
      model: { type: 'string' },
      // Even, so that each order is met as often. Fewer, and a step of 7 ms is lost in a virtual machine's noise.
      rounds: { type: 'string', default: '24' },
      tokens: { type: 'string', default: '512' },
    },
  });
  const prepared = await setup({ model: values.model === undefined, quiet: true });
  const model = values.model ?? prepared.model?.path;
  if (model === undefined) throw new Error('No source of SmolLM2 could be reached: name a model with --model FILE');
  const tokens = Number(values.tokens);
  const prebuilt = await Runner.start(prebuiltAddon(), model, tokens);
  const native = await Runner.start(join(root, 'build', 'Release', 'llama_headstart.node'), model, tokens);
  const medians = await step('prebuilt beside native', {}, (progress) =>
    interleave(
      Number(values.rounds),
      {
        prebuiltPrefill: () => prebuilt.ms('prefill'),
        nativePrefill: () => native.ms('prefill'),
        prebuiltDecode: () => prebuilt.ms('decode'),
        nativeDecode: () => native.ms('decode'),
      },
      (fraction, detail) => progress.update({ fraction, detail }),
    ),
  );
  await Promise.all([prebuilt.stop(), native.stop()]);

  const compared = (count, ours, theirs) => ({
    prebuilt: (count * 1000) / ours,
    native: (count * 1000) / theirs,
    ratio: theirs / ours,
  });
  const result = {
    model: basename(model),
    rounds: Number(values.rounds),
    threads: availableParallelism(),
    cpuModule: prebuilt.facts.cpuModule,
    prefill: compared(tokens, medians.prebuiltPrefill, medians.nativePrefill),
    decode: compared(DECODE_STEPS, medians.prebuiltDecode, medians.nativeDecode),
  };
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : report(result));
}

function report({ model, rounds, threads, cpuModule, prefill, decode }) {
  const row = (name, { prebuilt, native, ratio }) =>
    `${name.padEnd(8)} ${prebuilt.toFixed(1).padStart(9)} ${native.toFixed(1).padStart(9)} ${ratio.toFixed(3).padStart(7)}\n`;
  return (
    `${model}, ${threads} threads, medians of ${rounds} rounds; CPU module ${cpuModule}\n` +
    `tokens/s  prebuilt    native   ratio\n${row('prefill', prefill)}${row('decode', decode)}`
  );
}

/** In the child: loads the model, answers each message with the milliseconds it took. */
async function child(modelPath, tokenCount) {
  const { Model, systemInfo } = await import('../dist/native/index.js');
  const threads = availableParallelism();
  const model = await Model.load({ path: modelPath });
  const context = await model.createContext({
    kvCells: 4096,
    batchSize: BATCH_SIZE,
    maxSequences: 1,
    nThreads: threads,
  });
  const tokens = (await model.tokenize(systemPrompt.repeat(8))).slice(0, tokenCount);

  const decode = (piece, at) => {
    const outputs = new Uint8Array(piece.length);
    outputs[piece.length - 1] = 1;
    const positions = piece.map((_, index) => at + index);
    return context.decode({ tokens: piece, positions, sequences: new Int32Array(piece.length), outputs });
  };
  const prefill = async () => {
    await context.clear();
    let picked = 0;
    for (let at = 0; at < tokens.length; at += BATCH_SIZE)
      [picked] = await decode(tokens.slice(at, at + BATCH_SIZE), at);
    return picked;
  };
  const measures = {
    prefill: async () => {
      const begin = performance.now();
      await prefill();
      return performance.now() - begin;
    },
    decode: async () => {
      await context.removeSequence(0, tokens.length);
      let token = 1;
      const begin = performance.now();
      for (let index = 0; index < DECODE_STEPS; index++)
        [token] = await decode(Int32Array.of(token), tokens.length + index);
      return performance.now() - begin;
    },
  };
  process.on('message', async (measure) => process.send(await measures[measure]()));
  await prefill();
  process.send(systemInfo());
}

await runMain(() => {
  const [flag, model, tokens] = process.argv.slice(2);
  return flag === '--child' ? child(model, Number(tokens)) : main();
});
