// collection.mjs SCENARIO MODEL (with --expose-gc): what nobody refers to any more gives its memory back, unclosed.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { Model } from 'llama-headstart/native';

const [scenario, path] = process.argv.slice(2);

const batch = (length) => ({
  tokens: new Int32Array(length).fill(5),
  positions: Int32Array.from({ length }, (_, at) => at),
  sequences: new Int32Array(length),
  outputs: new Uint8Array(length).fill(1, length - 1),
});

/** Collects until `done`, a turn of the event loop at a time: finalizers and threads need those. */
async function collectUntil(done, what) {
  for (let turn = 0; turn < 2000; turn++) {
    gc();
    await new Promise(setImmediate);
    if (done()) return;
  }
  assert.fail(`${what}: still not after 2000 collections`);
}

/** Calls `make` `times` times, and waits until a FinalizationRegistry has seen all results go. */
async function dropped(times, make) {
  let left = times;
  const registry = new FinalizationRegistry(() => left--);
  for (let round = 0; round < times; round++) {
    await (async () => registry.register(await make(round), round))();
  }
  await collectUntil(() => left === 0, 'objects are collected');
}

const threads = () => readdirSync('/proc/self/task').length;

const SCENARIOS = {
  async models() {
    const before = threads();
    await dropped(20, () => Model.load({ path }));
    await collectUntil(() => threads() <= before + 1, `threads end (${before})`);
  },
  async contexts() {
    const model = await Model.load({ path });
    const before = threads();
    await dropped(20, () => model.createContext({ kvCells: 256, threads: 2 }));
    await collectUntil(() => threads() <= before + 1, `threads end (${before})`);
    await model.close();
  },
  async states() {
    const model = await Model.load({ path });
    const context = await model.createContext({ kvCells: 2048, batchSize: 2048 });
    await context.decode(batch(2000));
    const tokens = new Int32Array(2000).fill(5);
    gc();
    const { external } = process.memoryUsage();
    const size = (await context.captureSequence(0, tokens)).byteLength;
    await dropped(200, () => context.captureSequence(0, tokens));
    await collectUntil(() => process.memoryUsage().external < external + 10 * size, 'memory is given back');
    await model.close();
  },
  async 'a model under its context'() {
    const context = await (async () => (await Model.load({ path })).createContext({ kvCells: 256 }))();
    for (let turn = 0; turn < 20; turn++) {
      gc();
      await new Promise(setImmediate);
    }
    assert.equal((await context.decode(batch(10))).length, 1);
    await context.close();
  },
  async 'work under way'() {
    const model = await Model.load({ path });
    for (let round = 0; round < 10; round++) {
      const picks = (async () => {
        const context = await model.createContext({ kvCells: 2048, batchSize: 2048 });
        return context.decode(batch(1000));
      })();
      let done = false;
      void picks.finally(() => {
        done = true;
      });
      while (!done) {
        gc();
        await new Promise(setImmediate);
      }
      assert.equal((await picks).length, 1);
    }
    await model.close();
  },
  async 'closed and dropped'() {
    await dropped(20, async () => {
      const model = await Model.load({ path });
      const context = await model.createContext({ kvCells: 256 });
      await context.decode(batch(10));
      (await context.captureSequence(0, new Int32Array(10).fill(5))).close();
      await model.close();
      return context;
    });
  },
};

await SCENARIOS[scenario]();
