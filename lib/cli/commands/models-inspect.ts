import { command } from '../command.js';
import type { ModelDescription } from '../model-description.js';
import type { Output } from '../output.js';
import { MODELS_DIRECTORY } from '../shared-options.js';
import { bytesText, countText } from '../words.js';

export const modelsInspect = command({
  name: 'models inspect',
  summary: 'shows what a model file is: architecture, context, memory, chat template and tools',
  details: [
    'The weights are not loaded. The memory is an upper bound for one conversation, with a KV cache of f16. Recurrent ' +
      'and sliding-window layers need less.',
  ],
  arguments: { model: { about: 'a GGUF file, or the name of a downloaded model', completion: 'file' } },
  options: MODELS_DIRECTORY,
  examples: [
    { line: 'models inspect model.gguf', about: 'Show a file.' },
    { line: 'models inspect hf:Qwen/Qwen3-8B-GGUF', about: 'Show a downloaded model.' },
  ],
  json: {
    path: 'the path of the file; `name`, `architecture`, `quantization`, `parameters`, `bytes`, `layers` and `vocabulary` describe it',
    trainContextSize: 'the training length in tokens; 0 if it is unknown',
    slidingWindow: 'the window of sliding-window layers in tokens, or null',
    recurrent: 'whether the memory is recurrent or hybrid, so that only whole prefixes can be reused',
    kvBytesPerToken: 'bytes of the KV cache for each token',
    memory: 'the memory for contexts of several lengths: `contextSize`, `bytes`',
    chatTemplate: '`length`, `describesTools`, `toolsFormat`, `reasoning` and `usesClock`, or null',
    problem: 'why the chat template cannot be used, or null',
  },
  async run({ args, options, output, signal }) {
    const { describeModel } = await import('../model-description.js');
    const description = await describeModel(await pathOf(args.model, options.modelsDir), signal);
    output.result(description, () => linesOf(description, output));
  },
});

/** @throws HeadstartError `MODEL_NOT_FOUND`. A model of the Hub is never downloaded here. */
async function pathOf(wanted: string, modelsDir: string | undefined): Promise<string> {
  if (!/^(hf|huggingface):/.test(wanted)) {
    const { resolveModel } = await import('../../model/resolve-model.js');
    return (await resolveModel({ type: 'local', path: wanted })).path;
  }
  const { findModels, listModels } = await import('../downloaded-models.js');
  const [model] = findModels(await listModels(modelsDir), wanted);
  return (model as { path: string }).path;
}

function linesOf(model: ModelDescription, output: Output): string[] {
  const { chatTemplate, memory, slidingWindow, trainContextSize: trained } = model;
  const kind = model.recurrent ? ', recurrent or hybrid memory' : '';
  const window = slidingWindow === null ? '' : `, sliding window of ${countText(slidingWindow)} tokens`;
  return [
    model.name ?? model.path,
    `  file           ${model.path}, ${bytesText(model.bytes)}`,
    `  architecture   ${model.architecture}, ${parametersText(model.parameters)}, ${model.quantization}${kind}${window}`,
    `  context        ${trained === 0 ? 'unknown' : `trained with ${countText(trained)} tokens`}`,
    `  KV cache       ${bytesText(model.kvBytesPerToken)} a token`,
    `  vocabulary     ${countText(model.vocabulary.size)} tokens (${model.vocabulary.type})`,
    ...(chatTemplate === null
      ? [`  chat template  ${model.problem === null ? 'none: pass one with `chatTemplate`' : `✗ ${model.problem}`}`]
      : [
          `  chat template  ${countText(chatTemplate.length)} characters${chatTemplate.usesClock ? ', contains the date' : ''}${chatTemplate.reasoning ? ', with reasoning' : ''}`,
          `  tools          ${chatTemplate.describesTools ? 'described by the chat template' : 'described in the system message'}, replies in the format ${chatTemplate.toolsFormat}`,
        ]),
    '',
    ...output.table(
      ['context size', 'memory at most'],
      memory.map(({ contextSize, bytes }) => [countText(contextSize), bytesText(bytes)]),
      [0, 1],
    ),
  ];
}

function parametersText(parameters: number): string {
  return parameters >= 1e9
    ? `${(parameters / 1e9).toFixed(1)}B parameters`
    : `${(parameters / 1e6).toFixed(1)}M parameters`;
}
