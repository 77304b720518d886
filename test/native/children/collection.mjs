// collection.mjs SCENARIO MODEL [FILE] (with --expose-gc): checks that objects which were never closed free their
// memory when they are garbage-collected.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { Model } from 'llama-headstart/native';

const [scenario, path, file] = process.argv.slice(2);

const batch = (length) => ({
  tokens: new Int32Array(length).fill(5),
  positions: Int32Array.from({ length }, (_, index) => index),
  sequences: new Int32Array(length),
  outputs: new Uint8Array(length).fill(1, length - 1),
});

/** Collects garbage until `done` returns true. Finalizers need a turn of the event loop after each collection. */
async function collectUntil(done, expectation) {
  for (let turn = 0; turn < 2000; turn++) {
    gc();
    await new Promise(setImmediate);
    if (done()) return;
  }
  assert.fail(`${expectation}: not true after 2000 collections`);
}

/** Calls `make` `times` times and waits until all results have been garbage-collected. */
async function dropped(times, make) {
  let left = times;
  const registry = new FinalizationRegistry(() => left--);
  for (let round = 0; round < times; round++) {
    await (async () => registry.register(await make(round), round))();
  }
  await collectUntil(() => left === 0, 'objects are collected');
}

/**
 * Checks that dropped objects free native memory, which Node.js does not count. First measures the memory of `times`
 * objects. Then drops these objects, and creates and drops twice as many. Afterwards, the memory of the process must
 * have grown by less than 2.5 times the measured memory.
 */
async function requireFreed(times, make) {
  await dropped(1, make);
  const before = process.memoryUsage.rss();
  let held = [];
  for (let round = 0; round < times; round++) held.push(await make(round));
  const size = process.memoryUsage.rss() - before;
  assert(size > 16 << 20, `the objects use enough memory to be measured: ${size} bytes`);
  held = undefined;
  for (let phase = 0; phase < 2; phase++) await dropped(times, make);
  await collectUntil(
    () => process.memoryUsage.rss() < before + 2.5 * size,
    `memory is freed (${size} bytes for ${times} objects)`,
  );
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
    await dropped(20, () => model.createContext({ kvCells: 256, nThreads: 2 }));
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
    await collectUntil(() => process.memoryUsage().external < external + 10 * size, 'memory is freed');
    await model.close();
  },
  async samplers() {
    const model = await Model.load({ path });
    const rules = Array.from({ length: 4000 }, (_, index) => `r${index} ::= "word number ${index}" [a-z]`).join('\n');
    const words = Array.from({ length: 4000 }, (_, index) => `r${index}`).join(' ');
    await requireFreed(20, () => model.createSampler({ grammar: `root ::= ${words}\n${rules}` }));
    await model.close();
  },
  async adapters() {
    const model = await Model.load({ path });
    await requireFreed(20, () => model.loadLora(file));
    await model.close();
  },
  async 'reply parsers'() {
    const model = await Model.load({ path });
    const tools = Array.from({ length: 60 }, (_, tool) => {
      const properties = Array.from({ length: 8 }, (_, index) => [`argument_${tool}_${index}`, { type: 'string' }]);
      const parameters = { type: 'object', properties: Object.fromEntries(properties) };
      return { type: 'function', function: { name: `tool_${tool}`, description: 'A tool', parameters } };
    });
    const chatTemplate = readFileSync(file, 'utf8');
    await requireFreed(40, async () => {
      const { parser } = await model.render({ messages: [{ role: 'user', content: 'Hi' }], tools, chatTemplate });
      await model.parseReply({ rendered: { parser }, text: 'Hello' });
      return parser;
    });
    await model.close();
  },
  async 'a model with an open context'() {
    const context = await (async () => (await Model.load({ path })).createContext({ kvCells: 256 }))();
    for (let turn = 0; turn < 20; turn++) {
      gc();
      await new Promise(setImmediate);
    }
    assert.equal((await context.decode(batch(10))).length, 1);
    await context.close();
  },
  async 'a decode in progress'() {
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
