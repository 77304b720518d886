// Connects to MCP servers whose answers break the protocol, in child processes and over loopback HTTP.

import type { McpServerConfig } from 'llama-headstart';
import { McpServers } from 'llama-headstart/internal';
import { expect, onTestFinished } from 'vitest';
import { serveOddHttp, serveOddSse } from './mcp-http.js';
import type { Answers } from './odd-mcp-server.js';
import { compileHelper } from './processes.js';

export type Serve = (answers: Answers) => Promise<McpServerConfig>;

let program: Promise<string> | undefined;

export const inChild: Serve = async (answers) => {
  program ??= compileHelper('odd-mcp-server');
  return { name: 'odd', command: process.execPath, args: [await program, JSON.stringify(answers)] };
};

const overHttp =
  (type: Parameters<typeof serveOddHttp>[1]): Serve =>
  async (answers) => ({ type: 'http', name: 'odd', url: (await serveOddHttp(answers, type)).url });

/** This transport starts faster than the other transports. */
export const overHttpJson = overHttp('application/json');

export const TRANSPORTS: readonly [where: string, serve: Serve][] = [
  ['in a child process', inChild],
  ['over HTTP with JSON', overHttpJson],
  ['over HTTP with event streams', overHttp('text/event-stream')],
  ['over SSE', async (answers) => ({ type: 'sse', name: 'odd', url: (await serveOddSse(answers)).url })],
];

/** Connects to a server. Returns the connection, and a list to which later warnings are added. */
export async function connectOdd(serve: Serve, answers: Answers): Promise<{ servers: McpServers; warnings: string[] }> {
  const warnings: string[] = [];
  const logger = (level: string, line: string) => void (level === 'warn' && warnings.push(line));
  const servers = await McpServers.connect([await serve(answers)], { logger });
  onTestFinished(() => servers.close());
  return { servers, warnings };
}

/** Calls a tool by its name. */
export async function callTool(servers: McpServers, name: string): Promise<string> {
  const tool = (await servers.tools()).find((each) => each.name === name);
  expect(tool, name).toBeDefined();
  return (tool as NonNullable<typeof tool>).execute({}, new AbortController());
}

export const NO_ARGUMENTS = { type: 'object', properties: {} };
/** A correct entry of a list of tools. */
export const good = { name: 'good', inputSchema: NO_ARGUMENTS };
export const textContent = (text: string) => ({ type: 'text', text });
