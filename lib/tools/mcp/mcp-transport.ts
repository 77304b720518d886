// The way to a server: a child process's standard streams, or HTTP. The client is loaded only where there are servers.
import type { Client } from '@modelcontextprotocol/client';
import { HeadstartError } from '../../errors.js';
import type { ResolvedMcpServer } from './mcp-config.js';
import { MAX_MESSAGE_BYTES } from './mcp-lines.js';
import { fetchMessages, StdioMessages } from './mcp-reading.js';

/** Of a log, in characters: the rest of a longer one is cut off. */
const MAX_LINE_LENGTH = 1000;

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

/** @param onLine gets what a child process writes to its standard error, and what it writes beside its messages */
export async function makeTransport(config: ResolvedMcpServer, onLine: (line: string) => void): Promise<Transport> {
  if ('url' in config) {
    const { StreamableHTTPClientTransport, SSEClientTransport } = await loadClient();
    const Transport = config.type === 'http' ? StreamableHTTPClientTransport : SSEClientTransport;
    return new Transport(new URL(config.url), {
      requestInit: { headers: { ...config.headers } },
      fetch: fetchMessages,
    });
  }
  const { StdioClientTransport, getDefaultEnvironment } = await import('@modelcontextprotocol/client/stdio');
  const { command, args = [], env, cwd } = config;
  const transport = new StdioClientTransport({
    command,
    args: [...args],
    env: { ...getDefaultEnvironment(), ...env },
    stderr: 'pipe',
    maxBufferSize: MAX_MESSAGE_BYTES,
    ...(cwd !== undefined && { cwd }),
  });
  const onText = (line: string) => line.trim() !== '' && onLine(line.slice(0, MAX_LINE_LENGTH));
  // The SDK has no option for this. If it renames the field, odd messages are refused again, and all else works.
  Reflect.set(transport, '_readBuffer', new StdioMessages(onText));
  transport.stderr?.on('data', (chunk: Buffer) => chunk.toString('utf8').split('\n').forEach(onText));
  return transport;
}
