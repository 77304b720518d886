// Anthropic's messages, with Anthropic's own client.
import Anthropic from '@anthropic-ai/sdk';
import { describe, expect, it } from 'vitest';
import { eventsOf, startServer, type TestServer, withoutRepeats } from '../../helpers/server.js';

const greedy = {
  model: 'any',
  system: 'You are a helpful mechanic.',
  messages: [{ role: 'user' as const, content: 'My chain broke. What now?' }],
  max_tokens: 12,
} satisfies Anthropic.MessageCreateParams;

const LAMP = {
  name: 'set_lamp',
  input_schema: { type: 'object' as const, properties: { on: { type: 'boolean' } }, required: ['on'] },
};

const clientOf = ({ url }: TestServer) => new Anthropic({ baseURL: url, apiKey: 'none', maxRetries: 0 });
const textOf = ({ content }: Anthropic.Message) =>
  content.map((block) => (block.type === 'text' ? block.text : '')).join('');

describe('POST /v1/messages', () => {
  it('replies like agent.chat, and reports the cached tokens of the next turn', async () => {
    const server = await startServer();
    const client = clientOf(server);
    const first = await client.messages.create(greedy);
    const messages = [{ role: 'system', content: greedy.system } as const, ...greedy.messages];
    const expected = await server.agent.chat({ messages, maxTokens: 12, reasoning: false }).result;
    expect(textOf(first)).toBe(expected.text);
    expect(first.stop_reason).toBe('max_tokens');
    expect(first.model).toBe(server.agent.id);
    const { input_tokens: computed, cache_read_input_tokens: cached } = first.usage;
    expect(computed + (cached ?? 0)).toBe(expected.usage.inputTokens);
    const next = await client.messages.create({
      ...greedy,
      messages: [
        ...greedy.messages,
        { role: 'assistant', content: first.content },
        { role: 'user', content: 'And then?' },
      ],
    });
    expect(next.usage.cache_read_input_tokens).toBeGreaterThanOrEqual(expected.usage.inputTokens + 12 - 8);
  });

  it('streams the same text in the order of events that clients expect', async () => {
    const server = await startServer();
    const whole = await clientOf(server).messages.create(greedy);
    const streamed = await clientOf(server).messages.stream(greedy).finalMessage();
    expect(textOf(streamed)).toBe(textOf(whole));
    expect(streamed.usage.output_tokens).toBe(12);
    const events = await eventsOf(await server.post('/v1/messages?beta=true', { ...greedy, stream: true }));
    expect(withoutRepeats(events.map(({ event }) => event))).toEqual([
      'message_start',
      'ping',
      'content_block_start',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
  });

  it('runs a tool loop, in which the second request reuses the first', async () => {
    const client = clientOf(await startServer());
    const request = {
      ...greedy,
      max_tokens: 200,
      tools: [LAMP],
      tool_choice: { type: 'any' as const, disable_parallel_tool_use: true },
    };
    const streamed = await client.messages.stream(request).finalMessage();
    const [call] = streamed.content.filter((block) => block.type === 'tool_use');
    expect(call).toMatchObject({ name: 'set_lamp', input: { on: expect.any(Boolean) } });
    expect(streamed.stop_reason).toBe('tool_use');
    const result = { type: 'tool_result' as const, tool_use_id: call?.id ?? '', content: 'The lamp is on' };
    const next = await client.messages.create({
      ...request,
      tool_choice: { type: 'none' },
      messages: [
        ...greedy.messages,
        { role: 'assistant', content: streamed.content },
        { role: 'user', content: [result, { type: 'text', text: 'Thanks' }] },
      ],
    });
    const { cache_read_input_tokens: cached } = next.usage;
    const { input_tokens: computed, cache_read_input_tokens: earlier, output_tokens: written } = streamed.usage;
    expect(cached).toBeGreaterThanOrEqual(computed + (earlier ?? 0) + written - 8);
  });

  it('accepts what Claude Code sends', async () => {
    const server = await startServer();
    const body = {
      ...greedy,
      system: [
        { type: 'text', text: 'You are Claude Code.' },
        { type: 'text', text: 'Be brief.', cache_control: { type: 'ephemeral' } },
      ],
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'Hello', cache_control: { type: 'ephemeral' } }] },
        { role: 'system', content: 'Today is Sunday.' },
        {
          role: 'assistant',
          content: [
            { type: 'thinking', thinking: 'Hm.', signature: '' },
            { type: 'tool_use', id: 'toolu_1', name: 'ToolSearch', input: { query: 'web' } },
          ],
        },
        {
          role: 'user',
          content: [
            {
              type: 'tool_result',
              tool_use_id: 'toolu_1',
              is_error: false,
              content: [
                { type: 'tool_reference', tool_name: 'WebFetch' },
                { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AA==' } },
              ],
            },
            { type: 'text', text: 'Go on' },
          ],
          output_config: { effort: 'high' },
        },
      ],
      tools: [
        { name: 'ToolSearch', description: 'Finds tools', input_schema: { type: 'object', properties: {} } },
        { ...LAMP, name: 'WebFetch', defer_loading: true },
        { type: 'web_search_20250305', name: 'web_search' },
      ],
      max_tokens: 128_000,
      stop_sequences: ['\n'],
      thinking: { type: 'adaptive', display: 'omitted' },
      context_management: { edits: [{ type: 'clear_thinking_20251015', keep: 'all' }] },
      safeguards: [{ type: 'dangerous_tool_use' }],
      metadata: { user_id: '{"session_id":"1"}' },
    };
    const response = await server.post('/v1/messages?beta=true', body, {
      headers: { 'x-claude-code-session-id': '1' },
    });
    expect([response.status, await response.json()]).toMatchObject([200, { type: 'message' }]);
    const counted = await server.post('/v1/messages/count_tokens?beta=true', body);
    expect(await counted.json()).toEqual({ input_tokens: expect.any(Number) });
  });

  it('counts the tokens that a request will report', async () => {
    const client = clientOf(await startServer());
    const { model, system, messages } = greedy;
    const { input_tokens: counted } = await client.messages.countTokens({ model, system, messages });
    const { usage } = await client.messages.create(greedy);
    expect(usage.input_tokens + (usage.cache_read_input_tokens ?? 0)).toBe(counted);
  });

  it('refuses long prompts in the words on which clients compact, and other errors in their own form', async () => {
    const server = await startServer({ contextSize: 256 });
    const long = { ...greedy, messages: [{ role: 'user', content: 'chain '.repeat(2000) }], stream: true };
    const response = await server.post('/v1/messages', long);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      type: 'error',
      error: {
        type: 'invalid_request_error',
        message: expect.stringMatching(/^prompt is too long: \d+ tokens > \d+ maximum$/),
      },
    });
    const broken = await server.post('/v1/messages', { messages: 'Hi' });
    expect([broken.status, await broken.json()]).toMatchObject([
      400,
      { type: 'error', error: { type: 'invalid_request_error' } },
    ]);
  });
});
