// An MCP server that speaks JSON-RPC itself, so that it can answer what the SDK's server refuses to send. Its answers
// are given as JSON: over stdio as the program's argument (`node odd-mcp-server.js ANSWERS`), over HTTP by
// `serveOddHttp`.
import { argv, pid, stdin, stdout } from 'node:process';
import { createInterface } from 'node:readline';

/**
 * The result for a method; `METHOD NAME` goes first, for a tool, prompt or cursor of that name. `{ $message }` is the
 * whole message without its id, `{ $json }` the JSON of a result, `{ $errorJson }` that of an error, `{ $text }` stands
 * for a text of so many characters, `{ $pid }` for a tool's result with the process's id, `{ $endless }` for a page
 * with a tool and the next cursor, `{ $lines }` are written first. A method without an answer is not found.
 */
export type Answers = Record<string, unknown>;

interface Special {
  $message?: object;
  $json?: string;
  $errorJson?: string;
  $text?: number;
  $pid?: true;
  $endless?: true;
  $lines?: string[];
}

interface Request {
  id?: number;
  method: string;
  params?: { name?: string; cursor?: unknown; protocolVersion?: string };
}

/** @returns the lines to write, or undefined for a notification */
export function answerTo(answers: Answers, { id, method, params }: Request): string[] | undefined {
  if (id === undefined) {
    return undefined;
  }
  const usual: Answers = {
    initialize: {
      protocolVersion: params?.protocolVersion,
      capabilities: { tools: {}, prompts: {} },
      serverInfo: { name: 'odd', version: '1.0.0' },
    },
    ping: {},
    'prompts/list': { prompts: [] },
  };
  const all = { ...usual, ...answers };
  const key = [`${method} ${params?.name ?? params?.cursor}`, method].find((each) => each in all);
  if (key === undefined) {
    return [JSON.stringify({ jsonrpc: '2.0', id, error: { code: -32601, message: 'Method not found' } })];
  }
  const answer = all[key];
  const { $message, $json, $errorJson, $text, $pid, $endless, $lines = [] } = (answer ?? {}) as Special;
  if ($message !== undefined) {
    return [...$lines, JSON.stringify({ ...$message, id })];
  }
  if ($json !== undefined) {
    return [`{"jsonrpc":"2.0","id":${id},"result":${$json}}`];
  }
  if ($errorJson !== undefined) {
    return [`{"jsonrpc":"2.0","id":${id},"error":${$errorJson}}`];
  }
  if ($endless) {
    const page = Number(params?.cursor ?? 1);
    const result = { tools: [{ name: `tool${page}` }], nextCursor: page + 1 };
    return [JSON.stringify({ jsonrpc: '2.0', id, result })];
  }
  const text = $pid ? String(pid) : $text !== undefined && 'x'.repeat($text);
  const result = text === false ? answer : { content: [{ type: 'text', text }] };
  const version = (result as { protocolVersion?: unknown } | null)?.protocolVersion;
  const greeting = method === 'initialize' && version === undefined && { protocolVersion: params?.protocolVersion };
  return [
    ...$lines,
    JSON.stringify({ jsonrpc: '2.0', id, result: greeting ? { ...greeting, ...(result as object) } : result }),
  ];
}

if (argv[1]?.endsWith('odd-mcp-server.js')) {
  const answers = JSON.parse(argv[2] ?? '{}') as Answers;
  for await (const line of createInterface(stdin)) {
    for (const each of answerTo(answers, JSON.parse(line)) ?? []) {
      stdout.write(`${each}\n`);
    }
  }
}
