import type { AgentOptions } from '../agent/agent-options.js';
import type { AgentServer } from '../agent/agent-server.js';
import { chooseModel } from './choose-model.js';
import type { Call } from './command.js';
import { usableTemplatesDirectory } from './directories.js';
import { show } from './model-step.js';
import type { OptionValues } from './option.js';
import type { MODEL_OPTIONS } from './shared-options.js';

/** The call of a command that has {@link MODEL_OPTIONS}. */
export type ModelCall = Omit<Call, 'args' | 'options'> & { options: OptionValues<typeof MODEL_OPTIONS> };

/** Changes to the options that the command line passes to the agent. */
export interface AgentChanges extends Omit<Partial<AgentOptions>, 'model'> {
  model?: Partial<AgentOptions['model']>;
}

/**
 * Loads the model of a command, and shows the progress of its download. The caller closes the agent.
 *
 * @param named the model; by default that of the options, or one of the downloaded models: see `chooseModel`
 * @param changes options that replace those of the command line
 * @throws HeadstartError as `AgentServer.initialize`.
 */
export async function openAgent(call: ModelCall, named?: string, changes: AgentChanges = {}): Promise<AgentServer> {
  const { AgentServer: Agents } = await import('../agent/agent-server.js');
  const options = agentOptions(call, named ?? (await chooseModel(call, undefined)), changes);
  return call.step('model', (step) => Agents.initialize({ ...options, onProgress: (state) => show(step, state) }));
}

function agentOptions({ options, output, signal }: ModelCall, source: string, changes: AgentChanges): AgentOptions {
  const { contextSize, gpu, threads, modelsDir, cacheDir } = options;
  const dir = changes.cache?.dir === undefined ? usableTemplatesDirectory(cacheDir, output) : changes.cache.dir;
  return {
    logger: output.log,
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
    cache: { ...changes.cache, dir, ...(dir === null && { conversations: false }) },
  };
}
