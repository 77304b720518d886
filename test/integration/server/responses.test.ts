import type OpenAI from 'openai';
import { describe, expect, it } from 'vitest';
import { ON, vendoredTemplate } from '../../helpers/lamp.js';
import { likelyText } from '../../helpers/likely-text.js';
import { openAiClient } from '../../helpers/openai-client.js';
import { cachedTokens, lamp, outputOf, tokensAfter } from '../../helpers/responses.js';
import { startServer, withoutRepeats } from '../../helpers/server.js';
import { readAll } from '../../helpers/streams.js';
import { iterate } from '../../helpers/turns.js';

type Responses = OpenAI.Responses.Response;
type Item = OpenAI.Responses.ResponseInputItem;

const instructions = 'You are a helpful mechanic.';
const question = 'My chain broke. What now?';
const greedy = { model: 'any', instructions, input: question, max_output_tokens: 12, temperature: 0 };
const oneCall = {
  ...greedy,
  tools: [lamp],
  tool_choice: 'required' as const,
  parallel_tool_calls: false,
  max_output_tokens: 100,
};

const callIn = ({ output }: Responses) =>
  output.find(({ type }) => type === 'function_call') as OpenAI.Responses.ResponseFunctionToolCall;

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
