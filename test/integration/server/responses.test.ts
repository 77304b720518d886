// OpenAI's responses, with OpenAI's own client.
import fc from 'fast-check';
import type OpenAI from 'openai';
import { describe, expect, it } from 'vitest';
import { ON, vendoredTemplate } from '../../helpers/lamp.js';
import { likelyText } from '../../helpers/likely-text.js';
import { openAiClient } from '../../helpers/openai-client.js';
import { eventsOf, startServer, type TestServer, withoutRepeats } from '../../helpers/server.js';
import { readAll } from '../../helpers/streams.js';
import { iterate } from '../../helpers/turns.js';

type Responses = OpenAI.Responses.Response;
type Item = OpenAI.Responses.ResponseInputItem;

const instructions = 'You are a helpful mechanic.';
const question = 'My chain broke. What now?';
const greedy = { model: 'any', instructions, input: question, max_output_tokens: 12, temperature: 0 };
const lamp: OpenAI.Responses.FunctionTool = { type: 'function', name: 'set_lamp', parameters: ON, strict: false };
const oneCall = {
  ...greedy,
  tools: [lamp],
  tool_choice: 'required' as const,
  parallel_tool_calls: false,
  max_output_tokens: 100,
};

const cachedTokens = ({ usage }: Responses) => usage?.input_tokens_details.cached_tokens ?? 0;

/** The tokens of a prompt and its reply. The last token of each is not in the KV cache yet, or its end is rendered anew. */
const tokensAfter = ({ usage }: Responses) => (usage?.total_tokens ?? 0) - 8;

const callIn = ({ output }: Responses) =>
  output.find(({ type }) => type === 'function_call') as OpenAI.Responses.ResponseFunctionToolCall;

const outputOf = ({ call_id }: { call_id: string }, output: string): Item => ({
  type: 'function_call_output',
  call_id,
  output,
});

const withoutIds = ({ output }: Responses) =>
  output.map((item) => ({
    ...item,
    id: '',
    ...(item.type === 'function_call' && { arguments: JSON.parse(item.arguments) }),
  }));

describe('POST /v1/responses', () => {
  it('replies like agent.chat', async () => {
    const server = await startServer();
    const response = await openAiClient(server).responses.create({ ...greedy, metadata: { from: 'test' } });
    const messages = [
      { role: 'system', content: instructions },
      { role: 'user', content: question },
    ] as const;
    const expected = await server.agent.chat({ messages, maxTokens: 12 }).result;
    expect(response).toMatchObject({
      object: 'response',
      status: 'incomplete',
      incomplete_details: { reason: 'max_output_tokens' },
      model: server.agent.id,
      output_text: expected.text,
      metadata: { from: 'test' },
      usage: {
        input_tokens: expected.usage.inputTokens,
        output_tokens: 12,
        total_tokens: expected.usage.inputTokens + 12,
      },
    });
  });

  it('streams the items of the whole response, in the order that clients expect', async () => {
    const server = await startServer();
    const client = openAiClient(server);
    const whole = await client.responses.create(greedy);
    const stream = client.responses.stream(greedy);
    const events = await readAll(iterate(stream));
    expect(withoutIds(await stream.finalResponse())).toMatchObject(withoutIds(whole));
    expect(withoutRepeats(events.map(({ type }) => type))).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.incomplete',
    ]);
    expect(events.map((event) => (event as { sequence_number: number }).sequence_number)).toEqual([...events.keys()]);
  });

  it('answers the result of a call, and reuses the tokens of the first request', async () => {
    const client = openAiClient(await startServer());
    const first = await client.responses.create(oneCall);
    const call = callIn(first);
    expect(call).toMatchObject({ name: 'set_lamp', status: 'completed' });
    expect(call).not.toHaveProperty('namespace');
    expect(first.status).toBe('completed');
    const streamed = await client.responses.stream(oneCall).finalResponse();
    expect(withoutIds(streamed)).toMatchObject(withoutIds(first));
    const input: Item[] = [
      { role: 'user', content: question },
      ...(first.output as Item[]),
      outputOf(call, 'The lamp is on.'),
    ];
    const second = await client.responses.create({ ...oneCall, input, tool_choice: 'auto', max_output_tokens: 8 });
    expect(cachedTokens(second)).toBeGreaterThanOrEqual(tokensAfter(first));
  });

  it('continues a stored response, and items of stored responses', async () => {
    const client = openAiClient(await startServer());
    const first = await client.responses.create(oneCall);
    const call = callIn(first);
    const next = { ...oneCall, tool_choice: 'auto', max_output_tokens: 8 } as const;
    const result = outputOf(call, 'The lamp is on.');
    const second = await client.responses.create({ ...next, previous_response_id: first.id, input: [result] });
    const third = await client.responses.create({ ...next, previous_response_id: second.id, input: 'Thank you' });
    expect(second.previous_response_id).toBe(first.id);
    expect(cachedTokens(second)).toBeGreaterThanOrEqual(tokensAfter(first));
    expect(cachedTokens(third)).toBeGreaterThanOrEqual(tokensAfter(second));
    const reference: Item = { type: 'item_reference', id: call.id as string };
    const input: Item[] = [{ role: 'user', content: question }, reference, result];
    expect((await client.responses.create({ ...next, input })).output_text).toBe(second.output_text);
    expect(await client.responses.retrieve(first.id)).toMatchObject({ id: first.id, output: first.output });
    await client.responses.delete(first.id);
    await expect(client.responses.retrieve(first.id)).rejects.toMatchObject({ status: 404 });
    const fourth = { ...next, previous_response_id: third.id, input: 'Bye' };
    expect(cachedTokens(await client.responses.create(fourth))).toBeGreaterThanOrEqual(tokensAfter(third));
  });

  it('keeps nothing with `store: false`, and answers unknown ids with 404', async () => {
    const client = openAiClient(await startServer());
    const { id } = await client.responses.create({ ...greedy, store: false });
    for (const previous_response_id of [id, 'resp_unknown']) {
      await expect(client.responses.create({ ...greedy, previous_response_id })).rejects.toMatchObject({
        status: 404,
        code: 'previous_response_not_found',
        message: expect.stringContaining(`Previous response with id '${previous_response_id}' not found.`),
      });
    }
    const input: Item[] = [{ type: 'item_reference', id: `msg_${id.slice('resp_'.length)}_0` }];
    await expect(client.responses.create({ ...greedy, input })).rejects.toMatchObject({ status: 404 });
  });

  it('keeps the responses of tenants apart', async () => {
    const apiKeys = ['a', 'b'].map((tenant) => ({ key: tenant, tenant }));
    const server = await startServer({}, { apiKeys });
    const [a, b] = [openAiClient(server, 'a'), openAiClient(server, 'b')];
    const { id, output } = await a.responses.create(greedy);
    await expect(b.responses.retrieve(id)).rejects.toMatchObject({ status: 404 });
    await expect(b.responses.delete(id)).rejects.toMatchObject({ status: 404 });
    await expect(b.responses.create({ ...greedy, previous_response_id: id })).rejects.toMatchObject({ status: 404 });
    const input: Item[] = [{ type: 'item_reference', id: output[0]?.id as string }];
    await expect(b.responses.create({ ...greedy, input })).rejects.toMatchObject({ status: 404 });
    expect((await a.responses.retrieve(id)).id).toBe(id);
  });

  it('forgets the oldest responses beyond each limit of `storedResponses`', async () => {
    for (const storedResponses of [{ maxEntries: 2 }, { maxBytes: 4000 }, { maxAgeMs: 1 }]) {
      const client = openAiClient(await startServer({}, { storedResponses }));
      const { id } = await client.responses.create({ ...greedy, max_output_tokens: 2 });
      const again = { ...greedy, max_output_tokens: 2, metadata: { padding: 'x'.repeat(1000) } };
      await client.responses.create(again);
      const { id: last } = await client.responses.create(again);
      await expect.poll(() => client.responses.retrieve(id).catch((error) => error.status)).toBe(404);
      if (storedResponses.maxAgeMs === undefined) {
        expect((await client.responses.retrieve(last)).id).toBe(last);
      }
    }
  });

  it('reads the items of one reply as one message, with the reasoning from any field', async () => {
    const server = await startServer({ chatTemplate: vendoredTemplate('Qwen-Qwen3-0.6B') });
    const call = { type: 'function_call', call_id: 'call00000', name: 'set_lamp', arguments: '{"on": true}' } as const;
    const question = { role: 'user', content: 'Light, please' } as const;
    const text = { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'Sure.' }] };
    const fields = [
      { content: [{ type: 'reasoning_text', text: 'Dark here.' }] },
      { encrypted_content: `headstart.${Buffer.from('Dark here.').toString('base64')}` },
      { encrypted_content: 'of another server', summary: [{ type: 'summary_text', text: 'Dark here.' }] },
    ];
    const reply = { role: 'assistant', content: 'Sure.', reasoning: 'Dark here.' } as const;
    const toolCalls = [{ toolCallId: 'call00000', toolName: 'set_lamp', input: { on: true } }];
    const result = { role: 'tool', toolCallId: 'call00000', content: 'On' } as const;
    const tools = [{ name: 'set_lamp', inputSchema: ON }];
    const expected = await server.agent.countTokens({ messages: [question, { ...reply, toolCalls }, result], tools });
    for (const field of fields) {
      const items = [question, { type: 'reasoning', id: 'rs_1', summary: [], ...field }, text, call];
      const input = [...items, outputOf(call, 'On')] as Item[];
      const { input_tokens } = await openAiClient(server).responses.inputTokens.count({ input, tools: [lamp] });
      expect([field, input_tokens]).toEqual([field, expected]);
    }
  });

  it('counts the tokens of a prompt', async () => {
    const client = openAiClient(await startServer());
    const { usage } = await client.responses.create({ ...greedy, max_output_tokens: 1 });
    const { input_tokens } = await client.responses.inputTokens.count({ instructions, input: question });
    expect(input_tokens).toBe(usage?.input_tokens);
  });

  const throws = () => {
    throw new Error('the disk is full');
  };

  it.each([
    ['without a logger', {}],
    ['with a logger that throws', { logger: throws }],
  ])('ends a stream that fails with `response.failed`, %s', async (_, options) => {
    const server = await startServer({}, options);
    const stream = await openAiClient(server).responses.create({ ...greedy, max_output_tokens: 900, stream: true });
    const events: OpenAI.Responses.ResponseStreamEvent[] = [];
    for await (const event of stream) {
      events.push(event);
      if (event.type === 'response.output_text.delta') void server.agent.close();
    }
    expect(events.at(-1)).toMatchObject({
      type: 'response.failed',
      response: { id: expect.stringMatching(/^resp_/), status: 'failed', error: { code: 'server_error' } },
    });
  });

  it('follows a JSON schema', async () => {
    const client = openAiClient(await startServer());
    const schema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'] };
    const format = { type: 'json_schema', name: 'answer', strict: true, schema } as const;
    const { output_text } = await client.responses.create({ ...greedy, max_output_tokens: 200, text: { format } });
    expect(JSON.parse(output_text)).toEqual({ ok: expect.any(Boolean) });
  });

  it('returns reasoning in each field that clients send back', async () => {
    const sampling = { ...(await likelyText('<think>Hm.</think>Yes')), penaltyLastTokens: 8 };
    const chatTemplate = vendoredTemplate('Qwen-Qwen3-0.6B');
    const client = openAiClient(await startServer({ chatTemplate, sampling }));
    const request = { model: 'any', input: 'chain', max_output_tokens: 16, include: ['reasoning.encrypted_content'] };
    const first = await client.responses.create(request as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    const [reasoning] = first.output as [OpenAI.Responses.ResponseReasoningItem];
    expect(first.output).toMatchObject([{ type: 'reasoning', summary: [] }, { type: 'message' }]);
    const encoded = reasoning.encrypted_content?.slice('headstart.'.length) ?? '';
    expect(reasoning.content).toMatchObject([
      { type: 'reasoning_text', text: Buffer.from(encoded, 'base64').toString() },
    ]);
    expect(first.usage?.output_tokens_details.reasoning_tokens).toBeGreaterThan(0);
    const streamed = await client.responses
      .stream(request as OpenAI.Responses.ResponseCreateParamsStreaming)
      .finalResponse();
    expect(withoutIds(streamed)).toMatchObject(withoutIds(first));
    const off = await client.responses.create({ ...greedy, reasoning: { effort: 'none' } });
    expect(off.output.map(({ type }) => type)).toEqual(['message']);
  });
});

describe('what Codex sends', () => {
  const text = (role: string, type: string, ...texts: string[]) => ({
    type: 'message',
    id: `msg_${role}`,
    role,
    content: texts.map((each) => ({ type, text: each })),
  });
  const agents = {
    type: 'namespace',
    name: 'multi_agent_v1',
    description: 'Tools for other agents.',
    tools: [{ type: 'function', name: 'spawn', description: 'Starts an agent.', strict: false, parameters: ON }],
  };
  const patch = {
    type: 'custom',
    name: 'apply_patch',
    description: 'Edits files.',
    format: { type: 'grammar', syntax: 'lark', definition: 'start: "x"' },
  };
  const body = {
    model: 'any-slug',
    stream: true,
    input: [
      text('developer', 'input_text', 'You are a coding agent.'),
      text('developer', 'input_text', 'Sandbox: none.', 'Skills: none.'),
      text('user', 'input_text', '# AGENTS.md', '<environment_context/>'),
      text('user', 'input_text', 'Say hello.'),
    ] as object[],
    tools: [lamp, agents, { type: 'web_search', external_web_access: true }] as object[],
    tool_choice: 'auto' as string | object,
    parallel_tool_calls: false,
    reasoning: { summary: 'auto' },
    store: false,
    include: ['reasoning.encrypted_content'],
    prompt_cache_key: 'thread',
    client_metadata: { turn: '1' },
    max_output_tokens: 100,
    temperature: 0,
  };

  /** Sends a body, and returns the last event's response. */
  async function answerOf(server: TestServer, sent: object) {
    const received = await server.post('/v1/responses', sent, { headers: { 'thread-id': 'one' } });
    const events = (await eventsOf(received)).map(({ event, data }) => ({ event, ...JSON.parse(data) }));
    expect(events.every(({ event, type }) => event === type)).toBe(true);
    const done = events.filter(({ type }) => type === 'response.output_item.done').map(({ item }) => item);
    expect(events.at(-1)).toMatchObject({ type: 'response.completed', response: { output: done } });
    return events.at(-1).response;
  }

  it('is answered with calls that carry their namespace', async () => {
    const server = await startServer({ contextSize: 2048 });
    const first = await answerOf(server, {
      ...body,
      tool_choice: { type: 'function', name: 'spawn', namespace: 'multi_agent_v1' },
    });
    const [call] = first.output;
    expect(call).toMatchObject({ type: 'function_call', name: 'spawn', namespace: 'multi_agent_v1' });
    expect(JSON.parse(call.arguments)).toEqual({ on: expect.any(Boolean) });
    expect(first.headstart.warnings).toEqual([expect.stringContaining('"web_search"')]);
    const input = [...body.input, ...first.output, outputOf(call, 'started')];
    const second = await answerOf(server, { ...body, input, tool_choice: 'required' });
    expect(cachedTokens(second)).toBeGreaterThanOrEqual(tokensAfter(first));
    const other = { ...body, tools: [lamp, agents, { type: 'web_search', external_web_access: false }] };
    const head = await answerOf(server, {
      ...other,
      tool_choice: 'required',
      input: [...body.input, text('user', 'input_text', 'More')],
    });
    expect(cachedTokens(head)).toBeGreaterThan(first.usage.input_tokens - 16);
  });

  it('may have tools of one flat name, repeated tools, and items of other servers', async () => {
    const server = await startServer({ contextSize: 2048 });
    const group = (name: string, ...names: string[]) => ({
      type: 'namespace',
      name,
      tools: names.map((each) => ({ ...lamp, name: each })),
    });
    const tools = [group('a', 'b__c'), group('a__b', 'c'), { ...lamp, name: 'a__b__c' }, group('a', 'b__c')];
    const input = [{ type: 'compaction', encrypted_content: 'x' }, ...body.input];
    for (const named of [{ name: 'b__c', namespace: 'a' }, { name: 'c', namespace: 'a__b' }, { name: 'a__b__c' }]) {
      const tool_choice = { type: 'function', ...named };
      const { output, headstart } = await answerOf(server, { ...body, tools, input, tool_choice });
      expect(output).toHaveLength(1);
      const { name, namespace } = output[0];
      expect({ name, namespace }).toEqual({ namespace: undefined, ...named });
      expect(headstart.warnings).toEqual([expect.stringContaining('"compaction"')]);
    }
  });

  it('is answered with calls of custom tools, also if the tools are an item of the input', async () => {
    const server = await startServer({ contextSize: 2048 });
    const choice = { type: 'custom', name: 'apply_patch' };
    const whole = await answerOf(server, { ...body, tools: [patch], tool_choice: choice });
    const [call] = whole.output;
    expect(call).toMatchObject({ type: 'custom_tool_call', name: 'apply_patch', input: expect.any(String) });
    const item = {
      type: 'additional_tools',
      role: 'developer',
      tools: [{ type: 'namespace', name: 'functions', tools: [patch] }],
    };
    const { tools: _, ...withoutTools } = { ...body, input: [item, ...body.input] };
    const named = { ...choice, namespace: 'functions' };
    const first = await answerOf(server, { ...withoutTools, tool_choice: named });
    expect(first.output[0]).toMatchObject({ type: 'custom_tool_call', name: 'apply_patch', namespace: 'functions' });
    const result = {
      type: 'custom_tool_call_output',
      call_id: first.output[0].call_id,
      output: [
        { type: 'input_text', text: 'Done' },
        { type: 'input_image', image_url: 'data:image/png;base64,AA' },
      ],
    };
    const input = [...withoutTools.input, ...first.output, result];
    const second = await answerOf(server, { ...withoutTools, input, tool_choice: named });
    expect(cachedTokens(second)).toBeGreaterThanOrEqual(tokensAfter(first));
  });

  it('may be an empty load probe, which is answered without the model', async () => {
    const server = await startServer();
    const probe = await server.post('/v1/responses', { model: 'any', input: '', max_output_tokens: 1 });
    expect(await probe.json()).toMatchObject({ status: 'completed', output: [], usage: { total_tokens: 0 } });
    const streamed = await answerOf(server, { model: 'any', input: '', max_output_tokens: 1, stream: true });
    expect(streamed).toMatchObject({ status: 'completed', output: [] });
    expect(streamed).not.toHaveProperty('headstart.cache');
  });

  it('gets errors in the form of the API', async () => {
    const server = await startServer({ contextSize: 256 });
    const refusal = async (sent: unknown) => {
      const response = await server.post('/v1/responses', sent);
      return { status: response.status, ...((await response.json()) as { error: { code: string; message: string } }) };
    };
    const deep = `${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}`;
    const broken: unknown[] = [
      '{"input":',
      [],
      {},
      { input: [] },
      { input: [1] },
      { input: [{ role: 'pilot', content: 'Hi' }] },
      { input: [{ role: 'user', content: { text: 'Hi' } }] },
      { input: [{ type: 'function_call', call_id: 'x' }] },
      { input: 'Hi', temperature: 'hot' },
      { input: 'Hi', tools: 'all' },
      { input: 'Hi', text: { format: { type: 'json_schema' } } },
      { input: 'Hi', conversation: 'conv_1' },
      `{"input":"Hi","metadata":${deep}}`,
    ];
    for (const sent of broken) {
      expect(await refusal(sent)).toMatchObject({
        status: 400,
        error: { type: 'invalid_request_error', code: expect.any(String) },
      });
    }
    for (const stream of [false, true]) {
      const long = await refusal({ input: 'chain '.repeat(2000), stream });
      expect(long).toMatchObject({ status: 400, error: { code: 'context_length_exceeded' } });
    }
    const fine = { input: 'Hi', max_output_tokens: 1_000_000, unheard_of: [1], temperature: 0, truncation: 'auto' };
    expect((await server.post('/v1/responses', fine)).status).toBe(200);
  });

  it('gets a response or a refusal for random items and values of known fields', async () => {
    const server = await startServer();
    const json = fc.jsonValue({ maxDepth: 3 });
    const kinds = [
      'message',
      'reasoning',
      'function_call',
      'function_call_output',
      'custom_tool_call',
      'item_reference',
    ];
    const types = fc.constantFrom(...kinds, 'additional_tools', 'function', 'custom', 'namespace', 'other');
    const names = fc.constantFrom('role', 'content', 'summary', 'arguments', 'output', 'name', 'tools', 'parameters');
    const typed = fc.tuple(fc.dictionary(names, json, { maxKeys: 3 }), types);
    const items = fc.array(
      typed.map(([fields, type]) => ({ type, name: 'x', call_id: 'y', ...fields })),
      { maxLength: 3 },
    );
    const fields = fc.constantFrom('tool_choice', 'text', 'reasoning', 'include', 'metadata', 'instructions', 'top_p');
    const values = fc.dictionary(fields, json, { maxKeys: 3 });
    await fc.assert(
      fc.asyncProperty(items, items, values, async (input, tools, more) => {
        const question = { role: 'user', content: 'Hi' };
        const response = await server.post('/v1/responses', {
          input: [...input, question],
          tools,
          max_output_tokens: 1,
          ...more,
        });
        expect([200, 400, 404]).toContain(response.status);
        const answer: unknown = await response.json();
        if (response.status !== 200) {
          expect(answer).toMatchObject({ error: { message: expect.any(String), code: expect.any(String) } });
        }
      }),
      { numRuns: 40 },
    );
  });
});
