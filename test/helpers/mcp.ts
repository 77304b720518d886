// Connects to the MCP server of mcp-server.ts, in child processes and over loopback HTTP.
import type { McpServerConfig } from 'llama-headstart';
import { McpServers, type McpStdioServer } from 'llama-headstart/internal';
import { afterEach, expect, onTestFinished } from 'vitest';
import { serveSse, serveStreamableHttp } from './mcp-http.js';
import { compileHelper } from './processes.js';

/** The path of the compiled server. */
export const program = await compileHelper('mcp-server');

/** The lines that were logged in the current test. */
export const log: string[] = [];
afterEach(() => {
  log.length = 0;
});

/** Returns the configuration of a server in a child process. */
export const stdio = (name: string, more: Partial<McpStdioServer> = {}): McpStdioServer => ({
  name,
  command: process.execPath,
  args: [program, name],
  ...more,
});

/** Connects to servers. The connections are closed when the test ends. */
export async function connect(...configs: McpServerConfig[]): Promise<McpServers> {
  const servers = await McpServers.connect(configs, { logger: (_, line) => log.push(line) });
  onTestFinished(() => servers.close());
  return servers;
}

export const { signal } = new AbortController();

/** Calls a tool by its name. */
export async function call(
  servers: McpServers,
  name: string,
  args: object = {},
  context = { signal },
): Promise<string> {
  const tool = (await servers.tools()).find((each) => each.name === name);
  expect(tool, name).toBeDefined();
  return (tool as NonNullable<typeof tool>).execute(args, context);
}

/** For each transport: a title, and a function that returns a configuration for the server `here`. */
export const TRANSPORTS: readonly [where: string, make: () => Promise<McpServerConfig>][] = [
  ['in a child process', async () => stdio('here')],
  [
    'over streamable HTTP',
    async () => ({ type: 'http', name: 'here', url: (await serveStreamableHttp('here')).url }) as const,
  ],
  ['over SSE', async () => ({ type: 'sse', name: 'here', url: (await serveSse('here')).url }) as const],
];
