// The options of an agent, in their groups.
import { CACHE_OPTIONS, type CacheOptions, type ResolvedCacheOptions } from '../cache/options.js';
import { IN_SAMPLING } from '../generate/sampling.js';
import type { Logger } from '../logger.js';
import { MODEL_OPTIONS, type ModelConfig, type ParsedModelConfig } from '../model/model-options.js';
import type { OnModelProgress } from '../model/progress.js';
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
import { IN_SEND } from '../session/send-options.js';
import { IN_CREATE_SESSION, TEMPLATE } from '../session/session-options.js';
import type { McpServerConfig } from '../tools/mcp/mcp-config.js';

const AGENT = {
  /** The model and its context. */
  model: MODEL_OPTIONS as Group<ModelConfig, ParsedModelConfig>,
  /** The template cache. @default all defaults */
  cache: (CACHE_OPTIONS as Group<CacheOptions, ResolvedCacheOptions>).prefault({}),
  /** How tokens are chosen, option by option over what the makers recommend (`useHfParams`). @default llama.cpp's defaults */
  sampling: SAMPLING_OPTIONS.prefault({}),
  /** The system prompt of sessions that name none. @default none */
  systemPrompt: TEMPLATE.systemPrompt,
  /** The tools of sessions that name none. @default none */
  tools: TEMPLATE.tools,
  /**
   * Servers of the Model Context Protocol. Every session has their tools. Needs the package `@modelcontextprotocol/client`.
   * @default none
   */
  mcpServers: value<readonly McpServerConfig[]>(Array.isArray, 'an array of servers').optional(),
  /**
   * A greedy or seeded reply is the same to the bit alone, in company, cold, from disk, from memory, after its KV cells were
   * needed by others, and in another process. Takes split streams, `flashAttention` off and exact template reuse, and tests
   * the model at load (seconds): one that cannot keep the promise is refused with `NOT_REPRODUCIBLE`. @default false
   */
  reproducible: boolean().default(false),
  /** Most sessions that wait for others' turns to end; one more is refused with `QUEUE_FULL`. @default any number */
  maxQueueSize: integer(0).optional(),
  /**
   * Gets this package's and llama.cpp's warnings, and with `debug` more. llama.cpp has one log for all: its lines go to the
   * logger of the agent initialised last in this thread, until that is closed. What it throws becomes a process warning
   * (`LOGGER_THREW`).
   *
   * @default none: quiet, or with `debug` standard error
   */
  logger: callable<Logger>().optional(),
  /**
   * Log llama.cpp's lines of level `info` too, what MCP servers write to their standard error, and a line for each session, turn
   * and tool call: to the `logger`, or without one to standard error. @default false
   */
  debug: boolean().optional(),
  /** Called while the model is downloaded, verified and loaded. @default none */
  onProgress: callable<OnModelProgress>().optional(),
  /** Aborts the start; what was opened is closed again. @default none */
  signal: abortSignal().optional(),
};

/** How an agent is made. */
export interface AgentOptions extends OptionsOf<typeof AGENT> {}
export type ParsedAgentOptions = ResolvedOf<typeof AGENT>;

export const AGENT_OPTIONS = group(AGENT);

const BESIDE_GROUPS = Object.keys(AGENT).filter((name) => !['model', 'cache', 'sampling'].includes(name));

/** Where an unknown option may belong, seen from a group of the agent's options, or from outside of all groups. */
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
 * Each option, with the defaults of its schema.
 *
 * @throws HeadstartError `CONFIG_INVALID`, `INVALID_ARGUMENT` (in `sampling`).
 */
export function parseAgentOptions(options: unknown): ParsedAgentOptions {
  return parseOptions(AGENT_OPTIONS, options, { where: 'the options', places: placesFrom });
}
