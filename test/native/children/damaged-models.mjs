// damaged-models.mjs PATH...: loads each file as a model and uses it. Prints a line of JSON per file, so that the first
// missing line shows which file caused a crash.
import { HeadstartError, Model } from 'llama-headstart/native';

async function use(path) {
  const model = await Model.load({ path });
  try {
    model.metadata();
    model.controlTokens();
    await model.tokenize('hello <|im_start|>', { parseSpecial: true });
    await model.render({ messages: [{ role: 'user', content: 'hello' }] });
    const context = await model.createContext({ kvCells: 256 });
    await context.decode({
      tokens: Int32Array.of(1),
      positions: Int32Array.of(0),
      sequences: Int32Array.of(0),
      outputs: Uint8Array.of(1),
    });
  } finally {
    await model.close();
  }
}

for (const path of process.argv.slice(2)) {
  let outcome = 'works';
  try {
    await use(path);
  } catch (error) {
    outcome = HeadstartError.isInstance(error) ? error.code : `no code: ${error?.stack ?? error}`;
  }
  console.log(JSON.stringify(outcome));
}
