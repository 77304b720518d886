import type { AgentOptions } from '../agent/agent-options.js';
import type { AgentServer } from '../agent/agent-server.js';
import { HeadstartError } from '../errors.js';
import type { Call } from './command.js';
import { usableTemplatesDirectory } from './directories.js';
import { show } from './model-step.js';
import type { OptionValues } from './option.js';
import type { MODEL_OPTIONS } from './shared-options.js';

/** The call of a command that has {@link MODEL_OPTIONS}. */
export type ModelCall = Omit<Call, 'args' | 'options'> & { options: OptionValues<typeof MODEL_OPTIONS> };

/** Changes of the options that the command line gives to the agent. */
export interface AgentChanges extends Omit<Partial<AgentOptions>, 'model'> {
  model?: Partial<AgentOptions['model']>;
}

/**
 * Loads the model of a command, and shows the progress of its download. The caller closes the agent.
 *
 * @param source the model; by default that of the options
 * @param changes options that replace those of the command line
 * @throws HeadstartError as `AgentServer.initialize`.
 */
export async function openAgent(
  call: ModelCall,
  source: string | undefined = call.options.model,
  changes: AgentChanges = {},
): Promise<AgentServer> {
  const { AgentServer: Agents } = await import('../agent/agent-server.js');
  const options = agentOptions(call, requiredModel(source), changes);
  return call.step('model', (step) => Agents.initialize({ ...options, onProgress: (state) => show(step, state) }));
}

/** @throws HeadstartError `INVALID_ARGUMENT` if no model is named. */
export function requiredModel(source: string | undefined): string {
  if (source === undefined) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      'Expected a model. Name one with --model, with the environment variable LLAMA_HEADSTART_MODEL or with `model` in ' +
        'the configuration file. `llama-headstart models list` shows the downloaded models.',
    );
  }
  return source;
}

function agentOptions({ options, output, signal }: ModelCall, source: string, changes: AgentChanges): AgentOptions {
  const { contextSize, gpu, threads, modelsDir, cacheDir } = options;
  const dir = changes.cache?.dir === undefined ? usableTemplatesDirectory(cacheDir, output) : changes.cache.dir;
  return {
    logger: (level, message) => (level === 'error' || level === 'warn' ? output.warn(message) : output.detail(message)),
    debug: output.settings.verbose,
    signal,
    ...changes,
    model: {
      source,
      ...(contextSize !== undefined && { contextSize }),
      ...(threads !== undefined && { nThreads: threads }),
      ...(modelsDir !== undefined && { modelsDir }),
      gpu: gpu === 'none' ? false : gpu,
      ...changes.model,
    },
    cache: { ...changes.cache, dir },
  };
}
