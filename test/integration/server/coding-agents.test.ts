// What coding agents send, besides what the tests of the endpoints cover.
import type { ChatModel, ChatRequest } from 'llama-headstart';
import { createHandler } from 'llama-headstart/server';
import { describe, expect, it } from 'vitest';
import { ON } from '../../helpers/lamp.js';
import { startServer, type TestServer } from '../../helpers/server.js';

/** A handler without a model that only records the requests for counts. */
function recorder() {
  const requests: ChatRequest[] = [];
  const model: ChatModel = {
    id: 'none',
    countTokens: async (request) => requests.push(request),
    chat: () => {
      throw new Error('Expected no request for a reply');
    },
  };
  const handle = createHandler(model);
  const count = async (path: string, body: object, headers: Record<string, string>) => {
    const response = await handle(
      new Request(`http://127.0.0.1${path}`, {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json', host: '127.0.0.1', ...headers },
      }),
    );
    expect(response.status).toBe(200);
    return requests.at(-1) as ChatRequest;
  };
  return { handle, count };
}

const hello = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 };

describe('the session of a coding agent', () => {
  it.each([
    ['Claude Code', { 'x-claude-code-session-id': 'a' }, 'a'],
    ['a sub-agent of Claude Code', { 'x-claude-code-session-id': 'a', 'x-claude-code-agent-id': 'b' }, 'b'],
    ['Codex, whose sub-agents share the session id', { 'session-id': 'a', 'thread-id': 'b' }, 'b'],
    ['opencode', { 'x-session-id': 'a', 'x-parent-session-id': 'b' }, 'a'],
    ['an agent that names no session', {}, undefined],
  ])('is named by the headers of %s', async (_, headers, expected) => {
    const { count } = recorder();
    const { affinity } = await count('/v1/messages/count_tokens?beta=true', hello, headers as Record<string, string>);
    expect(affinity).toBe(expected);
  });

  it('is not recognized by the user agent, because Qwen Code calls itself Claude Code', async () => {
    const { count } = recorder();
    const body = { messages: [...hello.messages, { role: 'system', content: 'Be brief.' }, ...hello.messages] };
    const rolesOf = async (headers: Record<string, string>) =>
      (await count('/v1/messages/count_tokens', body, headers)).messages.map(({ role }) => role);
    expect(await rolesOf({ 'user-agent': 'claude-cli/0.24.4 (external, cli)' })).toEqual(['user', 'system', 'user']);
    expect(await rolesOf({ 'x-claude-code-session-id': 'a' })).toEqual(['system', 'user', 'user']);
  });

  it('begins with requests that find the model, or are refused with 404 harmlessly', async () => {
    const { handle } = recorder();
    const statusOf = async (method: string, path: string) =>
      (await handle(new Request(`http://127.0.0.1${path}`, { method }))).status;
    expect(await statusOf('GET', '/v1/models?limit=1000')).toBe(200);
    expect(await statusOf('HEAD', '/')).toBe(404);
    expect(await statusOf('HEAD', '/api/hello')).toBe(404);
  });
});

/** The keywords in the schemas of the tools of current agents. */
const SCHEMA = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  properties: {
    on: { type: 'boolean', default: true },
    kind: { const: 'lamp' },
    level: { type: ['integer', 'null'], exclusiveMinimum: 0, maximum: 9_007_199_254_740_991 },
    address: { type: 'string', format: 'uri', pattern: '^https?://', minLength: 1, maxLength: 2000 },
    either: { anyOf: [{ type: 'string' }, { oneOf: [{ type: 'number', minimum: 1 }, { type: 'null' }] }] },
    map: { type: 'object', propertyNames: { type: 'string' }, additionalProperties: { type: 'string' } },
    deep: {
      type: 'array',
      minItems: 1,
      maxItems: 2,
      items: { type: 'object', properties: { a: { type: 'object', properties: { b: { type: 'array' } } } } },
    },
  },
  required: ['on'],
  additionalProperties: false,
};

describe('the tools of coding agents', () => {
  it('may have all keywords of JSON Schema that current agents use, and no properties', async () => {
    const server = await startServer({ contextSize: 4096 });
    const schemas = Object.entries({ switch: SCHEMA, placeholder: { type: 'object', properties: {} } });
    const statusOf = async (path: string, body: object) => (await server.post(path, body)).status;
    const tools = schemas.map(([name, schema]) => ({ name, input_schema: schema }));
    expect(await statusOf('/v1/messages', { ...hello, tools })).toBe(200);
    const functions = schemas.map(([name, parameters]) => ({ type: 'function', function: { name, parameters } }));
    expect(await statusOf('/v1/chat/completions', { ...hello, tools: functions })).toBe(200);
    const items = schemas.map(([name, parameters]) => ({ type: 'function', name, parameters, strict: false }));
    expect(await statusOf('/v1/responses', { input: 'Hi', max_output_tokens: 2, tools: items })).toBe(200);
  });

  it('may be loaded in the middle of the list, as Claude Code does, without a change of earlier tokens', async () => {
    const server = await startServer({ contextSize: 4096 });
    const toolOf = (name: string) => ({ name, description: `Runs ${name}.`, input_schema: ON });
    const deferred = (name: string) => ({ ...toolOf(name), defer_loading: true });
    const question = { role: 'user', content: 'Look it up' };
    const first = await messageOf(server, {
      messages: [question],
      tools: [toolOf('Read'), toolOf('ToolSearch'), deferred('Later'), toolOf('Write')],
      tool_choice: { type: 'tool', name: 'ToolSearch', disable_parallel_tool_use: true },
      max_tokens: 200,
    });
    const [call] = first.content.filter(({ type }) => type === 'tool_use');
    const result = {
      type: 'tool_result',
      tool_use_id: call?.id,
      content: [{ type: 'tool_reference', tool_name: 'WebFetch' }],
    };
    const next = await messageOf(server, {
      messages: [question, { role: 'assistant', content: first.content }, { role: 'user', content: [result] }],
      tools: [toolOf('Read'), toolOf('ToolSearch'), deferred('WebFetch'), deferred('Later'), toolOf('Write')],
      tool_choice: { type: 'tool', name: 'WebFetch', disable_parallel_tool_use: true },
      max_tokens: 200,
    });
    expect(next.content).toMatchObject([{ type: 'tool_use', name: 'WebFetch' }]);
    expect(next.usage.cache_read_input_tokens).toBeGreaterThanOrEqual(tokensOf(first) - 8);
  });
});

interface Message {
  content: { type: string; id?: string }[];
  usage: { input_tokens: number; cache_read_input_tokens: number; output_tokens: number };
}

async function messageOf(server: TestServer, body: object): Promise<Message> {
  const response = await server.post('/v1/messages?beta=true', body, { headers: { 'x-claude-code-session-id': '1' } });
  expect(response.status).toBe(200);
  return (await response.json()) as Message;
}

const tokensOf = ({ usage }: Message) => usage.input_tokens + usage.cache_read_input_tokens + usage.output_tokens;

describe('the history of coding agents', () => {
  it('reuses a reply whose arguments and content come back in another form', async () => {
    const server = await startServer({ contextSize: 4096 });
    const tools = [{ type: 'function', function: { name: 'set_lamp', parameters: ON } }];
    const messages: object[] = [
      { role: 'user', content: [{ type: 'text', text: 'Hi' }] },
      { role: 'user', content: 'Light, please' },
    ];
    const body = { messages, tools, tool_choice: 'required', parallel_tool_calls: false, max_completion_tokens: 200 };
    const first = await completionOf(server, body);
    const [call] = first.choices[0].message.tool_calls;
    const { arguments: sent } = call.function;
    const rewritten = { ...call, function: { ...call.function, arguments: JSON.stringify(JSON.parse(sent), null, 2) } };
    messages.push(
      { role: 'assistant', content: '', tool_calls: [rewritten] },
      {
        role: 'tool',
        tool_call_id: call.id,
        content: [
          { type: 'text', text: 'The lamp ' },
          { type: 'text', text: 'is on' },
        ],
      },
    );
    const next = await completionOf(server, { ...body, messages, tool_choice: 'none', max_completion_tokens: 1 });
    expect(next.usage.prompt_tokens_details.cached_tokens).toBeGreaterThanOrEqual(first.usage.total_tokens - 8);
  });
});

// biome-ignore lint/suspicious/noExplicitAny: the fields are compared with their values
async function completionOf(server: TestServer, body: object): Promise<any> {
  const response = await server.post('/v1/chat/completions', body);
  expect(response.status).toBe(200);
  return response.json();
}
