// tokenize-extremes.mjs VOCABULARY...: tokenizes texts that can overflow the stack of a tokenizer. Prints a line of
// JSON per vocabulary.
import { HeadstartError, Model } from 'llama-headstart/native';

const MEGABYTE = 1 << 20;
const LIMIT = 400_000;
const TEXTS = {
  'a megabyte of one letter': 'a'.repeat(MEGABYTE),
  'a megabyte of spaces': ' '.repeat(MEGABYTE),
  'letters up to the limit': 'a'.repeat(LIMIT),
  'spaces up to the limit': ' '.repeat(LIMIT),
  'words beyond the limit': 'word '.repeat(LIMIT / 4),
};

async function outcomeOf(model, text) {
  try {
    return (await model.tokenize(text, { parseSpecial: true })) instanceof Int32Array ? 'tokens' : 'nothing';
  } catch (error) {
    return HeadstartError.isInstance(error) ? error.code : `no code: ${error?.stack ?? error}`;
  }
}

for (const path of process.argv.slice(2)) {
  const model = await Model.load({ path, vocabularyOnly: true });
  const outcomes = {};
  for (const [name, text] of Object.entries(TEXTS)) {
    outcomes[name] = await outcomeOf(model, text);
  }
  await model.close();
  console.log(JSON.stringify(outcomes));
}
