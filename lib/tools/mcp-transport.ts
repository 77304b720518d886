// The way to a server: a child process's standard streams, or HTTP. The client is loaded only where there are servers.
import type { Client } from '@modelcontextprotocol/client';
import { HeadstartError } from '../errors.js';
import type { McpServerConfig } from './mcp-config.js';

type Transport = Parameters<Client['connect']>[0];

/** @throws HeadstartError `MCP_FAILED` where the package is not installed. */
export async function loadClient(): Promise<typeof import('@modelcontextprotocol/client')> {
  try {
    return await import('@modelcontextprotocol/client');
  } catch (cause) {
    throw new HeadstartError(
      'MCP_FAILED',
      '`mcpServers` needs the package @modelcontextprotocol/client: run `npm install @modelcontextprotocol/client`',
      { cause },
    );
  }
}

/** @param onLine gets what a child process writes to its standard error */
export async function makeTransport(config: McpServerConfig, onLine: (line: string) => void): Promise<Transport> {
  if ('url' in config) {
    const { StreamableHTTPClientTransport, SSEClientTransport } = await loadClient();
    const Transport = config.type === 'http' ? StreamableHTTPClientTransport : SSEClientTransport;
    return new Transport(new URL(config.url), { requestInit: { headers: { ...config.headers } } });
  }
  const { StdioClientTransport, getDefaultEnvironment } = await import('@modelcontextprotocol/client/stdio');
  const { command, args = [], env, cwd } = config;
  const transport = new StdioClientTransport({
    command,
    args: [...args],
    env: { ...getDefaultEnvironment(), ...env },
    stderr: 'pipe',
    ...(cwd !== undefined && { cwd }),
  });
  transport.stderr?.on('data', (chunk: Buffer) => {
    for (const line of chunk
      .toString('utf8')
      .split('\n')
      .filter((each) => each.trim() !== '')) {
      onLine(line.slice(0, 1000));
    }
  });
  return transport;
}
