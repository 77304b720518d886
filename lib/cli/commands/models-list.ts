import { command } from '../command.js';
import type { DownloadedModel } from '../downloaded-models.js';
import { MODELS_DIRECTORY } from '../shared-options.js';
import { bytesText, dateText } from '../words.js';

export const modelsList = command({
  name: 'models list',
  summary: 'lists the downloaded models',
  arguments: {},
  options: MODELS_DIRECTORY,
  examples: [{ line: 'models list', about: 'List the models that commands can use without a download.' }],
  json: {
    directory: 'the directory of the downloaded models',
    models: 'the models, each with `name`, `path`, `bytes`, `modifiedAt` and `isComplete`',
    unfinished: 'interrupted downloads, each with `path` and `bytes`',
  },
  async run({ options, output }) {
    const { listModels } = await import('../downloaded-models.js');
    const listing = await listModels(options.modelsDir);
    const { directory, models, unfinished } = listing;
    output.result(listing, () => [
      ...(models.length === 0
        ? [`No models in ${directory}. \`llama-headstart models pull hf:owner/name\` downloads one.`]
        : output.table(['model', 'size', 'downloaded'], models.map(cellsOf), [1])),
      ...unfinished.map(({ path, bytes }) => `not finished: ${path}, ${bytesText(bytes)}`),
    ]);
  },
});

function cellsOf({ name, bytes, modifiedAt, isComplete }: DownloadedModel): string[] {
  return [name, bytesText(bytes), isComplete ? dateText(new Date(modifiedAt)) : 'parts are missing'];
}
