// A real MCP server. Some of its tools fail in different ways. The server runs over stdio as a program
// (`node mcp-server.js NAME [FILE]`), or a test serves it over HTTP. NAME is the server's name. Some names select a
// fault of the whole server. If FILE exists, the server answers no request and appends its process id to the file.
import { appendFileSync, existsSync } from 'node:fs';
import { argv, cwd, env, exit, pid, stderr, stdin, stdout } from 'node:process';
import { createInterface } from 'node:readline';
import { Server } from '@modelcontextprotocol/server';
import { StdioServerTransport } from '@modelcontextprotocol/server/stdio';

const anything = { type: 'object' as const, properties: { text: { type: 'string' } } };

/** The server's tools: functions that return the result of a call, by name. */
const TOOLS: Record<string, (args: { text?: string }, requestId: unknown) => unknown> = {
  echo: ({ text = '' }) => ({ content: [{ type: 'text', text }] }),
  pid: () => ({ content: [{ type: 'text', text: String(pid) }] }),
  directory: () => ({ content: [{ type: 'text', text: cwd() }] }),
  environment: ({ text = '' }) => ({ content: [{ type: 'text', text: env[text] ?? 'unset' }] }),
  picture: () => ({
    content: [
      { type: 'text', text: 'a cat' },
      { type: 'image', data: 'AAAA', mimeType: 'image/png' },
      { type: 'resource', resource: { uri: 'file:///cat.txt', text: 'meow' } },
    ],
  }),
  fail: () => ({ isError: true, content: [{ type: 'text', text: 'no such file' }] }),
  throw: () => {
    throw new Error('thrown inside');
  },
  hang: () => new Promise(() => {}),
  freeze: () => {
    for (;;); // the server does not even answer a ping
  },
  die: () => exit(3),
  lie: (_, id) => {
    stdout.write(`this is no JSON\n${JSON.stringify({ jsonrpc: '2.0', id })}\n`);
    return new Promise(() => {});
  },
};

/** Tools with unusable schemas or unusual names. */
const ODD = [
  { name: 'no schema', inputSchema: { type: 'object' as const, properties: { a: { type: 'color' } } } },
  {
    name: 'endless',
    inputSchema: { type: 'object' as const, properties: { a: { $ref: '#/properties/a' } }, required: ['a'] },
  },
  { name: 'n'.repeat(300), inputSchema: anything },
  { name: 'größe/längs', inputSchema: anything },
];

export function makeServer(name: string): Server {
  const capabilities = { tools: { listChanged: true }, prompts: {} };
  const server = new Server({ name, version: '1.0.0' }, { capabilities });
  const names = [...Object.keys(TOOLS), 'learn', `only.${name}`];
  server.setRequestHandler('tools/list', async ({ params }) => {
    if (name === 'listless') {
      await new Promise(() => {});
    }
    const tools = names.map((tool) => ({ name: tool, description: `${tool} of ${name}`, inputSchema: anything }));
    if (name === 'odd') {
      return { tools: [...tools, ...ODD] };
    }
    const from = Number(params?.cursor ?? 0);
    return name !== 'paged' || from + 5 >= tools.length
      ? { tools: tools.slice(from) }
      : { tools: tools.slice(from, from + 5), nextCursor: String(from + 5) };
  });
  server.setRequestHandler('tools/call', async ({ params }, context) => {
    if (params.name === 'learn') {
      names.push('learned');
      await server.sendToolListChanged();
      return { content: [] };
    }
    const tool = TOOLS[params.name];
    return (tool?.(params.arguments ?? {}, context.mcpReq.id) ?? { content: [{ type: 'text', text: name }] }) as {
      content: [];
    };
  });
  server.setRequestHandler('prompts/list', async () => ({
    prompts: [{ name: 'greet', description: 'Says hello', arguments: [{ name: 'who', required: true }] }],
  }));
  server.setRequestHandler('prompts/get', async ({ params }) => ({
    messages: [{ role: 'user', content: { type: 'text', text: `Say hello to ${params.arguments?.who}.` } }],
  }));
  return server;
}

/**
 * Answers every request with an invalid result. The server `boaster` answers the first request, `initialize`,
 * correctly.
 */
async function lie(name: string): Promise<void> {
  const invalid = { protocolVersion: 7, tools: 'all of them' };
  for await (const line of createInterface(stdin)) {
    const { id, method, params } = JSON.parse(line);
    const { protocolVersion } = params ?? {};
    const initialized = { protocolVersion, capabilities: { tools: {} }, serverInfo: { name, version: '1.0.0' } };
    const result = name === 'boaster' && method === 'initialize' ? initialized : invalid;
    if (id !== undefined) {
      stdout.write(`${JSON.stringify({ jsonrpc: '2.0', id, result })}\n`);
    }
  }
}

if (argv[1]?.endsWith('mcp-server.js')) {
  if (argv[2] === 'broken') {
    stderr.write('cannot find my configuration\n');
    exit(1);
  }
  if (argv[2] === 'liar' || argv[2] === 'boaster') {
    await lie(argv[2]);
  }
  const silentIfExists = argv[3];
  if (silentIfExists !== undefined && existsSync(silentIfExists)) {
    appendFileSync(silentIfExists, `${pid}\n`);
    stdin.resume(); // the server ends when stdin ends
  } else if (argv[2] !== 'silent') {
    await makeServer(argv[2] ?? 'server').connect(new StdioServerTransport());
  } else {
    setInterval(() => {}, 1000);
  }
}
