// An MCP server in a child process. A test can make the server stop answering. Then the package must end the process.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { AgentServer } from 'llama-headstart';
import type { McpStdioServer } from 'llama-headstart/internal';
import { vi } from 'vitest';
import { temporaryDirectory } from './agents.js';
import { compileHelper } from './processes.js';

/** A time limit for tests that hang. It is much longer than any process needs. */
const TIMEOUT = { timeout: 60_000 };

export interface SilentMcp {
  /** The entry for `mcpServers`. The server has the tools `hang`, `die`, `pid` and `freeze`. */
  server: McpStdioServer;
  /** Makes the server silent: processes of the server that start after this call answer no request. */
  silence(): Promise<void>;
  /** Waits for the first silent process, and resolves with the ids of all silent processes. */
  silentPids(): Promise<number[]>;
  /** If this file exists, a new process of the server is silent. Each process has the path in its command line. */
  file: string;
}

export async function silentMcp(options: Partial<McpStdioServer> = {}): Promise<SilentMcp> {
  const file = join(await temporaryDirectory(), 'silence');
  const read = () => readFile(file, 'utf8').catch(() => '');
  return {
    file,
    server: {
      name: 'here',
      command: process.execPath,
      args: [await compileHelper('mcp-server'), 'here', file],
      allowedTools: ['hang', 'die', 'pid', 'freeze'],
      connectTimeoutMs: 600_000, // so that only an abort or `close()` ends a connection attempt
      ...options,
    },
    silence: () => writeFile(file, ''),
    silentPids: async () => {
      await vi.waitUntil(async () => (await read()) !== '', TIMEOUT);
      return (await read()).trim().split('\n').map(Number);
    },
  };
}

/** Calls a tool of an agent's MCP server. */
export async function callTool(agent: AgentServer, name: string): Promise<string> {
  const tool = (await agent.mcp.tools()).find((candidate) => candidate.name === name);
  return (await tool?.execute({}, { signal: new AbortController().signal })) as string;
}

export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Resolves when the processes have ended. */
export async function ended(...pids: number[]): Promise<void> {
  await vi.waitUntil(() => !pids.some(isAlive), TIMEOUT);
}
