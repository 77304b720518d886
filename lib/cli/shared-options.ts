// Options that several commands have.
import { integer } from '../option-types.js';
import { choiceOption, flag, numberOption, type Options, pathOption, textOption } from './option.js';

/** The options of every command. */
export const GLOBAL_OPTIONS = {
  json: flag('print the result as one JSON object'),
  quiet: flag('print no progress and no notes'),
  verbose: flag('print more notes, and the stack of an error'),
};

/** Where the cached templates are. */
export const CACHE_DIRECTORY = {
  cacheDir: pathOption('directory', 'directory of the cached templates', {
    environment: 'LLAMA_HEADSTART_CACHE_DIR',
    defaultAbout: '`templates` in the cache directory of the user',
    completion: 'directory',
  }),
};

/** Where the downloaded models are. */
export const MODELS_DIRECTORY = {
  modelsDir: pathOption('directory', 'directory of the downloaded models', {
    environment: 'LLAMA_HEADSTART_MODELS_DIR',
    defaultAbout: '`models` in the cache directory of the user',
    completion: 'directory',
  }),
};

/** The options of commands that load a model. */
export const MODEL_OPTIONS = {
  model: textOption('model', 'the model: a path, an address, or `hf:owner/name[:quantization]`', {
    environment: 'LLAMA_HEADSTART_MODEL',
    completion: 'file',
  }),
  contextSize: numberOption('tokens', integer(1), 'the number of tokens that one conversation may hold', {
    defaultAbout: 'the training length of the model, at most 8192',
  }),
  gpu: choiceOption('kind', ['auto', 'cuda', 'metal', 'vulkan', 'none'], 'the processor to compute on', {
    default: 'auto',
  }),
  threads: numberOption('number', integer(1, 512), 'the number of threads', { defaultAbout: 'the number of cores' }),
  ...CACHE_DIRECTORY,
  ...MODELS_DIRECTORY,
};

/** The options that the configuration file may set for all commands. */
export const SHARED_OPTIONS: Options = { ...GLOBAL_OPTIONS, ...MODEL_OPTIONS };
