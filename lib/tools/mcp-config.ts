// Servers of the Model Context Protocol: how they are named, and the check of it.
import { HeadstartError } from '../errors.js';
import { boolean, type Check, checkOptions, integer, type Place, stringMap, text, webAddress } from '../options.js';

interface McpServerCommon {
  /** Yours for it: of letters, digits, `_` and `-`. Goes in front of tool names that another server has too. */
  name: string;
  /** Only these of its tools, by their names there. @default all */
  tools?: readonly string[];
  /** False: where it cannot be reached at the start, the agent starts without it, and new sessions try again. @default true */
  required?: boolean;
  /** How long connecting and listing may take, ms. @default 30000 */
  connectTimeoutMs?: number;
  /** How long one call may take, ms. @default 60000 */
  callTimeoutMs?: number;
}

/** A server that is a child process. */
export interface McpStdioServer extends McpServerCommon {
  /** Tells it from servers at an address. @default 'stdio' */
  type?: 'stdio';
  /** The program: a path, or a name that is looked for in PATH. No shell is used. */
  command: string;
  /** Its arguments. @default none */
  args?: readonly string[];
  /** Added to the few harmless variables (PATH, HOME, ...) that it gets anyway. */
  env?: Readonly<Record<string, string>>;
  /** @default the working directory */
  cwd?: string;
}

/** A server at an address. */
export interface McpHttpServer extends McpServerCommon {
  /** `http` is streamable HTTP; `sse` is its predecessor. */
  type: 'http' | 'sse';
  /** http or https, without user and password: those are `headers`. */
  url: string;
  /** Sent with each request: a token, for one. */
  headers?: Readonly<Record<string, string>>;
}

/** A server of the Model Context Protocol. */
export type McpServerConfig = McpStdioServer | McpHttpServer;

const strings: Check = (value) =>
  Array.isArray(value) && value.every((each) => typeof each === 'string') ? undefined : 'an array of strings';
const COMMON: Record<string, Check> = {
  name: (value) =>
    typeof value === 'string' && /^[\w-]{1,64}$/.test(value) && !value.includes('__')
      ? undefined
      : '1 to 64 letters, digits, "-" and single "_"',
  tools: strings,
  required: boolean,
  connectTimeoutMs: integer(1),
  callTimeoutMs: integer(1),
};
const STDIO: Record<string, Check> = { ...COMMON, type: text, command: text, args: strings, env: stringMap, cwd: text };
const HTTP: Record<string, Check> = {
  ...COMMON,
  type: text,
  url: webAddress,
  headers: stringMap,
};

const OF_HTTP: Place = { names: ['url', 'headers'], where: 'to a server of `type` "http" or "sse"' };
const OF_STDIO: Place = { names: ['command', 'args', 'env', 'cwd'], where: 'to a server of `type` "stdio"' };
/** What a server of this type does not have, and those of another do. */
const OF_OTHERS = { stdio: OF_HTTP, http: OF_STDIO, sse: OF_STDIO } as const;

/** @throws HeadstartError `CONFIG_INVALID`. */
export function checkMcpServers(servers: unknown): readonly McpServerConfig[] {
  if (!Array.isArray(servers)) {
    throw invalid('Expected `mcpServers` to be an array of servers');
  }
  const names = new Set<string>();
  for (const [index, server] of (servers as McpServerConfig[]).entries()) {
    const where = `\`mcpServers[${index}]\``;
    const type = server?.type ?? 'stdio';
    if (!['stdio', 'http', 'sse'].includes(type)) {
      const hint = /http/i.test(type) ? ': did you mean "http"?' : '';
      throw invalid(`Expected \`type\` in ${where} to be "stdio", "http" or "sse", got "${type}"${hint}`);
    }
    checkOptions(server, type === 'stdio' ? STDIO : HTTP, where, 'CONFIG_INVALID', [OF_OTHERS[type]]);
    for (const needed of ['name', type === 'stdio' ? 'command' : 'url']) {
      if ((server as unknown as Record<string, unknown>)[needed] === undefined) {
        throw invalid(`Expected \`${needed}\` in ${where}`);
      }
    }
    if (names.has(server.name)) {
      throw invalid(`Expected servers with names of their own in \`mcpServers\`, "${server.name}" is there twice`);
    }
    names.add(server.name);
  }
  return servers.map((server) => Object.freeze({ ...server }));
}

function invalid(message: string): HeadstartError {
  return new HeadstartError('CONFIG_INVALID', message);
}
