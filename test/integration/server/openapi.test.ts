// The OpenAPI document describes what the server returns.
import { Validator } from '@seriousme/openapi-schema-validator';
import { describe, expect, it } from 'vitest';
import { vendoredTemplate } from '../../helpers/lamp.js';
import { likelyText } from '../../helpers/likely-text.js';
import { type DocumentedOperation, OPERATIONS, operationOf, problemOf } from '../../helpers/openapi.js';
import { eventsOf, startServer } from '../../helpers/server.js';

const messages = [{ role: 'user', content: 'My chain broke. What now?' }];
const stream = {
  messages,
  input: 'My chain broke.',
  prompt: 'A chain',
  max_tokens: 8,
  max_output_tokens: 8,
  stream: true,
};

describe('GET /openapi.json', () => {
  it('returns a valid OpenAPI document', async () => {
    const server = await startServer();
    const document = (await (await server.get('/openapi.json')).json()) as Record<string, unknown>;
    expect(await new Validator().validate(document)).toMatchObject({ valid: true });
  });
});

const operation = (title: string) => OPERATIONS.find((each) => each.title === title) as DocumentedOperation;

describe('an event of a stream', () => {
  it.each(['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/messages'])(
    'of %s has the documented fields',
    async (path) => {
      const sampling = { ...(await likelyText('<think>Hm.</think>Yes')), penaltyLastTokens: 8 };
      const server = await startServer({ chatTemplate: vendoredTemplate('Qwen-Qwen3-0.6B'), sampling });
      const options = { stream_options: { include_usage: true }, return_progress: true, thinking: { type: 'enabled' } };
      const logprobs = path === '/v1/completions' ? 2 : true;
      const events = await eventsOf(await server.post(path, { ...stream, ...options, logprobs }));
      const data = events.map((event) => event.data).filter((each) => each !== '[DONE]');
      expect(data.length).toBeGreaterThan(3);
      for (const each of data) {
        const type = 'text/event-stream';
        expect([each, problemOf(operation(`POST ${path}`), JSON.parse(each), { type })]).toEqual([each, undefined]);
      }
    },
  );
});

describe('a refusal', () => {
  it.each(OPERATIONS.filter(({ requestBody }) => requestBody).map(({ title }) => title))(
    'of a wrong body by %s has the documented form',
    async (title) => {
      const { method, path } = operation(title);
      const server = await startServer({}, { apiKeys: [{ key: 'admin', admin: true }] });
      const headers = { 'x-api-key': 'admin' };
      for (const [sent, status] of [
        ['[]', 400],
        ['{', 400],
      ] as const) {
        const response = await server.post(path, sent, { method, headers });
        expect(response.status).toBe(status);
        const found = operationOf(method, path) as DocumentedOperation;
        expect(problemOf(found, await response.json(), { status })).toBeUndefined();
      }
    },
  );
});
