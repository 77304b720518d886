// Tests MCP servers that fail, hang, die or cannot be reached.
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startAgent, temporaryDirectory } from '../helpers/agents.js';
import { failsWith } from '../helpers/errors.js';
import { call, connect, log, program, signal, stdio } from '../helpers/mcp.js';
import { serveSse, serveStreamableHttp } from '../helpers/mcp-http.js';
import { ended } from '../helpers/silent-mcp.js';
import { withEnoughTime } from '../helpers/time-limits.js';

describe('an MCP server', () => {
  it.each([
    ['fails', 'fail', /^no such file$/],
    ['throws', 'throw', /"here": its tool "throw" failed.*thrown inside/],
    ['answers with an invalid result', 'lie', /"here": its tool "lie" failed/],
  ])('that %s in a call gives an error, and is used again', async (_, name, message) => {
    const servers = await connect(stdio('here'));
    const pid = await call(servers, 'pid');
    await expect(call(servers, name)).rejects.toThrow(failsWith('MCP_FAILED', message));
    expect(await call(servers, 'pid')).toBe(pid);
  });

  it('that hangs in a call gives an error after the time limit or an abort, and is used again', async () => {
    await withEnoughTime(100, async (callTimeoutMs) => {
      const servers = await connect(stdio('here', { callTimeoutMs }));
      const pid = await call(servers, 'pid');
      await expect(call(servers, 'hang')).rejects.toThrow(failsWith('MCP_FAILED', 'its tool "hang" failed.*timed out'));
      await expect(call(servers, 'hang', {}, { signal: AbortSignal.abort() })).rejects.toThrow(failsWith('ABORTED'));
      expect(await call(servers, 'pid')).toBe(pid);
    });
  });

  it('that dies in a call gives an error, and is started again by the next call', async () => {
    const servers = await connect(stdio('here'));
    const pid = await call(servers, 'pid');
    const [before] = await servers.tools();
    await expect(call(servers, 'die')).rejects.toThrow(failsWith('MCP_FAILED', 'its tool "die" failed'));
    expect(await call(servers, 'pid')).not.toBe(pid);
    expect((await servers.tools())[0]?.name).toBe(before?.name);
    expect(log.join()).toMatch(/"here" was lost/);
  });

  it('that no longer answers, even to a ping, is ended and started again', async () => {
    await withEnoughTime(100, async (callTimeoutMs) => {
      const servers = await connect(stdio('here', { callTimeoutMs }));
      const pid = Number(await call(servers, 'pid'));
      await expect(call(servers, 'freeze')).rejects.toThrow(failsWith('MCP_FAILED'));
      expect(Number(await call(servers, 'pid'))).not.toBe(pid);
      await ended(pid);
    });
  });

  it('that never lists its tools makes the start fail', async () => {
    const { url } = await serveStreamableHttp('listless');
    await withEnoughTime(100, async (connectTimeoutMs) => {
      await expect(connect({ type: 'http', name: 'listless', url, connectTimeoutMs })).rejects.toThrow(
        failsWith('MCP_FAILED', /"listless": could not list its tools and prompts/),
      );
    });
  });

  it('with an invalid answer to `initialize` or an invalid list of tools makes the start fail', async () => {
    await expect(connect(stdio('liar'))).rejects.toThrow(
      failsWith('MCP_FAILED', /Could not connect to the MCP server "liar"/),
    );
    await expect(connect(stdio('boaster'))).rejects.toThrow(
      failsWith('MCP_FAILED', /"boaster": could not list its tools and prompts/),
    );
  });

  it('that refuses access makes the start fail with the HTTP status', async () => {
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
  ] as const)('that was restarted is reconnected, after at most one error (%s)', async (type, serve) => {
    const server = await serve('here');
    await withEnoughTime(500, async (callTimeoutMs) => {
      const servers = await connect({ type, name: 'here', url: server.url, callTimeoutMs });
      const tools = await servers.tools();
      await server.restart();
      const echo = () => tools.find(({ name }) => name === 'echo')?.execute({ text: 'again' }, { signal });
      // A request on a connection that ended is not sent again, because the server may have run it.
      expect(await echo()?.catch(echo)).toBe('again');
    });
  });

  it('that can no longer be reached keeps its tools, and works again after its restart', async () => {
    const server = await serveStreamableHttp('here');
    const servers = await connect({ type: 'http', name: 'here', url: server.url });
    const names = (await servers.tools()).map(({ name }) => name);
    await server.stop();
    await expect(call(servers, 'echo', { text: 'x' })).rejects.toThrow(failsWith('MCP_FAILED', 'here'));
    expect((await servers.tools()).map(({ name }) => name)).toEqual(names);
    await server.restart();
    expect(await call(servers, 'echo', { text: 'x' })).toBe('x');
  });

  it('that cannot be started or reached, or never answers, makes the start fail with the reason', async () => {
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

  it('that is not required and hangs at its start is not started again for each session', async () => {
    await withEnoughTime(1000, async (connectTimeoutMs) => {
      const silence = join(await temporaryDirectory(), 'silence');
      await writeFile(silence, '');
      const config = stdio('here', { args: [program, 'here', silence], required: false, connectTimeoutMs });
      const agent = await startAgent({ mcpServers: [config] });
      for (let count = 0; count < 5; count++) {
        expect(await agent.mcp.tools()).toEqual([]);
        await agent.createSession();
      }
      expect(await readFile(silence, 'utf8')).toMatch(/^\d+\n$/); // one line for each start of the server
    });
  });

  it('that is not required is left out until it can be reached', async () => {
    const server = await serveStreamableHttp('here');
    await server.stop();
    const servers = await connect({ type: 'http', name: 'here', url: server.url, required: false });
    expect(await servers.tools()).toEqual([]);
    expect(log.join()).toMatch(/Could not connect to the MCP server "here"/);
    await server.restart();
    expect((await servers.tools()).length).toBeGreaterThan(0);
  });
});
