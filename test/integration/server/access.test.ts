// Who may call the server, and what it refuses before it reads a request.
import { request } from 'node:http';
import { createHandler, listen } from 'llama-headstart/server';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../../helpers/agents.js';
import { codeOf } from '../../helpers/native.js';
import { eventsOf, startServer, type TestServer } from '../../helpers/server.js';

const body = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 };

const TWO_TENANTS = {
  apiKeys: [
    { key: 'one', tenant: 'a' },
    { key: 'two', tenant: 'b' },
  ],
};

/** Sends a request with headers that `fetch` does not allow. */
function statusWith({ url }: TestServer, headers: Record<string, string>): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    request(`${url}/v1/models`, { headers }, (response) => resolve(response.resume().statusCode))
      .on('error', reject)
      .end();
  });
}

describe('access to the server', () => {
  it('listens on loopback only, unless there are API keys', async () => {
    const agent = await startAgent();
    expect(await codeOf(() => listen(createHandler(agent), { host: '0.0.0.0', port: 0 }))).toBe('CONFIG_INVALID');
    const handler = createHandler(agent, { apiKeys: [{ key: 'secret' }] });
    await (await listen(handler, { host: '0.0.0.0', port: 0 })).close();
  });

  it('needs a known key, in either header', async () => {
    const server = await startServer({}, TWO_TENANTS);
    expect((await server.get('/v1/models')).status).toBe(401);
    expect((await server.get('/v1/models', { headers: { authorization: 'Bearer wrong' } })).status).toBe(401);
    expect((await server.get('/v1/models', { headers: { authorization: 'bearer one' } })).status).toBe(200);
    expect((await server.get('/v1/models', { headers: { 'x-api-key': 'two' } })).status).toBe(200);
  });

  it('keeps the cached tokens of the keys of different tenants apart', async () => {
    const server = await startServer({}, TWO_TENANTS);
    const cached = async (key: string) => {
      const response = await server.post('/v1/chat/completions', body, { headers: { 'x-api-key': key } });
      return ((await response.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } }).usage
        .prompt_tokens_details.cached_tokens;
    };
    expect(await cached('one')).toBe(0);
    expect(await cached('one')).toBeGreaterThan(0);
    expect(await cached('two')).toBe(0);
  });

  it('refuses other hosts and the web pages of other origins', async () => {
    const server = await startServer({}, { allowedOrigins: ['https://chat.example'] });
    expect(await statusWith(server, { host: 'evil.example' })).toBe(403);
    expect(await statusWith(server, { host: `localhost:${server.port}` })).toBe(200);
    expect(await statusWith(server, { origin: 'https://evil.example' })).toBe(403);
    expect(await statusWith(server, { 'sec-fetch-site': 'cross-site' })).toBe(403);
    expect(await statusWith(server, { origin: 'https://chat.example', 'sec-fetch-site': 'cross-site' })).toBe(200);
    const preflight = await server.get('/v1/models', {
      method: 'OPTIONS',
      headers: { origin: 'https://chat.example' },
    });
    expect(preflight.headers.get('access-control-allow-origin')).toBe('https://chat.example');
  });

  it('refuses bodies that are not JSON, encoded or too large', async () => {
    const server = await startServer({}, { maxBodyBytes: 1000 });
    const status = async (sent: unknown, headers: Record<string, string> = {}) =>
      (await server.post('/v1/chat/completions', sent, { headers })).status;
    expect(await status('{"messages":')).toBe(400);
    expect(await status(body, { 'content-type': 'text/plain' })).toBe(415);
    expect(await status(body, { 'content-encoding': 'gzip' })).toBe(415);
    expect(await status({ ...body, padding: 'x'.repeat(2000) })).toBe(413);
    expect(await status('['.repeat(900))).toBe(400);
    expect(await status({ ...body, messages: 'Hi' })).toBe(400);
    expect(await status({ messages: [] })).toBe(400);
    expect(await status({ ...body, temperature: 'hot' })).toBe(400);
    expect(await status(body)).toBe(200);
  });

  it('answers 429 with Retry-After when too many requests are in progress', async () => {
    const server = await startServer({}, { maxRequests: 1 });
    expect((await server.post('/v1/chat/completions', { messages: [{ role: 'pilot' }] })).status).toBe(400);
    const first = await server.post('/v1/chat/completions', { ...body, max_tokens: 500, stream: true });
    const second = await server.post('/v1/chat/completions', body);
    expect(second.status).toBe(429);
    expect(second.headers.get('retry-after')).toBe('5');
    await first.body?.cancel();
    await expect.poll(async () => (await server.post('/v1/chat/completions', body)).status).toBe(200);
  });

  it('answers unknown paths with 404', async () => {
    const server = await startServer();
    expect((await server.get('/v1/nothing')).status).toBe(404);
    for (const path of ['/', '/api/hello']) {
      expect((await server.get(path, { method: 'HEAD' })).status).toBe(404); // Claude Code probes these
    }
  });

  it('finishes running replies when it is closed, and waits no longer', async () => {
    const server = await startServer({}, {}, { closeTimeoutMs: 86_400_000, idleTimeoutMs: 86_400_000 });
    const response = await server.post('/v1/chat/completions', { ...body, max_tokens: 100, stream: true });
    const closed = server.close();
    expect((await eventsOf(response)).at(-1)?.data).toBe('[DONE]');
    await closed;
    await expect(server.get('/v1/models')).rejects.toThrow();
  });

  it('aborts replies that run longer than `closeTimeoutMs` after it was closed', async () => {
    const server = await startServer({}, {}, { closeTimeoutMs: 0 });
    const response = await server.post('/v1/chat/completions', { ...body, max_tokens: 900, stream: true });
    await server.close();
    await expect(response.text()).rejects.toThrow();
    await expect.poll(() => server.agent.health().activeSessions).toBe(0);
  });
});
