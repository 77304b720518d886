// What Codex sends to `/v1/responses`, with OpenAI's own client and as raw bodies.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ON } from '../../helpers/lamp.js';
import { cachedTokens, lamp, outputOf, tokensAfter } from '../../helpers/responses.js';
import { eventsOf, startServer, type TestServer } from '../../helpers/server.js';

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
