// `npm run bench:prebuilt [-- --json] [--model FILE] [--rounds N] [--tokens N]`: compares the prebuilt addon with the
// addon compiled for this machine. Prints the rates of prefill and decode in tokens per second. Each addon runs in a
// separate process. The trials of the two processes alternate in one run.

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

/** A child process that runs one addon. */
class AddonProcess {
  #child;
  /** Rejects when the process ends, so that `#nextMessage` does not wait for a dead process. */
  #ended;

  /** @param {string} addon @param {string} model @param {number} tokens */
  static async start(addon, model, tokens) {
    const addonProcess = new AddonProcess();
    addonProcess.#child = fork(import.meta.filename, ['--child', model, String(tokens)], {
      env: { ...process.env, LLAMA_HEADSTART_ADDON: addon },
    });
    addonProcess.#ended = once(addonProcess.#child, 'exit').then(([code]) => {
      throw new Error(`The process of ${addon} ended with exit code ${code}. See its message above.`);
    });
    addonProcess.#ended.catch(() => {}); // the process also ends after stop()
    addonProcess.systemInfo = await addonProcess.#nextMessage();
    return addonProcess;
  }

  /** @param {'prefill' | 'decode'} measure @returns {Promise<number>} milliseconds */
  ms(measure) {
    this.#child.send(measure);
    return this.#nextMessage();
  }

  stop() {
    this.#child.disconnect();
    return once(this.#child, 'exit');
  }

  async #nextMessage() {
    const [message] = await Promise.race([once(this.#child, 'message'), this.#ended]);
    return message;
  }
}

async function main() {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean' },
      model: { type: 'string' },
      // `interleave` reverses the order of the trials in every second round. With an even number of rounds, both orders
      // run equally often. A decode step takes about 7 ms. With fewer than 24 rounds, the noise of a virtual machine
      // would be larger than the measured difference.
      rounds: { type: 'string', default: '24' },
      tokens: { type: 'string', default: '512' },
    },
  });
  const prepared = await setup({ model: values.model === undefined, quiet: true });
  const model = values.model ?? prepared.model?.path;
  if (model === undefined) throw new Error('SmolLM2 could not be downloaded. Name a model with --model FILE.');
  const tokens = Number(values.tokens);
  const prebuilt = await AddonProcess.start(prebuiltAddon(), model, tokens);
  const native = await AddonProcess.start(join(root, 'build', 'Release', 'llama_headstart.node'), model, tokens);
  const medians = await step('prebuilt and native addon', {}, (progress) =>
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

  const compare = (count, prebuiltMs, nativeMs) => ({
    prebuilt: (count * 1000) / prebuiltMs,
    native: (count * 1000) / nativeMs,
    ratio: nativeMs / prebuiltMs,
  });
  const result = {
    model: basename(model),
    rounds: Number(values.rounds),
    threads: availableParallelism(),
    cpuModule: prebuilt.systemInfo.cpuModule,
    prefill: compare(tokens, medians.prebuiltPrefill, medians.nativePrefill),
    decode: compare(DECODE_STEPS, medians.prebuiltDecode, medians.nativeDecode),
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

/**
 * Runs in the child process. Loads the model. Then receives names of measures, and answers each name with the
 * milliseconds that the measured work took.
 */
async function runChild(modelPath, tokenCount) {
  const { Model, systemInfo } = await import('llama-headstart/native');
  const threads = availableParallelism();
  const model = await Model.load({ path: modelPath });
  const context = await model.createContext({
    kvCells: 4096,
    batchSize: BATCH_SIZE,
    maxSequences: 1,
    nThreads: threads,
  });
  const tokens = (await model.tokenize(systemPrompt.repeat(8))).slice(0, tokenCount);

  const decode = (batchTokens, start) => {
    const outputs = new Uint8Array(batchTokens.length);
    outputs[batchTokens.length - 1] = 1;
    const positions = batchTokens.map((_, index) => start + index);
    return context.decode({ tokens: batchTokens, positions, sequences: new Int32Array(batchTokens.length), outputs });
  };
  const prefill = async () => {
    await context.clear();
    let picked = 0;
    for (let start = 0; start < tokens.length; start += BATCH_SIZE)
      [picked] = await decode(tokens.slice(start, start + BATCH_SIZE), start);
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
  return flag === '--child' ? runChild(model, Number(tokens)) : main();
});
