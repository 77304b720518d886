// Real MCP servers, in child processes and over loopback HTTP.
import { readFile, realpath, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { AgentServer, McpServerConfig, Session } from 'llama-headstart';
import { McpServers, type McpStdioServer } from 'llama-headstart/internal';
import { afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { startAgent, temporaryDirectory } from '../helpers/agents.js';
import { serveSse, serveStreamableHttp } from '../helpers/mcp-http.js';
import { compileHelper } from '../helpers/processes.js';

let program = '';
const log: string[] = [];

beforeAll(async () => {
  program = await compileHelper('mcp-server');
});
afterEach(() => {
  log.length = 0;
});

const stdio = (name: string, more: Partial<McpStdioServer> = {}): McpStdioServer => ({
  name,
  command: process.execPath,
  args: [program, name],
  ...more,
});

async function connect(...configs: McpServerConfig[]): Promise<McpServers> {
  const servers = await McpServers.connect(configs, { logger: (_, line) => log.push(line) });
  onTestFinished(() => servers.close());
  return servers;
}

const { signal } = new AbortController();

/** Calls a tool by its name. */
async function call(servers: McpServers, name: string, args: object = {}, context = { signal }): Promise<string> {
  const tool = (await servers.tools()).find((each) => each.name === name);
  expect(tool, name).toBeDefined();
  return (tool as NonNullable<typeof tool>).execute(args, context);
}

const failsWith = (code: string, message: RegExp | string = '') =>
  expect.objectContaining({ name: 'HeadstartError', code, message: expect.stringMatching(message) });

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const TRANSPORTS: readonly [where: string, make: () => Promise<McpServerConfig>][] = [
  ['in a child process', async () => stdio('here')],
  [
    'over streamable HTTP',
    async () => ({ type: 'http', name: 'here', url: (await serveStreamableHttp('here')).url }) as const,
  ],
  ['over SSE', async () => ({ type: 'sse', name: 'here', url: (await serveSse('here')).url }) as const],
];

describe('MCP servers', () => {
  it.each(TRANSPORTS)('%s offer tools and prompts', async (_, make) => {
    const servers = await connect(await make());
    const echo = (await servers.tools()).find(({ name }) => name === 'echo');
    expect(echo).toMatchObject({ description: 'echo of here', server: 'here', inputSchema: { type: 'object' } });
    expect(await call(servers, 'echo', { text: 'hällo' })).toBe('hällo');
    expect(await call(servers, 'picture')).toBe('a cat\n[image, image/png, 3 bytes]\nmeow');
    expect(await servers.prompts()).toEqual([
      expect.objectContaining({ server: 'here', name: 'greet', description: 'Says hello' }),
    ]);
    expect(await servers.getPrompt({ server: 'here', name: 'greet' }, { who: 'Ada' })).toEqual([
      { role: 'user', content: 'Say hello to Ada.' },
    ]);
    await expect(servers.getPrompt(undefined as never)).rejects.toThrow(failsWith('MCP_FAILED', '"here"'));
    await expect(servers.getPrompt({ server: 'there', name: 'greet' })).rejects.toThrow(
      failsWith('MCP_FAILED', '"here"'),
    );
  });

  it.each(TRANSPORTS)('%s say that their tools changed, and are asked again', async (_, make) => {
    const servers = await connect(await make());
    const names = async () => (await servers.tools()).map(({ name }) => name);
    expect(await names()).not.toContain('learnt');
    await call(servers, 'learn');
    await vi.waitUntil(async () => (await names()).includes('learnt'), { timeout: 30_000 });
  });

  it("keep names apart: what two have, or the agent's own tools, gets its server's name in front", async () => {
    const servers = await connect(stdio('one'), stdio('two', { allowedTools: ['echo', 'only.two', 'nothing'] }));
    const names = (await servers.tools(['pid'])).map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toEqual(
      expect.arrayContaining(['one__echo', 'two__echo', 'only_one', 'only_two', 'one__pid', 'hang']),
    );
    expect(names.filter((name) => name.startsWith('two__'))).toEqual(['two__echo']);
    expect(await call(servers, 'two__echo', { text: 'x' })).toBe('x');
    expect(await call(servers, 'only_two')).toBe('two');
    expect(log.join()).toMatch(/"two" has no tools named "nothing"/);
  });

  it('keep names apart also from names that look like theirs', async () => {
    const servers = await connect(stdio('one'));
    const names = (await servers.tools(['echo', 'one__echo'])).map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toContain('one__echo_2');
    expect(await call(servers, 'pid')).toMatch(/^\d+$/);
  });

  it('that list their tools in pages are asked for all of them', async () => {
    const servers = await connect(stdio('paged'));
    const names = (await servers.tools()).map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['echo', 'hang', 'learn', 'only_paged']));
  });

  it('get the environment that is harmless, and what they are given', async () => {
    vi.stubEnv('HEADSTART_SECRET', 'secret');
    onTestFinished(() => void vi.unstubAllEnvs());
    const cwd = await realpath(await temporaryDirectory());
    const servers = await connect(stdio('here', { env: { GIVEN: 'given' }, cwd }));
    expect(await call(servers, 'environment', { text: 'HEADSTART_SECRET' })).toBe('unset');
    expect(await call(servers, 'environment', { text: 'GIVEN' })).toBe('given');
    expect(await call(servers, 'directory')).toBe(cwd);
  });

  it.each([
    ['http', serveStreamableHttp],
    ['sse', serveSse],
  ] as const)('get the headers given, with each request (%s)', async (type, serve) => {
    const server = await serve('here');
    const headers = { authorization: 'Bearer secret' };
    const servers = await connect({ type, name: 'here', url: server.url, headers });
    await call(servers, 'echo', { text: 'x' });
    expect(server.seen.length).toBeGreaterThan(3);
    expect(server.seen.every(({ authorization }) => authorization === headers.authorization)).toBe(true);
  });

  it('end with the agent, however often it is closed', async () => {
    const servers = await connect(stdio('here'));
    const pid = Number(await call(servers, 'pid'));
    const [tool] = await servers.tools();
    expect(isAlive(pid)).toBe(true);
    await Promise.all([servers.close(), servers.close()]);
    await vi.waitUntil(() => !isAlive(pid), { timeout: 30_000 });
    await expect(tool?.execute({}, { signal })).rejects.toThrow(failsWith('CLOSED'));
  });
});

describe('a server that misbehaves', () => {
  it.each([
    ['fails', 'fail', /^no such file$/],
    ['throws', 'throw', /"here": its tool "throw" failed.*thrown inside/],
    ['answers nonsense', 'lie', /"here": its tool "lie" failed/],
  ])('and %s is an error of its tool, and is used again', async (_, name, message) => {
    const servers = await connect(stdio('here'));
    const pid = await call(servers, 'pid');
    await expect(call(servers, name)).rejects.toThrow(failsWith('MCP_FAILED', message));
    expect(await call(servers, 'pid')).toBe(pid);
  });

  it('and hangs in a call is an error of its tool after a while, or at an abort', async () => {
    const servers = await connect(stdio('here', { callTimeoutMs: 100 }));
    const pid = await call(servers, 'pid');
    await expect(call(servers, 'hang')).rejects.toThrow(failsWith('MCP_FAILED', 'its tool "hang" failed.*timed out'));
    await expect(call(servers, 'hang', {}, { signal: AbortSignal.abort() })).rejects.toThrow(failsWith('ABORTED'));
    expect(await call(servers, 'pid')).toBe(pid);
  });

  it('and dies in a call is an error of its tool, and is started again for the next', async () => {
    const servers = await connect(stdio('here'));
    const pid = await call(servers, 'pid');
    const [before] = await servers.tools();
    await expect(call(servers, 'die')).rejects.toThrow(failsWith('MCP_FAILED', 'its tool "die" failed'));
    expect(await call(servers, 'pid')).not.toBe(pid);
    expect((await servers.tools())[0]?.name).toBe(before?.name);
    expect(log.join()).toMatch(/"here" is gone/);
  });

  it('and no longer answers at all is ended, and started again', async () => {
    const servers = await connect(stdio('here', { callTimeoutMs: 100 }));
    const pid = Number(await call(servers, 'pid'));
    await expect(call(servers, 'freeze')).rejects.toThrow(failsWith('MCP_FAILED'));
    expect(Number(await call(servers, 'pid'))).not.toBe(pid);
    await vi.waitUntil(() => !isAlive(pid), { timeout: 30_000 });
  });

  it('and hangs while it lists what it offers is a failure at the start', async () => {
    const { url } = await serveStreamableHttp('listless');
    await expect(connect({ type: 'http', name: 'listless', url, connectTimeoutMs: 500 })).rejects.toThrow(
      failsWith('MCP_FAILED', /"listless": could not list its tools and prompts/),
    );
  });

  it('and lies from its first answer on, or of what it offers, is a failure at the start', async () => {
    await expect(connect(stdio('liar'))).rejects.toThrow(
      failsWith('MCP_FAILED', /Could not connect to the MCP server "liar"/),
    );
    await expect(connect(stdio('boaster'))).rejects.toThrow(
      failsWith('MCP_FAILED', /"boaster": could not list its tools and prompts/),
    );
  });

  it('and lets nobody in is a failure at the start that says so', async () => {
    const server = createServer((_, response) => void response.writeHead(401).end('who are you?'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void server.close());
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
    for (const type of ['http', 'sse'] as const) {
      await expect(connect({ type, name: 'closed', url })).rejects.toThrow(failsWith('MCP_FAILED', /"closed".*401/));
    }
  });

  it.each([
    ['http', serveStreamableHttp],
    ['sse', serveSse],
  ] as const)('and was restarted is connected again, at the latest after one error (%s)', async (type, serve) => {
    const server = await serve('here');
    const servers = await connect({ type, name: 'here', url: server.url, callTimeoutMs: 2000 });
    const tools = await servers.tools();
    await server.restart();
    const echo = () => tools.find(({ name }) => name === 'echo')?.execute({ text: 'again' }, { signal });
    // Where the request went out on a connection that just then ended, it may have been acted upon: it is not sent twice.
    expect(await echo()?.catch(echo)).toBe('again');
  });

  it('and is down while a session begins keeps the tools it had', async () => {
    const server = await serveStreamableHttp('here');
    const servers = await connect({ type: 'http', name: 'here', url: server.url });
    const names = (await servers.tools()).map(({ name }) => name);
    await server.stop();
    await expect(call(servers, 'echo', { text: 'x' })).rejects.toThrow(failsWith('MCP_FAILED', 'here'));
    expect((await servers.tools()).map(({ name }) => name)).toEqual(names);
    await server.restart();
    expect(await call(servers, 'echo', { text: 'x' })).toBe('x');
  });

  it('and cannot be started is a failure at the start, with what it said; the others are ended', async () => {
    await expect(connect(stdio('here'), stdio('broken'))).rejects.toThrow(
      failsWith('MCP_FAILED', /MCP server "broken".*cannot find my configuration/),
    );
    await expect(connect({ name: 'nowhere', command: '/no/such/program' })).rejects.toThrow(
      failsWith('MCP_FAILED', 'nowhere'),
    );
    await expect(connect(stdio('silent', { connectTimeoutMs: 200 }))).rejects.toThrow(
      failsWith('MCP_FAILED', '200 ms'),
    );
    await expect(connect({ type: 'http', name: 'gone', url: 'http://127.0.0.1:9/mcp' })).rejects.toThrow(
      failsWith('MCP_FAILED', 'gone'),
    );
  });

  it('and hangs at each start does not hold up every session, where it is not required', async () => {
    const silence = join(await temporaryDirectory(), 'silence');
    await writeFile(silence, '');
    const config = stdio('here', { args: [program, 'here', silence], required: false, connectTimeoutMs: 1000 });
    const agent = await startAgent({ mcpServers: [config] });
    for (let count = 0; count < 5; count++) {
      expect(await agent.mcp.tools()).toEqual([]);
      await agent.createSession();
    }
    expect((await readFile(silence, 'utf8')).trim().split('\n')).toHaveLength(1); // it was started once
  });

  it('and is not required is left out until it is there', async () => {
    const server = await serveStreamableHttp('here');
    await server.stop();
    const servers = await connect({ type: 'http', name: 'here', url: server.url, required: false });
    expect(await servers.tools()).toEqual([]);
    expect(log.join()).toMatch(/Could not connect to the MCP server "here"/);
    await server.restart();
    expect((await servers.tools()).length).toBeGreaterThan(0);
  });
});

describe("an agent's MCP servers", () => {
  const options = { toolChoice: { name: 'echo' }, maxSteps: 1, maxTokens: 200 } as const;

  it("are every session's: their tools are called like its own, and changes reach new sessions", async () => {
    const agent = await startAgent({
      name: 'dense',
      mcpServers: [stdio('here', { allowedTools: ['echo', 'learn', 'learnt'] })],
    });
    const session = await agent.createSession();
    const [schema] = (await agent.mcp.tools()).map(({ inputSchema }) => inputSchema);
    expect(schema).toMatchObject({ properties: { text: { type: 'string' } } });
    const { toolResults } = await session.send('Hello', { ...options, sampling: { seed: 1, temperature: 1 } });
    expect(toolResults.length).toBeGreaterThan(0);
    for (const { toolName, isError } of toolResults) {
      expect({ toolName, isError }).toEqual({ toolName: 'echo', isError: false });
    }
    await call(agent.mcp, 'learn');
    await vi.waitUntil(async () => (await agent.mcp.tools()).some(({ name }) => name === 'learnt'), {
      timeout: 30_000,
    });
    const later = await agent.createSession();
    expect(later.report.templateTokens).toBeGreaterThan(session.report.templateTokens);
    expect((await agent.createSession()).report).toMatchObject({ source: 'resident', cache: 'hit' });
  });

  it('may fail in a turn: the model is told, and the next call starts them again', async () => {
    const agent = await startAgent({ mcpServers: [stdio('here', { allowedTools: ['die', 'pid'] })] });
    const session = await agent.createSession();
    const called = async (name: string) => {
      const { toolResults } = await session.send('Hello', { ...options, maxParallelTools: 1, toolChoice: { name } });
      expect(toolResults).toHaveLength(1);
      return toolResults[0];
    };
    const before = await called('pid');
    expect(before).toMatchObject({ isError: false, output: expect.stringMatching(/^\d+$/) });
    expect(await called('die')).toMatchObject({ isError: true, output: expect.stringContaining('"die" failed') });
    expect(session.messages.at(-1)).toMatchObject({ role: 'tool', content: expect.stringContaining('failed') });
    const after = await called('pid');
    expect(after).toMatchObject({ isError: false });
    expect(after?.output).not.toBe(before?.output);
  });

  it('may list tools that are none: those are left out, with a warning, and odd names are made plain', async () => {
    const agent = await startAgent({
      contextSize: 4096,
      mcpServers: [stdio('odd')],
      logger: (_, line) => log.push(line),
    });
    const session = await agent.createSession();
    for (const name of ['no_schema', 'endless', 'nnn']) {
      expect(log.join('\n')).toMatch(new RegExp(`Left out the tool "${name}.*" of the MCP server "odd"`));
    }
    const { toolResults } = await session.send('Hello', { ...options, toolChoice: { name: 'gr__e_l_ngs' } });
    expect(toolResults[0]).toMatchObject({ toolName: 'gr__e_l_ngs', isError: false });
  });

  it('stand beside tools of its own with the same name', async () => {
    const tools = [
      { name: 'echo', description: 'mine', parameters: { type: 'object', properties: {} }, execute: () => 'mine' },
    ];
    const agent = await startAgent({ tools, mcpServers: [stdio('here', { allowedTools: ['echo'] })] });
    const session = await agent.createSession();
    const { toolResults } = await session.send('Hello', { ...options, toolChoice: { name: 'echo' } });
    expect(toolResults.map(({ output }) => output)).toContain('mine');
    await expect(session.send('Hello', { toolChoice: { name: 'nothing' } })).rejects.toThrow(
      failsWith('INVALID_ARGUMENT', '"echo", "here__echo"'),
    );
  });

  it('have their tools in a restored session too, beside its own: neither runs for the other', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const pid = { name: 'pid', description: 'mine', execute: () => 'mine' };
    const { execute: _, ...silent } = pid;
    const agent = await startAgent({ mcpServers: [stdio('here', { allowedTools: ['pid', 'echo'] })] });
    const session = await agent.createSession({ tools: [pid] });
    const { key } = session.report;
    await session.save(path);
    await session.close();
    const outputs = async (restored: Session, name: string) => {
      const asked = { ...options, toolChoice: { name }, maxParallelTools: 1, sampling: { seed: 1, temperature: 1 } };
      return (await (await restored.fork()).send('Hello', asked)).toolResults.map(({ output }) => output);
    };
    for (const [given, mine] of [
      [{}, []],
      [{ tools: [pid] }, ['mine']],
      [{ tools: [silent] }, []],
    ] as const) {
      const restored = await agent.restoreSession(path, given);
      expect(restored.report.key).toBe(key);
      expect(await outputs(restored, 'pid')).toEqual(mine);
      expect(await outputs(restored, 'here__pid')).toEqual([expect.stringMatching(/^\d+$/)]);
      await restored.close();
    }
    const without = await agent.restoreSession(path, { tools: [] });
    await expect(without.send('Hello', { toolChoice: { name: 'none' } })).rejects.toThrow(
      failsWith('INVALID_ARGUMENT', /\("echo", "here__pid"\)/),
    );
    await without.close();
    const own = { name: 'here__pid', execute: () => 'mine now' };
    expect(await outputs(await agent.restoreSession(path, { tools: [own] }), 'here__pid')).toEqual(['mine now']);
  });

  it('have the tools of a saved session also where another server has their names since', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const here = stdio('here', { allowedTools: ['pid'] });
    const there = stdio('there', { allowedTools: ['pid'] });
    const openAndSave = async (agent: AgentServer) => {
      const session = await agent.createSession();
      await session.save(path);
    };
    for (const [before, now, name] of [
      [[here], [here, there], 'pid'],
      [[here, there], [here], 'here__pid'],
    ] as const) {
      await openAndSave(await startAgent({ mcpServers: before }));
      const agent = await startAgent({ mcpServers: now });
      const restored = await agent.restoreSession(path);
      const asked = { ...options, toolChoice: { name }, maxParallelTools: 1, sampling: { seed: 1, temperature: 1 } };
      const { toolResults } = await restored.send('Hello', asked);
      expect(toolResults).toMatchObject([{ toolName: name, output: expect.stringMatching(/^\d+$/) }]);
    }
  });

  it('end with it, and a start that fails ends them too', async () => {
    const agent = await startAgent({ mcpServers: [stdio('here')] });
    const pid = Number(await call(agent.mcp, 'pid'));
    await agent.close();
    await vi.waitUntil(() => !isAlive(pid), { timeout: 30_000 });
    await expect(startAgent({ mcpServers: [stdio('broken')] })).rejects.toThrow(failsWith('MCP_FAILED', 'broken'));
    await expect(startAgent({ mcpServers: [{ name: 'x' } as never] })).rejects.toThrow(
      failsWith('CONFIG_INVALID', '`command`'),
    );
  });
});

describe('the list of MCP servers', () => {
  it.each([
    [{}, 'to be an array'],
    [[{ name: 'a' }], 'Expected `command` in `mcpServers\\[0\\]`'],
    [[{ command: 'a' }], 'Expected `name`'],
    [[{ name: 'a', type: 'http' }], 'Expected `url`'],
    [[{ name: 'a', type: 'streamableHttp', url: 'http://a' }], 'did you mean "http"'],
    [[{ name: 'a__b', command: 'a' }], '`name`'],
    [[{ name: 'a', command: 'a', arguments: [] }], 'Unknown option `arguments`'],
    [[{ name: 'a', command: 'a', argss: [] }], '`argss` in `mcpServers\\[0\\]`: did you mean `args`'],
    [[{ name: 'a', command: 'a', env: ['TOKEN=secret'] }], '`env`.*to be an object of strings'],
    [[{ name: 'a', url: 'http://a' }], '`url`.*: it belongs to a server of `type` "http" or "sse"'],
    [[{ name: 'a', type: 'sse', url: 'http://a', args: [] }], '`args`.*: it belongs to a server of `type` "stdio"'],
    [
      [
        { name: 'a', command: 'a' },
        { name: 'a', command: 'b' },
      ],
      'got "a" twice',
    ],
  ])('%j is refused', async (servers, message) => {
    await expect(McpServers.connect(servers as never)).rejects.toThrow(failsWith('CONFIG_INVALID', message));
  });
});
