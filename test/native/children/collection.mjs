// collection.mjs SCENARIO MODEL [FILE] (with --expose-gc): what nobody refers to any more gives its memory back, unclosed.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { Model } from 'llama-headstart/native';

const [scenario, path, file] = process.argv.slice(2);

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

/** Of memory that belongs to no thread and shows in no counter: dropped four times over, it is there no more than twice. */
async function givenBack(times, make) {
  await dropped(1, make);
  const before = process.memoryUsage.rss();
  let held = [];
  for (let round = 0; round < times; round++) held.push(await make(round));
  const size = process.memoryUsage.rss() - before;
  assert(size > 16 << 20, `what is held shows: ${size} bytes`);
  held = undefined;
  for (let phase = 0; phase < 4; phase++) await dropped(times, make);
  await collectUntil(
    () => process.memoryUsage.rss() < before + 2.5 * size,
    `memory is given back (${size} bytes held once)`,
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
    await collectUntil(() => process.memoryUsage().external < external + 10 * size, 'memory is given back');
    await model.close();
  },
  async samplers() {
    const model = await Model.load({ path });
    const rules = Array.from({ length: 4000 }, (_, at) => `r${at} ::= "word number ${at}" [a-z]`).join('\n');
    const words = Array.from({ length: 4000 }, (_, at) => `r${at}`).join(' ');
    await givenBack(20, () => model.createSampler({ grammar: `root ::= ${words}\n${rules}` }));
    await model.close();
  },
  async adapters() {
    const model = await Model.load({ path });
    await givenBack(20, () => model.loadLora(file));
    await model.close();
  },
  async 'reply parsers'() {
    const model = await Model.load({ path });
    const tools = Array.from({ length: 60 }, (_, at) => {
      const names = Array.from({ length: 8 }, (_, each) => [`argument_${at}_${each}`, { type: 'string' }]);
      const parameters = { type: 'object', properties: Object.fromEntries(names) };
      return { type: 'function', function: { name: `tool_${at}`, description: 'A tool', parameters } };
    });
    const chatTemplate = readFileSync(file, 'utf8');
    await givenBack(40, async () => {
      const { parser } = await model.render({ messages: [{ role: 'user', content: 'Hi' }], tools, chatTemplate });
      await model.parseReply({ rendered: { parser }, text: 'Hello' });
      return parser;
    });
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
