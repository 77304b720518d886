// The transport to a server: the standard streams of a child process, or HTTP. The MCP client is loaded only if servers
// are configured.
import type { Client } from '@modelcontextprotocol/client';
import { HeadstartError } from '../../errors.js';
import type { ResolvedMcpServer } from './mcp-config.js';
import { MAX_MESSAGE_BYTES } from './mcp-lines.js';
import { fetchMessages, StdioMessages } from './mcp-reading.js';

/** The longest line in the log, in characters. Longer lines are cut. */
const MAX_LINE_LENGTH = 1000;

type Transport = Parameters<Client['connect']>[0];

/** @throws HeadstartError `MCP_FAILED` if the package is not installed. */
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

/**
 * @param onLine is called with each line of a child's standard error, and with each line of its standard output that is
 *   not a message
 */
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
  // The SDK has no option for its buffer, so set the private field. If a later SDK renames this field, invalid messages
  // are refused, and everything else still works.
  Reflect.set(transport, '_readBuffer', new StdioMessages(onText));
  transport.stderr?.on('data', (chunk: Buffer) => chunk.toString('utf8').split('\n').forEach(onText));
  return transport;
}
