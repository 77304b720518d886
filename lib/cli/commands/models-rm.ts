import { command } from '../command.js';
import { flag } from '../option.js';
import { requireConsent } from '../questions.js';
import { MODELS_DIRECTORY } from '../shared-options.js';
import { bytesText } from '../words.js';

export const modelsRm = command({
  name: 'models rm',
  summary: 'deletes downloaded models',
  details: ['On a terminal, `rm` asks first. Only files in the directory of the downloaded models are deleted.'],
  arguments: {
    models: { about: 'names or paths as in `models list`, or a repository such as `hf:owner/name`', variadic: true },
  },
  options: { yes: flag('do not ask', { isConfigurable: false }), ...MODELS_DIRECTORY },
  examples: [{ line: 'models rm hf:Qwen/Qwen3-8B-GGUF --yes', about: 'Delete all files of a repository.' }],
  json: { removed: 'the deleted models, each with `name`, `path` and `bytes`', bytes: 'the freed bytes' },
  async run(call) {
    const { args, options, output } = call;
    const { findModels, listModels, removeModel } = await import('../downloaded-models.js');
    const listing = await listModels(options.modelsDir);
    const models = [...new Set(args.models.flatMap((wanted) => findModels(listing, wanted)))];
    const bytes = models.reduce((sum, model) => sum + model.bytes, 0);
    const names = models.map(({ name }) => name).join(', ');
    await requireConsent(call, options.yes, `Delete ${names} (${bytesText(bytes)})?`);
    for (const model of models) {
      await removeModel(listing.directory, model);
    }
    output.result({ removed: models, bytes }, () => [`Deleted ${names}: ${bytesText(bytes)}.`]);
  },
});
