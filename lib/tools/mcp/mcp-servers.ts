import { HeadstartError } from '../../errors.js';
import { forgivingLogger, type Logger } from '../../logger.js';
import { requireTools, ToolSet } from '../tool.js';
import { type McpServerConfig, resolveMcpServers } from './mcp-config.js';
import { McpConnection } from './mcp-connection.js';
import type { McpPromptMessage } from './mcp-content.js';
import type { McpPromptListing } from './mcp-listing.js';

/** A tool of a server, as sessions take them. */
export interface McpTool {
  /**
   * The server's name for it, with `_` for all but letters, digits, `_` and `-`; `server__tool` where another server has that name
   * too, or whoever asks.
   */
  name: string;
  /** What it does, as the server says. */
  description?: string;
  /** JSON Schema of its arguments. */
  inputSchema: object;
  /** Its server's name. */
  server: string;
  /** Calls it. @returns its result, as text @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`. */
  execute(args: unknown, context: { signal: AbortSignal }): Promise<string>;
}

/** A prompt that a server offers. */
export interface McpPrompt extends McpPromptListing {
  /** Its server's name. */
  server: string;
}

/** Tool sets that were extended, with the listings that they are of. */
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
   * Connects to all of them, and asks what they offer.
   *
   * @throws HeadstartError `CONFIG_INVALID`; `MCP_FAILED` when one that is `required` cannot be had: the others are closed
   *   again; `ABORTED`.
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
   * The tools that there are now: servers that said that their list changed are asked again, and those that went away are
   * connected again.
   *
   * @param taken names that others have: a session's own tools, for one
   * @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`.
   */
  async tools(taken: readonly string[] = [], signal?: AbortSignal): Promise<McpTool[]> {
    const found = await Promise.all(
      this.#connections.map(async (connection) => {
        const { tools } = await connection.listing(signal);
        return tools.map((tool) => ({ connection, tool, name: plainName(tool.name) }));
      }),
    );
    const listed = found.flat();
    const names = [...taken, ...listed.map(({ name }) => name)];
    const ambiguous = new Set(names.filter((name, index) => names.indexOf(name) !== index));
    const given = new Set([...taken, ...names.filter((name) => !ambiguous.has(name))]);
    return listed.map(({ connection, tool, name }) => {
      const { name: server } = connection.config;
      return {
        name: ambiguous.has(name) ? newName(`${server}__${name}`, given) : name,
        ...(tool.description !== undefined && { description: tool.description }),
        inputSchema: tool.inputSchema,
        server,
        execute: (args, { signal: called }) => connection.callTool(tool.name, args as Record<string, unknown>, called),
      };
    });
  }

  /**
   * @internal A session's own tools, and those of the servers now. Schemas are compiled once for each listing. A tool whose
   * schema is none is left out.
   */
  async extend(own: ToolSet, signal?: AbortSignal): Promise<ToolSet> {
    const listings = await Promise.all(this.#connections.map((connection) => connection.listing(signal)));
    const known = this.#extended.get(own);
    if (known !== undefined && listings.every((listing, index) => listing === known.listings[index])) {
      return known.extended;
    }
    let extended = own;
    for (const each of await this.tools(
      own.definitions.map(({ name }) => name),
      signal,
    )) {
      try {
        requireTools([each]);
        extended = extended.with(await ToolSet.prepare([each]));
      } catch (error) {
        this.#log(
          'warn',
          `Left out the tool "${each.name}" of the MCP server "${each.server}": ${(error as Error).message}`,
        );
      }
    }
    this.#extended.set(own, { listings, extended });
    return extended;
  }

  /**
   * The prompts that there are now, of all servers.
   *
   * @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`.
   */
  async prompts(signal?: AbortSignal): Promise<McpPrompt[]> {
    const found = await Promise.all(
      this.#connections.map(async (connection) => {
        const { prompts } = await connection.listing(signal);
        return prompts.map((prompt) => ({ ...prompt, server: connection.config.name }));
      }),
    );
    return found.flat();
  }

  /**
   * A server's prompt, filled in.
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
      const known = this.#connections.map(({ config }) => `"${config.name}"`).join(', ') || 'none';
      throw new HeadstartError('MCP_FAILED', `Expected one of the MCP servers (${known}), got "${server}"`);
    }
    return connection.getPrompt(name, args, signal);
  }

  /** @internal Ends all servers' processes and connections. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.close()));
  }
}

/** A server may list a name twice, or one that looks like another's longer one: then it is counted. */
function newName(wanted: string, given: Set<string>): string {
  let name = wanted;
  for (let count = 2; given.has(name); count++) {
    name = `${wanted}_${count}`;
  }
  given.add(name);
  return name;
}

/** What every chat template and every model's call format can carry. */
function plainName(name: string): string {
  return name.replace(/[^\w-]/g, '_');
}
