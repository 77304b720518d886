// A vocabulary in which the markup of all chat templates of llama.cpp consists of control tokens, as in the vocabularies
// of the models that use these templates.
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Model } from 'llama-headstart/native';
// @ts-expect-error: scripts are plain JavaScript
import { layoutGguf, writeGguf } from '../fixtures/micro-models/gguf-writer.mjs';
// @ts-expect-error: scripts are plain JavaScript
import { createVocabulary, tokenizerMetadata } from '../fixtures/micro-models/tokenizer.mjs';

const DIRECTORY = fileURLToPath(new URL('../../vendor/llama.cpp/models/templates', import.meta.url));

/** The names and texts of the chat templates. */
export const CHAT_TEMPLATES: readonly (readonly [name: string, text: string])[] = readdirSync(DIRECTORY)
  .filter((name) => name.endsWith('.jinja'))
  .map((name) => [name, readFileSync(join(DIRECTORY, name), 'utf8')]);

const MARKUP =
  /<[|\uFF5C][^|\uFF5C<>\s]+[|\uFF5C]>|\[\/?[A-Z_]{4,}\]|<\/?(?:start|end)_of_turn>|<seed:[a-z]+>|<SPECIAL_\d+>/g;

/** GGUF's `tokenizer.ggml.token_type` of control tokens. */
const CONTROL = 3;

/** Loads a model that has only this vocabulary. The caller must close the model. */
export async function loadMarkupModel(): Promise<Model> {
  const directory = await mkdtemp(join(tmpdir(), 'headstart-test-'));
  try {
    return await Model.load({ path: await writeMarkupVocabulary(directory), vocabularyOnly: true });
  } finally {
    await rm(directory, { recursive: true, force: true }); // the model has read the whole file
  }
}

/** Writes the vocabulary into `directory`, and returns the path of the file. */
async function writeMarkupVocabulary(directory: string): Promise<string> {
  const vocabulary = createVocabulary();
  const markup = new Set(CHAT_TEMPLATES.flatMap(([, text]) => text.match(MARKUP) ?? []));
  for (const text of vocabulary.tokens) {
    markup.delete(text);
  }
  const path = join(directory, 'markup-vocabulary.gguf');
  const tokenizer = tokenizerMetadata(
    {
      ...vocabulary,
      tokens: [...vocabulary.tokens, ...markup],
      types: [...vocabulary.types, ...[...markup].map(() => CONTROL)],
    },
    '',
  );
  await writeGguf(path, layoutGguf([['general.architecture', 'string', 'qwen2'], ...tokenizer], []));
  return path;
}
