// The options of an agent, and their check.
import { MODEL_OPTION_NAMES, type ModelConfig, type ResolvedModelConfig, resolveModelConfig } from './config.js';
import type { OnModelProgress } from './model/progress.js';
import type { Logger } from './native/log.js';
import { abortSignal, callable, checkOptions, type Place } from './options.js';
import { SESSION_CHECKS } from './session/open.js';
import { IN_SEND } from './session/options.js';
import { checkSampling, checkSamplingNames, IN_SAMPLING, type SamplingOptions } from './session/sampling.js';
import { checkMcpServers, type McpServerConfig } from './tools/mcp-config.js';
import { checkTools, type Tool } from './tools/tool.js';

/** How an agent is made. */
export interface AgentOptions {
  /** The model, its context and its template cache. */
  model: ModelConfig;
  /** Default of sessions that name none. */
  systemPrompt?: string;
  /** Default of sessions that name none. */
  tools?: readonly Tool[];
  /**
   * Servers of the Model Context Protocol: their tools are every session's. Needs the package
   * `@modelcontextprotocol/client`. @default none
   */
  mcpServers?: readonly McpServerConfig[];
  /** How tokens are chosen, over what the model's makers recommend where `useHfParams` is on. @default the likeliest token */
  sampling?: SamplingOptions;
  /**
   * Gets this package's and llama.cpp's warnings, and with `debug` more. llama.cpp has one log for all: its lines go to the
   * logger of the agent initialised last in this thread, until that is closed. What it throws becomes a process warning
   * (`LOGGER_THREW`).
   *
   * @default none: quiet, or with `debug` standard error
   */
  logger?: Logger;
  /** The model's way here: download, verification, load. */
  onProgress?: OnModelProgress;
  /** Aborts the start; what was opened is closed again. */
  signal?: AbortSignal;
}

const AGENT_CHECKS = {
  model: (value: unknown) => (typeof value === 'object' && value !== null ? undefined : 'an object'),
  systemPrompt: SESSION_CHECKS.systemPrompt,
  tools: checkTools,
  mcpServers: (value: unknown) => (Array.isArray(value) ? undefined : 'an array of servers'),
  sampling: checkSampling,
  logger: callable,
  onProgress: callable,
  signal: abortSignal,
};

/** Where that belongs which is no option of an agent. */
const ELSEWHERE: readonly Place[] = [
  { names: MODEL_OPTION_NAMES, where: 'in `model`' },
  IN_SAMPLING,
  { names: Object.keys(SESSION_CHECKS), where: 'in `createSession`' },
  IN_SEND,
];
const NOT_IN_MODEL: readonly Place[] = [
  { names: Object.keys(AGENT_CHECKS), where: 'beside `model`' },
  { ...IN_SAMPLING, where: 'in `sampling`, beside `model`' },
];

/**
 * What can be told without the model is checked before anything is done: not behind a download of gigabytes.
 *
 * @throws HeadstartError `CONFIG_INVALID`, `INVALID_ARGUMENT` (a name in `sampling`).
 */
export function checkAgentOptions(options: AgentOptions): ResolvedModelConfig {
  checkOptions(options, AGENT_CHECKS, 'the options', 'CONFIG_INVALID', ELSEWHERE);
  checkMcpServers(options.mcpServers ?? []);
  checkSamplingNames(options.sampling ?? {});
  return resolveModelConfig(options.model, NOT_IN_MODEL);
}
