// The endpoints of this package's own API.
import type { HandlerOptions } from 'llama-headstart/server';
import { describe, expect, it } from 'vitest';
import { temporaryDirectory } from '../../helpers/agents.js';
import { startServer } from '../../helpers/server.js';

const SYSTEM = 'You repair bicycles, and you answer in one short sentence. '.repeat(4);
const messages = [
  { role: 'system', content: SYSTEM },
  { role: 'user', content: 'My chain broke.' },
];
const chat = { messages, max_tokens: 4, temperature: 0 };

const KEYS: HandlerOptions = {
  apiKeys: [
    { key: 'user', tenant: 'alice' },
    { key: 'other', tenant: 'bob' },
    { key: 'admin', tenant: 'alice', admin: true },
  ],
};
const as = (key: string, method?: string) => ({ headers: { 'x-api-key': key }, ...(method && { method }) });
const send = (key: string) => ({ method: 'POST', headers: { 'x-api-key': key } });

interface Listed {
  templates: { key: string; tokens: number; tiers: string[]; pinned: boolean; file?: string }[];
}

describe('/headstart/v1/templates', () => {
  it('warms, lists, inspects, pins and deletes templates by their keys', async () => {
    const server = await startServer({ cacheDir: await temporaryDirectory() }, KEYS);
    const path = '/headstart/v1/templates';
    const warmed = await server.post(`${path}/warm`, { templates: [{ systemPrompt: SYSTEM }] }, as('admin'));
    const { reports } = (await warmed.json()) as { reports: { key: string; cache: string; templateTokens: number }[] };
    expect(reports).toMatchObject([{ cache: 'miss' }]);
    const { key = '', templateTokens } = reports[0] ?? {};
    const reply = await server.post('/v1/chat/completions', chat, as('user'));
    expect(await reply.json()).toMatchObject({ usage: { prompt_tokens_details: { cached_tokens: templateTokens } } });

    const list = (await (await server.get(path, as('admin'))).json()) as Listed;
    const listed = list.templates.find((template) => template.key === key);
    expect(listed).toMatchObject({ tokens: templateTokens, pinned: false });
    expect(listed).not.toHaveProperty('file');
    expect(await (await server.get(`${path}/${key}/pin`, send('admin'))).json()).toEqual({ key, pinned: true });
    expect(await (await server.get(`${path}/${key}`, as('admin'))).json()).toMatchObject({
      pinned: true,
      components: { keyType: expect.any(String) },
    });
    expect(await (await server.get(`${path}/${key}/unpin`, send('admin'))).json()).toEqual({ key, pinned: false });
    expect(await (await server.get('/headstart/v1/verify', send('admin'))).json()).toMatchObject({ corrupt: 0 });
    expect(await (await server.get(`${path}/${key}`, as('admin', 'DELETE'))).json()).toEqual({ key, deleted: true });
    expect((await server.get(`${path}/${key}`, as('admin'))).status).toBe(404);
    expect((await server.get(`${path}/${key}`, as('admin', 'DELETE'))).status).toBe(404);
    expect((await server.get(`${path}/${key}/pin`, send('admin'))).status).toBe(404);
  });

  it('prunes to a budget', async () => {
    const server = await startServer({ cacheDir: await temporaryDirectory() }, KEYS);
    await server.post('/headstart/v1/templates/warm', { templates: [{ systemPrompt: SYSTEM }] }, as('admin'));
    const prune = (body: object) => server.post('/headstart/v1/prune', body, as('admin'));
    expect(await (await prune({ maxEntries: 0 })).json()).toMatchObject({ entries: 1 });
    expect((await prune({ maxEntries: -1 })).status).toBe(400);
    expect((await prune({ unknown: 1 })).status).toBe(400);
    expect((await server.get('/headstart/v1/prune', send('admin'))).status).toBe(200);
  });

  it('refuses names that are not keys', async () => {
    const server = await startServer({}, KEYS);
    for (const name of ['x', 'A'.repeat(64), '..%2F..%2Fetc%2Fpasswd', '0'.repeat(63), `${'0'.repeat(64)}.kv`]) {
      expect((await server.get(`/headstart/v1/templates/${name}`, as('admin'))).status).toBe(400);
    }
    expect((await server.get(`/headstart/v1/templates/${'0'.repeat(64)}`, as('admin'))).status).toBe(404);
  });

  it('lets only admin keys change anything, and refuses all changes if there are no keys', async () => {
    const key = '0'.repeat(64);
    const changes = [
      ['POST', 'templates/warm'],
      ['POST', `templates/${key}/pin`],
      ['POST', `templates/${key}/unpin`],
      ['DELETE', `templates/${key}`],
      ['POST', 'verify'],
      ['POST', 'prune'],
    ] as const;
    const guarded = await startServer({}, KEYS);
    const open = await startServer();
    for (const [method, path] of changes) {
      const refused = await guarded.get(`/headstart/v1/${path}`, as('user', method));
      expect([path, refused.status]).toEqual([path, 403]);
      const withoutKeys = await open.get(`/headstart/v1/${path}`, { method });
      expect([path, withoutKeys.status]).toEqual([path, 403]);
      expect(await withoutKeys.json()).toMatchObject({ error: { message: expect.stringContaining('apiKeys') } });
    }
  });

  it('shows the templates of all tenants only to admin keys', async () => {
    const guarded = await startServer({}, KEYS);
    expect((await guarded.get('/headstart/v1/templates', as('user'))).status).toBe(403);
    const open = await startServer();
    expect((await open.get('/headstart/v1/templates')).status).toBe(200);
  });
});

describe('POST /headstart/v1/explain', () => {
  it("says what a chat completion would reuse of its client's tenant", async () => {
    const server = await startServer({}, KEYS);
    await server.post('/v1/chat/completions', chat, as('user'));
    const cached = async (key: string) => {
      const response = await server.post('/headstart/v1/explain', chat, as(key));
      return ((await response.json()) as { cachedTokens: number }).cachedTokens;
    };
    expect(await cached('user')).toBeGreaterThan(0);
    expect(await cached('other')).toBe(0);
  });

  it('says where the prompts of two chat completions part', async () => {
    const server = await startServer();
    const other = { ...chat, messages: [messages[0], { role: 'user', content: 'My lamp broke.' }] };
    const response = await server.post('/headstart/v1/explain', { request: chat, other });
    expect(await response.json()).toMatchObject({
      sharedTokens: expect.any(Number),
      difference: { first: { message: 1 }, second: { message: 1 } },
    });
    expect((await server.post('/headstart/v1/explain', { request: 1 })).status).toBe(400);
  });
});

describe('GET /headstart/v1/requests', () => {
  it("reports the newest requests of the client's tenant, without text", async () => {
    const server = await startServer({}, KEYS);
    await server.post('/v1/chat/completions', chat, as('user'));
    await (await server.post('/v1/completions', { prompt: 'A chain', stream: true }, as('user'))).text();
    const read = async (key: string) => (await server.get('/headstart/v1/requests', as(key))).text();
    const text = await read('user');
    expect((JSON.parse(text) as { requests: object[] }).requests).toMatchObject([
      { endpoint: '/v1/completions', usage: { outputTokens: 16 } },
      { endpoint: '/v1/chat/completions', cache: { source: 'prefill', cachedTokens: 0 }, finishReason: 'length' },
    ]);
    expect(text).not.toMatch(/bicycles|chain/);
    expect(JSON.parse(await read('other'))).toEqual({ requests: [] });
  });

  it('shows text at the first difference only with `showPromptText`', async () => {
    for (const showPromptText of [false, true]) {
      const server = await startServer({}, { showPromptText });
      await server.post('/v1/chat/completions', chat);
      await server.post('/v1/chat/completions', {
        ...chat,
        messages: [...messages.slice(0, 1), { role: 'user', content: 'Zinc' }],
      });
      expect((await (await server.get('/headstart/v1/requests')).text()).includes('Zinc')).toBe(showPromptText);
    }
  });

  it('keeps the newest 100', async () => {
    const server = await startServer();
    for (let batch = 0; batch < 17; batch++) {
      const body = { prompt: 'A chain', max_tokens: 1, n: 6, logprobs: 0 };
      expect((await server.post('/v1/completions', body)).status).toBe(200);
    }
    const { requests } = (await (await server.get('/headstart/v1/requests')).json()) as { requests: object[] };
    expect(requests).toHaveLength(100);
  });
});
