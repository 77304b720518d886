// Runs `launch`.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HeadstartError } from '../../errors.js';
import { limitedLogger } from '../../logger.js';
import { definedOptions, nearestName } from '../../options.js';
import type { ApiKey } from '../../server/server-options.js';
import { CODING_AGENTS } from '../agents/all-agents.js';
import type { AgentConnection, AgentSetup, CodingAgent } from '../agents/coding-agent.js';
import { chooseModel } from '../choose-model.js';
import type { Call } from '../command.js';
import type { OptionValues } from '../option.js';
import type { Output } from '../output.js';
import { startModelServer } from '../serve/model-server.js';
import { apiKeysOf, type SERVER_OPTIONS } from '../serve/server-options.js';
import { countText } from '../words.js';
import { findProgram } from './find-program.js';
import { findServer } from './find-server.js';
import { LastTemplate } from './last-template.js';
import { runProgram } from './run-program.js';

/** The call of `launch`. */
export interface LaunchCall extends Omit<Call, 'args' | 'options'> {
  args: { agent: string; arguments: readonly string[] };
  options: OptionValues<typeof SERVER_OPTIONS>;
}

/** Tokens that an agent needs besides its head: the words of the user, a few files, and the reply. */
const WORKING_TOKENS = 8000;
const NOT_INSTALLED = 127;

/** @throws HeadstartError `INVALID_ARGUMENT` (an unknown agent, or a context that is too small), and others. */
export async function launchAgent(call: LaunchCall): Promise<void> {
  const id = call.args.agent;
  const agent = agentOf(id);
  const program = await findProgram(agent.command, call.io.env);
  if (program === undefined) {
    call.exitCode = NOT_INSTALLED;
    call.output.fail(
      `${agent.name} is not installed: there is no program \`${agent.command}\` in PATH. Install it with \`${agent.install}\`.`,
    );
    return;
  }
  const apiKeys = await apiKeysOf(call, call.options.apiKeyFile);
  const server = await serverFor(call, id, agent, apiKeys);
  try {
    const { url, model, contextSize } = server;
    call.output.note(`${agent.name} uses ${model} at ${url}, with a context of ${countText(contextSize)} tokens.`);
    call.exitCode = await runAgent(call, agent, program, { url, apiKey: apiKeys?.[0]?.key, model, contextSize });
  } finally {
    await server.close();
  }
}

function agentOf(id: string): CodingAgent {
  const agent = Object.hasOwn(CODING_AGENTS, id) ? CODING_AGENTS[id] : undefined;
  if (agent === undefined) {
    const names = Object.keys(CODING_AGENTS);
    const nearest = nearestName(id, names);
    const hint = nearest === undefined ? '' : ` Did you mean ${nearest}?`;
    throw new HeadstartError('INVALID_ARGUMENT', `Expected an agent (${names.join(', ')}), got "${id}".${hint}`);
  }
  return agent;
}

/** @throws HeadstartError `INVALID_ARGUMENT` if the context is too small for the agent. */
function requireContext({ name, headTokens }: CodingAgent, contextSize: number): void {
  const needed = headTokens + WORKING_TOKENS;
  if (contextSize < needed) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `${name} needs a context of at least ${countText(needed)} tokens, because it sends about ` +
        `${countText(headTokens)} tokens in front of your words. The context of the server has ${countText(contextSize)}. ` +
        'Raise --context-size, or choose a model with a longer context or an agent with a shorter prompt.',
    );
  }
}

/** A server for the agent: a server that is already running, or a new one. */
interface AgentsServer extends Omit<AgentConnection, 'directory' | 'apiKey'> {
  /** Ends the server if it is a new one. */
  close(): Promise<void>;
}

async function serverFor(
  call: LaunchCall,
  id: string,
  agent: CodingAgent,
  apiKeys: readonly ApiKey[] | undefined,
): Promise<AgentsServer> {
  const { port } = call.options;
  const running = port === 0 ? undefined : await findServer(`http://127.0.0.1:${port}`, apiKeys?.[0]?.key, call.signal);
  if (running !== undefined) {
    call.output.note(`A server is already running at ${running.url}. --port 0 starts another one.`);
    requireContext(agent, running.contextSize);
    return { ...running, close: async () => undefined };
  }
  const source = await chooseModel(call, undefined);
  const template = new LastTemplate(id);
  const warnings = new LateWarnings(call.output);
  const server = await startModelServer(call, source, {
    logger: warnings.log,
    handler: definedOptions({ apiKeys }),
    listen: { port, closeTimeoutMs: 0 },
    acceptsAnyPort: true,
    check: ({ contextSize }) => requireContext(agent, contextSize),
    served: (model) => template.watch(model),
  });
  const stopWarming = template.warm(server.agent);
  return {
    url: server.url,
    model: server.agent.id,
    contextSize: server.context.contextSize,
    close: async () => {
      await stopWarming();
      await template.save();
      await call.step('saving conversations', () => server.close());
      warnings.print();
    },
  };
}

/** Keeps warnings until the agent has ended, because the agent uses the terminal. */
class LateWarnings {
  readonly #output: Output;
  readonly #messages = new Set<string>();

  constructor(output: Output) {
    this.#output = output;
  }

  readonly log = limitedLogger((_, message) => this.#messages.add(message), 'warn');

  print(): void {
    for (const message of this.#messages) {
      this.#output.warn(message);
    }
  }
}

/** Runs the agent with a temporary directory for its settings. */
async function runAgent(
  call: LaunchCall,
  agent: CodingAgent,
  program: string,
  connection: Omit<AgentConnection, 'directory'>,
): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'llama-headstart-'));
  try {
    const setup = agent.setUp({ ...connection, directory });
    await writeFiles(directory, setup);
    // The terminal sends Ctrl-C to all programs in the foreground, so the agent handles it itself.
    const stopHandling = call.interrupts.handle(() => undefined);
    try {
      return await runProgram(program, {
        args: [...setup.args, ...call.args.arguments],
        environment: { ...withoutProxy(call.io.env), ...setup.environment },
        directory: call.io.cwd,
        signal: call.signal,
      });
    } finally {
      stopHandling();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Requests to this machine must not go through a proxy. */
function withoutProxy(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { NO_PROXY, no_proxy: lowerCase = NO_PROXY } = environment;
  const hosts = [...(lowerCase ? [lowerCase] : []), '127.0.0.1'].join(',');
  return { ...environment, NO_PROXY: hosts, no_proxy: hosts };
}

async function writeFiles(directory: string, { files }: AgentSetup): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(directory, name), text, { mode: 0o600 });
  }
}
