// Tests real MCP servers, in child processes and over loopback HTTP.
import { realpath } from 'node:fs/promises';
import { McpServers } from 'llama-headstart/internal';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { failsWith } from '../helpers/errors.js';
import { call, connect, log, signal, stdio, TRANSPORTS } from '../helpers/mcp.js';
import { serveSse, serveStreamableHttp } from '../helpers/mcp-http.js';
import { ended, isAlive } from '../helpers/silent-mcp.js';

describe('an MCP server', () => {
  it.each(TRANSPORTS)('offers tools and prompts %s', async (_, make) => {
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

  it.each(TRANSPORTS)('that reports a change has its tools listed again (%s)', async (_, make) => {
    const servers = await connect(await make());
    const names = async () => (await servers.tools()).map(({ name }) => name);
    expect(await names()).not.toContain('learned');
    await call(servers, 'learn');
    await vi.waitUntil(async () => (await names()).includes('learned'), { timeout: 30_000 });
  });

  it('has its name in front of tool names that another server or the agent also uses', async () => {
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

  it('has a number at the end of a tool name if its own name in front does not make the name unique', async () => {
    const servers = await connect(stdio('one'));
    const names = (await servers.tools(['echo', 'one__echo'])).map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toContain('one__echo_2');
    expect(await call(servers, 'pid')).toMatch(/^\d+$/);
  });

  it('may list its tools in pages', async () => {
    const servers = await connect(stdio('paged'));
    const names = (await servers.tools()).map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['echo', 'hang', 'learn', 'only_paged']));
  });

  it('gets the configured environment variables and working directory, but no secrets of the environment', async () => {
    vi.stubEnv('HEADSTART_SECRET', 'secret');
    onTestFinished(() => void vi.unstubAllEnvs());
    const cwd = await realpath(await temporaryDirectory());
    const servers = await connect(stdio('here', { env: { CONFIGURED: 'yes' }, cwd }));
    expect(await call(servers, 'environment', { text: 'HEADSTART_SECRET' })).toBe('unset');
    expect(await call(servers, 'environment', { text: 'CONFIGURED' })).toBe('yes');
    expect(await call(servers, 'directory')).toBe(cwd);
  });

  it.each([
    ['http', serveStreamableHttp],
    ['sse', serveSse],
  ] as const)('gets the configured headers with each request (%s)', async (type, serve) => {
    const server = await serve('here');
    const headers = { authorization: 'Bearer secret' };
    const servers = await connect({ type, name: 'here', url: server.url, headers });
    await call(servers, 'echo', { text: 'x' });
    expect(server.seen.length).toBeGreaterThan(3);
    expect(server.seen.every(({ authorization }) => authorization === headers.authorization)).toBe(true);
  });

  it('ends when its connection is closed, even if the connection is closed twice', async () => {
    const servers = await connect(stdio('here'));
    const pid = Number(await call(servers, 'pid'));
    const [tool] = await servers.tools();
    expect(isAlive(pid)).toBe(true);
    await Promise.all([servers.close(), servers.close()]);
    await ended(pid);
    await expect(tool?.execute({}, { signal })).rejects.toThrow(failsWith('CLOSED'));
  });
});

describe('the option `mcpServers`', () => {
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
  ])('is refused if it is %j', async (servers, message) => {
    await expect(McpServers.connect(servers as never)).rejects.toThrow(failsWith('CONFIG_INVALID', message));
  });
});
