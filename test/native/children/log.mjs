// log.mjs SCENARIO MODEL: uses the package. The process must exit with code 0 and print nothing. Only in the scenario
// 'throwing logger', the process prints a process warning.
import { Model, setNativeLogger } from 'llama-headstart/native';

const [scenario, path] = process.argv.slice(2);

async function everything() {
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells: 256 });
  const tokens = await model.tokenize('hello there <|im_start|>', { parseSpecial: true });
  await context.decode({
    tokens,
    positions: Int32Array.from(tokens, (_, index) => index),
    sequences: new Int32Array(tokens.length),
    outputs: new Uint8Array(tokens.length).fill(1),
  });
  const state = await context.captureSequence(0, tokens);
  await context.clear();
  await context.restoreSequence(0, state);
  await model.render({
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hi' },
      { role: 'assistant', tool_calls: [{ type: 'function', function: { name: 'f', arguments: '{"a": 1}' } }] },
      { role: 'tool', content: '1' },
    ],
    tools: [{ type: 'function', function: { name: 'f', description: 'F', parameters: { type: 'object' } } }],
  });
  await model.close();
}

async function failures() {
  await Model.load({ path: import.meta.filename }).catch(() => {});
  await Model.load({ path: '/nowhere.gguf' }).catch(() => {});
  const model = await Model.load({ path });
  await model.render({ messages: [{ role: 'user', content: 'x' }], chatTemplate: '{% if %}' }).catch(() => {});
  await model
    .render({ messages: [{ role: 'user', content: 'x' }], chatTemplate: '{{ raise_exception("no") }}' })
    .catch(() => {});
  await model.render({ messages: [{ role: 'user', content: 'x' }], chatTemplate: 'nothing of it' }).catch(() => {});
  await model.createContext({ kvCells: 2 ** 28 }).catch(() => {});
  const context = await model.createContext({ kvCells: 256, keyType: 'q4_0' }).catch(() => undefined);
  await context?.loadFile(0, import.meta.filename).catch(() => {});
  await model.close();
}

const SCENARIOS = {
  everything,
  failures,
  async 'throwing logger'() {
    let lines = 0;
    setNativeLogger(
      () => {
        lines++;
        throw new Error('from the logger');
      },
      { level: 'debug' },
    );
    await everything();
    if (lines < 10) throw new Error(`Expected at least 10 log lines, got ${lines}`);
  },
  async 'logger that is never removed'() {
    setNativeLogger(() => {}, { level: 'debug' });
    await everything();
  },
};

await SCENARIOS[scenario]();
