// Servers of the Model Context Protocol: how they are named, and the check of it.
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
  /** Yours for it: of letters, digits, `_` and `-`. Goes in front of tool names that another server has too. */
  name: value<string>(
    (given) => typeof given === 'string' && /^[\w-]{1,64}$/.test(given) && !given.includes('__'),
    '1 to 64 letters, digits, "-" and single "_"',
  ),
  /** Only these of its tools, by their names there. @default all */
  allowedTools: strings().optional(),
  /** False: if it cannot be reached at the start, the agent starts without it, and new sessions try again. @default true */
  required: boolean().default(true),
  /** How long connecting and listing may take, ms. @default 30000 */
  connectTimeoutMs: integer(1).default(30_000),
  /** How long one call may take, ms. @default 60000 */
  callTimeoutMs: integer(1).default(60_000),
};

const STDIO = {
  ...COMMON,
  /** Tells it from servers at an address. @default 'stdio' */
  type: oneOf('stdio').default('stdio'),
  /** The program: a path, or a name that is looked for in PATH. No shell is used. */
  command: text(),
  /** Its arguments. @default none */
  args: strings().optional(),
  /** Added to the few harmless variables (PATH, HOME, ...) that it gets anyway. @default none */
  env: stringMap().optional(),
  /** Where it runs. @default the working directory */
  cwd: text().optional(),
};

/** A server that is a child process. */
export interface McpStdioServer extends OptionsOf<typeof STDIO> {}

const HTTP = {
  ...COMMON,
  /** `http` is streamable HTTP; `sse` is its predecessor. */
  type: oneOf('http', 'sse'),
  /** http or https, without user and password: those are `headers`. */
  url: webAddress(),
  /** Sent with each request: a token, for one. @default none */
  headers: stringMap().optional(),
};

/** A server at an address. */
export interface McpHttpServer extends OptionsOf<typeof HTTP> {}

/** A server of the Model Context Protocol. */
export type McpServerConfig = McpStdioServer | McpHttpServer;
export type ResolvedMcpServer = ResolvedOf<typeof STDIO> | ResolvedOf<typeof HTTP>;

export const MCP_SERVER_OPTIONS = { stdio: group(STDIO), http: group(HTTP) };

const OF_HTTP: Place = { names: ['url', 'headers'], where: 'to a server of `type` "http" or "sse"' };
const OF_STDIO: Place = { names: ['command', 'args', 'env', 'cwd'], where: 'to a server of `type` "stdio"' };
/** What a server of this type does not have, and those of another do. */
const OF_OTHERS = { stdio: OF_HTTP, http: OF_STDIO, sse: OF_STDIO } as const;

/**
 * Servers with all defaults in place.
 *
 * @throws HeadstartError `CONFIG_INVALID`.
 */
export function resolveMcpServers(servers: unknown): readonly ResolvedMcpServer[] {
  if (!Array.isArray(servers)) {
    throw invalid('Expected `mcpServers` to be an array of servers');
  }
  const names = new Set<string>();
  return servers.map((given: McpServerConfig, index) => {
    const server = resolveServer(given, `\`mcpServers[${index}]\``);
    if (names.has(server.name)) {
      throw invalid(`Expected servers with names of their own in \`mcpServers\`, "${server.name}" is there twice`);
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
  return parseOptions(type === 'stdio' ? stdio : http, server, { where, places: [OF_OTHERS[type]] });
}

function invalid(message: string): HeadstartError {
  return new HeadstartError('CONFIG_INVALID', message);
}
