// The options of an agent, in their groups.
import { CACHE_OPTIONS, type CacheOptions, type ResolvedCacheOptions } from '../cache/cache-options.js';
import { IN_SEND } from '../chat/send-options.js';
import { IN_SAMPLING } from '../generate/sampling.js';
import type { Logger } from '../logger.js';
import { MODEL_OPTIONS, type ModelConfig, type ParsedModelConfig } from '../model/model-options.js';
import type { OnModelProgress } from '../model/model-progress.js';
import {
  abortSignal,
  boolean,
  callable,
  type Group,
  group,
  integer,
  type OptionsOf,
  type ResolvedOf,
  value,
} from '../option-types.js';
import type { Place } from '../options.js';
import { parseOptions } from '../parse-options.js';
import { SAMPLING_OPTIONS } from '../sampling-options.js';
import { IN_CREATE_SESSION, TEMPLATE } from '../session/session-options.js';
import type { McpServerConfig } from '../tools/mcp/mcp-config.js';

const AGENT = {
  /** The model and its context. */
  model: MODEL_OPTIONS as Group<ModelConfig, ParsedModelConfig>,
  /** The template cache. @default all defaults */
  cache: (CACHE_OPTIONS as Group<CacheOptions, ResolvedCacheOptions>).prefault({}),
  /**
   * How tokens are chosen. Each option overrides the recommendation of the model's makers (`useHfParams`).
   * @default llama.cpp's defaults
   */
  sampling: SAMPLING_OPTIONS.prefault({}),
  /** The system prompt of sessions without the option `systemPrompt`. @default none */
  systemPrompt: TEMPLATE.systemPrompt,
  /** The tools of sessions without the option `tools`. @default none */
  tools: TEMPLATE.tools,
  /**
   * Servers of the Model Context Protocol. Every session can use the tools of these servers. Needs the package
   * `@modelcontextprotocol/client`. @default none
   */
  mcpServers: value<readonly McpServerConfig[]>(Array.isArray, 'an array of servers').optional(),
  /**
   * Makes greedy and seeded replies reproducible to the bit. A reply is the same alone or beside other sessions, after
   * a cold start, from memory or from disk, after a swap, and in another process. Sets `kvLayout` to split,
   * `flashAttention` to false and `reuse` to exact. The model is tested when it is loaded, which takes seconds. A model
   * that fails the test is refused with `NOT_REPRODUCIBLE`. @default false
   */
  reproducible: boolean().default(false),
  /**
   * Maximum number of sessions and requests that wait for a sequence id. Further starts and turns fail with
   * `QUEUE_FULL`. Sessions that wait for KV cells do not count. @default any number
   */
  maxQueueSize: integer(0).optional(),
  /**
   * Receives the warnings of this package and of llama.cpp, and more lines with `debug`. llama.cpp has one log per
   * process. Its lines go to the logger of the agent that was initialized last in this thread, until that agent is
   * closed. An error that the logger throws becomes a process warning (`LOGGER_THREW`).
   *
   * @default none: log lines are dropped, or with `debug` written to standard error
   */
  logger: callable<Logger>().optional(),
  /**
   * Logs more lines: those of llama.cpp with level `info`, the standard error of MCP servers, and one line for each
   * session, turn and tool call. Without a `logger`, all log lines go to standard error. @default false
   */
  debug: boolean().optional(),
  /** Called while the model is downloaded, verified and loaded. @default none */
  onProgress: callable<OnModelProgress>().optional(),
  /** Aborts the start, with `ABORTED`. Everything that was opened so far is closed. @default none */
  signal: abortSignal().optional(),
};

/** The options of `AgentServer.initialize()`. */
export interface AgentOptions extends OptionsOf<typeof AGENT> {}
export type ParsedAgentOptions = ResolvedOf<typeof AGENT>;

export const AGENT_OPTIONS = group(AGENT);

const BESIDE_GROUPS = Object.keys(AGENT).filter((name) => !['model', 'cache', 'sampling'].includes(name));

/**
 * The groups to which an unknown option may belong.
 *
 * @param group the group that contains the unknown option. Undefined at the top level.
 */
function placesFrom(group: string | undefined): readonly Place[] {
  const beside: Place = { names: BESIDE_GROUPS, where: group === undefined ? '' : `beside \`${group}\`` };
  const places: Record<string, Place> = {
    model: { names: Object.keys(MODEL_OPTIONS.shape), where: 'in `model`' },
    cache: { names: Object.keys(CACHE_OPTIONS.shape), where: 'in `cache`' },
    beside,
    sampling: group === undefined ? IN_SAMPLING : { ...IN_SAMPLING, where: `in \`sampling\`, beside \`${group}\`` },
  };
  const others = Object.entries(places).filter(([name]) => name !== (group ?? 'beside'));
  return [...others.map(([, place]) => place), IN_CREATE_SESSION, IN_SEND];
}

/**
 * Checks the options and fills in the defaults of their schema.
 *
 * @throws HeadstartError `CONFIG_INVALID`, `INVALID_ARGUMENT` (in `sampling`).
 */
export function parseAgentOptions(options: unknown): ParsedAgentOptions {
  return parseOptions(AGENT_OPTIONS, options, { where: 'the options', places: placesFrom });
}
