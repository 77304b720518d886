// The configuration of servers of the Model Context Protocol, and its checks.
import { HeadstartError } from '../../errors.js';
import {
  boolean,
  group,
  integer,
  type OptionsOf,
  oneOf,
  type ResolvedOf,
  stringMap,
  strings,
  text,
  value,
  webAddress,
} from '../../option-types.js';
import type { Place } from '../../options.js';
import { parseOptions } from '../../parse-options.js';

const COMMON = {
  /**
   * Your name for the server: letters, digits, `_` and `-`. If two servers have a tool of the same name, the name of
   * the server becomes a prefix of the tool's name.
   */
  name: value<string>(
    (name) => typeof name === 'string' && /^[\w-]{1,64}$/.test(name) && !name.includes('__'),
    '1 to 64 letters, digits, "-" and single "_"',
  ),
  /** The names of the tools to use, as the server lists them. @default all tools */
  allowedTools: strings().optional(),
  /**
   * Whether the start of the agent fails if the server cannot be reached. With `false`, the agent then starts without
   * the server, and new sessions try again to reach the server. @default true
   */
  required: boolean().default(true),
  /** Maximum time to connect, and also to list tools and prompts, in ms. @default 30000 */
  connectTimeoutMs: integer(1).default(30_000),
  /** Maximum time of one call, in ms. @default 60000 */
  callTimeoutMs: integer(1).default(60_000),
};

const STDIO = {
  ...COMMON,
  /** `stdio` is a child process that exchanges messages over its standard streams. @default 'stdio' */
  type: oneOf('stdio').default('stdio'),
  /** The program: a path, or a name to look up in `PATH`. The program runs without a shell. */
  command: text(),
  /** The arguments of the program. @default none */
  args: strings().optional(),
  /**
   * Environment variables of the server. Every server also gets a few harmless variables of this process (`PATH`,
   * `HOME`, ...). @default none
   */
  env: stringMap().optional(),
  /** The working directory of the server. @default the working directory of this process */
  cwd: text().optional(),
};

/** A server that is a child process. */
export interface McpStdioServer extends OptionsOf<typeof STDIO> {}

const HTTP = {
  ...COMMON,
  /** `http` is streamable HTTP. `sse` is the older transport with server-sent events. */
  type: oneOf('http', 'sse'),
  /** An http or https address without user and password. Pass credentials as `headers`. */
  url: webAddress(),
  /** Headers of each request, for example with a token. @default none */
  headers: stringMap().optional(),
};

/** A server at an address. */
export interface McpHttpServer extends OptionsOf<typeof HTTP> {}

/** A server of the Model Context Protocol. */
export type McpServerConfig = McpStdioServer | McpHttpServer;
export type ResolvedMcpServer = ResolvedOf<typeof STDIO> | ResolvedOf<typeof HTTP>;

export const MCP_SERVER_OPTIONS = { stdio: group(STDIO), http: group(HTTP) };

const HTTP_ONLY: Place = { names: ['url', 'headers'], where: 'to a server of `type` "http" or "sse"' };
const STDIO_ONLY: Place = { names: ['command', 'args', 'env', 'cwd'], where: 'to a server of `type` "stdio"' };
/** For each type, the options that only servers of other types have. */
const OPTIONS_OF_OTHER_TYPES = { stdio: HTTP_ONLY, http: STDIO_ONLY, sse: STDIO_ONLY } as const;

/**
 * Checks the options of all servers, and fills in the defaults.
 *
 * @throws HeadstartError `CONFIG_INVALID`.
 */
export function resolveMcpServers(servers: unknown): readonly ResolvedMcpServer[] {
  if (!Array.isArray(servers)) {
    throw invalid('Expected `mcpServers` to be an array of servers');
  }
  const names = new Set<string>();
  return servers.map((config: McpServerConfig, index) => {
    const server = resolveServer(config, `\`mcpServers[${index}]\``);
    if (names.has(server.name)) {
      throw invalid(`Expected servers with different names in \`mcpServers\`, got "${server.name}" twice`);
    }
    names.add(server.name);
    return server;
  });
}

function resolveServer(server: McpServerConfig, where: string): ResolvedMcpServer {
  const type = server?.type ?? 'stdio';
  if (!['stdio', 'http', 'sse'].includes(type)) {
    const hint = /http/i.test(type) ? ': did you mean "http"?' : '';
    throw invalid(`Expected \`type\` in ${where} to be "stdio", "http" or "sse", got "${type}"${hint}`);
  }
  const { stdio, http } = MCP_SERVER_OPTIONS;
  return parseOptions(type === 'stdio' ? stdio : http, server, { where, places: [OPTIONS_OF_OTHER_TYPES[type]] });
}

function invalid(message: string): HeadstartError {
  return new HeadstartError('CONFIG_INVALID', message);
}
