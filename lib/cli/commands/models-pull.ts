import { stat } from 'node:fs/promises';
import { command } from '../command.js';
import { show } from '../model-step.js';
import { MODELS_DIRECTORY } from '../shared-options.js';
import { bytesText } from '../words.js';

export const modelsPull = command({
  name: 'models pull',
  summary: 'downloads a model, and continues an interrupted download',
  arguments: { model: { about: 'the model: `hf:owner/name[:quantization]`, `hf:owner/name/file.gguf` or an address' } },
  options: MODELS_DIRECTORY,
  examples: [
    { line: 'models pull hf:Qwen/Qwen3-8B-GGUF', about: 'Download the Q4_K_M file of a repository.' },
    { line: 'models pull hf:Qwen/Qwen3-8B-GGUF:Q8_0', about: 'Download the file with another quantization.' },
  ],
  json: { path: 'the path of the model, or of its first part', bytes: 'the size of this file' },
  async run({ args, options, output, signal, step }) {
    const { resolveModel } = await import('../../model/resolve-model.js');
    const { path } = await step('model', (progress) =>
      resolveModel(args.model, {
        ...(options.modelsDir !== undefined && { modelsDir: options.modelsDir }),
        generationConfig: true,
        signal,
        onProgress: (state) => show(progress, state),
        logger: output.log,
      }),
    );
    const { size: bytes } = await stat(path);
    output.result({ path, bytes }, () => path);
    output.note(`${bytesText(bytes)}`);
  },
});
