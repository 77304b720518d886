// Wrong requests get an error in the form of the client's API, and the server still serves.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { startServer, type TestServer } from '../../helpers/server.js';

const openAi = { error: { message: expect.any(String), type: expect.any(String), code: expect.any(String) } };
const anthropic = { type: 'error', error: { type: expect.any(String), message: expect.any(String) } };
const ENDPOINTS = [
  ['/v1/chat/completions', openAi],
  ['/v1/messages', anthropic],
  ['/v1/messages/count_tokens', anthropic],
] as const;

const deep = (depth: number) => `${'{"messages":'.repeat(depth)}1${'}'.repeat(depth)}`;
const BODIES: readonly [string, string | object, number][] = [
  ['no body', '', 400],
  ['broken JSON', '{"messages": [', 400],
  ['text that is no UTF-8', Buffer.from([0x22, 0xff, 0x22]).toString('latin1'), 400],
  ['a list', [], 400],
  ['null', 'null', 400],
  ['no messages', {}, 400],
  ['messages that are not objects', { messages: [1, null, 'Hi'] }, 400],
  ['a message without a role', { messages: [{ content: 'Hi' }] }, 400],
  ['a role that nobody has', { messages: [{ role: 'wizard', content: 'Hi' }] }, 400],
  ['deep nesting', deep(5000), 400],
  ['a giant body', { messages: [{ role: 'user', content: 'x'.repeat(200_000) }] }, 413],
];

const serves = async (server: TestServer) => {
  const body = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 };
  expect((await server.post('/v1/chat/completions', body)).status).toBe(200);
};

describe.each(ENDPOINTS)('POST %s', (path, shape) => {
  it('refuses wrong bodies in the form of its API', async () => {
    const server = await startServer({}, { maxBodyBytes: 100_000 });
    for (const [what, body, status] of BODIES) {
      if (what === 'a role that nobody has' && shape === anthropic) continue; // any other role counts as the user
      const response = await server.post(path, body);
      expect([what, response.status, await response.json()]).toMatchObject([what, status, shape]);
    }
    await serves(server);
  });

  it('answers random values of known fields with a reply or a refusal', async () => {
    const server = await startServer();
    const fields = ['messages', 'tools', 'tool_choice', 'system', 'stop', 'stop_sequences', 'response_format'];
    const more = ['temperature', 'seed', 'n', 'logit_bias', 'thinking', 'output_config', 'metadata', 'stream_options'];
    const random = fc.dictionary(fc.constantFrom(...fields, ...more), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 4 });
    await fc.assert(
      fc.asyncProperty(random, async (values) => {
        const body = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1, ...values };
        const response = await server.post(path, body);
        expect([200, 400]).toContain(response.status);
        const answer: unknown = await response.json();
        if (response.status === 400) expect(answer).toMatchObject(shape);
      }),
      { numRuns: 60 },
    );
    await serves(server);
  });
});

describe.each([
  ['/v1/completions', { prompt: 'Hi', max_tokens: 1 }],
  ['/v1/responses', { input: 'Hi', max_output_tokens: 2 }],
  ['/v1/responses/input_tokens', { input: 'Hi' }],
  ['/tokenize', { content: 'Hi' }],
  ['/detokenize', { tokens: [1] }],
  ['/apply-template', { messages: [{ role: 'user', content: 'Hi' }] }],
  ['/headstart/v1/explain', { messages: [{ role: 'user', content: 'Hi' }] }],
  ['/headstart/v1/templates/warm', { templates: [{ systemPrompt: 'Hi' }] }],
  ['/headstart/v1/prune', { maxEntries: 1 }],
] as const)('POST %s', (path, right) => {
  it('refuses wrong bodies and random values in the form of errors of OpenAI', async () => {
    const server = await startServer({}, { maxBodyBytes: 100_000, apiKeys: [{ key: 'admin', admin: true }] });
    const send = async (body: unknown) => {
      const response = await server.post(path, body, { headers: { 'x-api-key': 'admin' } });
      return [response.status, await response.json()] as const;
    };
    for (const [what, body, status] of BODIES) {
      if (path === '/headstart/v1/prune' && what === 'no messages') continue; // an empty budget is right
      expect([what, ...(await send(body))]).toMatchObject([what, status, openAi]);
    }
    const fields = [...Object.keys(right), 'n', 'stop', 'seed', 'logprobs', 'echo', 'logit_bias', 'tools', 'request'];
    const random = fc.dictionary(fc.constantFrom(...fields), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 4 });
    await fc.assert(
      fc.asyncProperty(random, async (values) => {
        const [status, answer] = await send({ ...right, ...values });
        expect([200, 400]).toContain(status);
        if (status === 400) expect(answer).toMatchObject(openAi);
      }),
      { numRuns: 30 },
    );
    expect((await send(right))[0]).toBe(200);
  });
});

describe('the server', () => {
  it('refuses giant headers', async () => {
    const server = await startServer();
    const response = await server.get('/v1/models', { headers: { 'x-giant': 'x'.repeat(60_000) } });
    expect(response.status).toBe(431);
    await serves(server);
  });

  it('stops decoding when a client without a stream leaves', async () => {
    const server = await startServer({ contextSize: 8192, nThreads: 1 });
    const leaving = new AbortController();
    const body = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 8000, logit_bias: {} };
    const response = server.post('/v1/chat/completions', body, { signal: leaving.signal });
    await expect.poll(() => server.agent.health().activeSessions).toBe(1);
    leaving.abort();
    await expect(response).rejects.toThrow();
    await expect.poll(() => server.agent.health().activeSessions).toBe(0);
    expect(server.agent.health().decodedTokens).toBeLessThan(8000);
  });
});
