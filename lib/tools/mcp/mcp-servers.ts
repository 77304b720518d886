import { HeadstartError } from '../../errors.js';
import { forgivingLogger, type Logger } from '../../logger.js';
import { requireTools, ToolSet } from '../tool.js';
import { type McpServerConfig, resolveMcpServers } from './mcp-config.js';
import { McpConnection } from './mcp-connection.js';
import type { McpPromptMessage } from './mcp-content.js';
import type { McpPromptListing } from './mcp-listing.js';

/** A tool of a server. Sessions accept this form in their option `tools`. */
export interface McpTool {
  /**
   * The name that the server gives to the tool. `_` replaces every character other than letters, digits, `_` and `-`.
   * If another server or the session has a tool of the same name, the name is `server__tool`.
   */
  name: string;
  /** The description from the server. */
  description?: string;
  /** The JSON Schema of the arguments. */
  inputSchema: object;
  /** The name of the server. */
  server: string;
  /** Calls the tool. @returns the result as text @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`. */
  execute(args: unknown, context: { signal: AbortSignal }): Promise<string>;
}

/** A prompt that a server offers. */
export interface McpPrompt extends McpPromptListing {
  /** The name of the server. */
  server: string;
}

/** Maps each tool set to its extended form and the listings that are part of it. */
type Extended = WeakMap<ToolSet, { listings: readonly object[]; extended: ToolSet }>;

/** The agent's connections to servers of the Model Context Protocol. */
export class McpServers {
  readonly #connections: readonly McpConnection[];
  readonly #log: Logger;
  readonly #extended: Extended = new WeakMap();

  private constructor(connections: readonly McpConnection[], log: Logger) {
    this.#connections = connections;
    this.#log = log;
  }

  /**
   * Connects to all servers and fetches their listings. If a `required` server fails, closes all connections.
   *
   * @throws HeadstartError `CONFIG_INVALID`, `MCP_FAILED`, `ABORTED`.
   */
  static async connect(
    configs: readonly McpServerConfig[],
    options: { signal?: AbortSignal | undefined; logger?: Logger | undefined } = {},
  ): Promise<McpServers> {
    const log = forgivingLogger(options.logger ?? (() => undefined));
    const servers = new McpServers(
      resolveMcpServers(configs).map((config) => new McpConnection(config, log)),
      log,
    );
    try {
      await Promise.all(servers.#connections.map((connection) => connection.listing(options.signal)));
      return servers;
    } catch (error) {
      await servers.close();
      throw error;
    }
  }

  /**
   * Returns the current tools. Fetches a listing again if its server reported a change. Opens lost connections again.
   *
   * @param taken names that are already used, for example by a session's own tools
   * @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`.
   */
  async tools(taken: readonly string[] = [], signal?: AbortSignal): Promise<McpTool[]> {
    const byServer = await Promise.all(
      this.#connections.map(async (connection) => {
        const { tools } = await connection.listing(signal);
        return tools.map((tool) => ({ connection, tool, name: plainName(tool.name) }));
      }),
    );
    const listed = byServer.flat();
    const names = [...taken, ...listed.map(({ name }) => name)];
    const ambiguous = new Set(names.filter((name, index) => names.indexOf(name) !== index));
    const used = new Set([...taken, ...names.filter((name) => !ambiguous.has(name))]);
    return listed.map(({ connection, tool, name }) => {
      const { name: server } = connection.config;
      return {
        name: ambiguous.has(name) ? newName(`${server}__${name}`, used) : name,
        ...(tool.description !== undefined && { description: tool.description }),
        inputSchema: tool.inputSchema,
        server,
        execute: (args, { signal: called }) => connection.callTool(tool.name, args as Record<string, unknown>, called),
      };
    });
  }

  /**
   * @internal Adds the current tools of the servers to a session's own tools. Compiles schemas once for each listing.
   *   Leaves out a tool with an invalid schema.
   */
  async extend(sessionTools: ToolSet, signal?: AbortSignal): Promise<ToolSet> {
    const listings = await Promise.all(this.#connections.map((connection) => connection.listing(signal)));
    const cached = this.#extended.get(sessionTools);
    if (cached !== undefined && listings.every((listing, index) => listing === cached.listings[index])) {
      return cached.extended;
    }
    let extended = sessionTools;
    for (const tool of await this.tools(
      sessionTools.definitions.map(({ name }) => name),
      signal,
    )) {
      try {
        requireTools([tool]);
        extended = extended.with(await ToolSet.prepare([tool]));
      } catch (error) {
        this.#log(
          'warn',
          `Left out the tool "${tool.name}" of the MCP server "${tool.server}": ${(error as Error).message}`,
        );
      }
    }
    this.#extended.set(sessionTools, { listings, extended });
    return extended;
  }

  /**
   * Returns the current prompts of all servers.
   *
   * @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`.
   */
  async prompts(signal?: AbortSignal): Promise<McpPrompt[]> {
    const byServer = await Promise.all(
      this.#connections.map(async (connection) => {
        const { prompts } = await connection.listing(signal);
        return prompts.map((prompt) => ({ ...prompt, server: connection.config.name }));
      }),
    );
    return byServer.flat();
  }

  /**
   * Returns the messages of a prompt, filled in with arguments by the server.
   *
   * @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`.
   */
  async getPrompt(
    prompt: { server: string; name: string },
    args: Record<string, string> = {},
    signal?: AbortSignal,
  ): Promise<McpPromptMessage[]> {
    const { server, name } = prompt ?? {};
    const connection = this.#connections.find(({ config }) => config.name === server);
    if (connection === undefined) {
      const names = this.#connections.map(({ config }) => `"${config.name}"`).join(', ') || 'none';
      throw new HeadstartError('MCP_FAILED', `Expected one of the MCP servers (${names}), got "${server}"`);
    }
    return connection.getPrompt(name, args, signal);
  }

  /** @internal Ends the child processes and connections of all servers. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.close()));
  }
}

/**
 * Makes a name unique by adding a number. The name may be in use, because a server may have two tools of the same name,
 * or a tool called `other__tool`.
 */
function newName(wanted: string, used: Set<string>): string {
  let name = wanted;
  for (let count = 2; used.has(name); count++) {
    name = `${wanted}_${count}`;
  }
  used.add(name);
  return name;
}

/** Replaces characters, so that every chat template and every call format can write the name. */
function plainName(name: string): string {
  return name.replace(/[^\w-]/g, '_');
}
