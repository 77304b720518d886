// The model of a command: the named one, or one of the downloaded models.
import { HeadstartError } from '../errors.js';
import type { DownloadedModel } from './downloaded-models.js';
import type { ModelCall } from './open-agent.js';
import { choose } from './questions.js';
import { bytesText } from './words.js';

/**
 * Returns the source of the model that the command uses: the argument, else the option, else the only downloaded model,
 * else the one that the user chooses.
 *
 * @param named the argument
 * @throws HeadstartError `INVALID_ARGUMENT` if there is no model, or if nobody can choose one. `ABORTED`.
 */
export async function chooseModel(call: ModelCall, named: string | undefined): Promise<string> {
  const source = named ?? call.options.model;
  if (source !== undefined) {
    return source;
  }
  const models = await downloadedModels(call.options.modelsDir);
  const [only] = models;
  if (models.length === 1 && only !== undefined) {
    call.output.note(`Model: ${only.name}`);
    return only.path;
  }
  if (models.length > 1 && call.output.isInteractive) {
    const items = models.map(({ name, path, bytes }) => ({ value: path, label: name, hint: bytesText(bytes) }));
    return choose(call, 'Model', items);
  }
  const found =
    models.length === 0
      ? 'No model is downloaded yet'
      : `These models are downloaded: ${models.map(({ name }) => name).join(', ')}`;
  throw new HeadstartError(
    'INVALID_ARGUMENT',
    'Expected a model: a path, an address, or hf:owner/name[:quantization] for a model of the Hugging Face Hub. Name it ' +
      'with --model, with the environment variable LLAMA_HEADSTART_MODEL or with `model` in the configuration file. ' +
      `${found}.`,
  );
}

/** The complete models in the directory of downloads. Empty if the user has no home directory. */
async function downloadedModels(directory: string | undefined): Promise<DownloadedModel[]> {
  const { listModels } = await import('./downloaded-models.js');
  const { models } = await listModels(directory).catch(() => ({ models: [] }));
  return models.filter(({ isComplete }) => isComplete);
}
