// An MCP server that writes JSON-RPC without the SDK, so that it can send answers that the SDK's server refuses to
// send. As a program on stdio (`node odd-mcp-server.js ANSWERS`), the server takes its answers as a JSON argument.
// Tests serve it over HTTP with `serveOddHttp` and `serveOddSse`.
import { argv, pid, stdin, stdout } from 'node:process';
import { createInterface } from 'node:readline';

/**
 * The result for each method. A key `METHOD NAME` answers only requests for the tool, prompt or cursor of that name,
 * and takes precedence over `METHOD`. A request without an answer gets the error "Method not found". An answer may also
 * be a {@link SpecialAnswer}.
 */
export type Answers = Record<string, unknown>;

/** An answer that is more than a plain result. */
interface SpecialAnswer {
  /** The whole message except its id. */
  $message?: object;
  /** The JSON text of the result. */
  $json?: string;
  /** The JSON text of the error. */
  $errorJson?: string;
  /** The result of a tool: a text of this number of characters. */
  $text?: number;
  /** The result of a tool: the id of the process. */
  $pid?: true;
  /** A page with one tool, and a cursor to another such page. */
  $endless?: true;
  /** Lines that are written in front of the answer. */
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
  const { $message, $json, $errorJson, $text, $pid, $endless, $lines = [] } = (answer ?? {}) as SpecialAnswer;
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
