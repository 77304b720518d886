// OpenAI's chat completions, with OpenAI's own client.
import type OpenAI from 'openai';
import { describe, expect, it } from 'vitest';
import { openAiClient } from '../../helpers/openai-client.js';
import { startServer } from '../../helpers/server.js';
import { readAll } from '../../helpers/streams.js';
import { iterate } from '../../helpers/turns.js';

const messages = [
  { role: 'system', content: 'You are a helpful mechanic.' },
  { role: 'user', content: 'My chain broke. What now?' },
] as const satisfies OpenAI.ChatCompletionMessageParam[];
const greedy = { model: 'any', messages: [...messages], max_tokens: 12, temperature: 0 };

const argumentsOf = (call: OpenAI.ChatCompletionMessageToolCall | undefined): unknown =>
  call?.type === 'function' ? JSON.parse(call.function.arguments) : call;

describe('POST /v1/chat/completions', () => {
  it('replies like agent.chat, and reports the cached tokens of the next turn', async () => {
    const server = await startServer();
    const client = openAiClient(server);
    const first = await client.chat.completions.create(greedy);
    const expected = await server.agent.chat({ messages, maxTokens: 12 }).result;
    expect(first.model).toBe(server.agent.id);
    expect(first.choices[0]?.message.content).toBe(expected.text);
    expect(first.choices[0]?.finish_reason).toBe(expected.finishReason);
    expect(first.usage).toMatchObject({
      prompt_tokens: expected.usage.inputTokens,
      completion_tokens: expected.usage.outputTokens,
      total_tokens: expected.usage.inputTokens + expected.usage.outputTokens,
    });
    const reply = { role: 'assistant', content: expected.text } as const;
    const next = await client.chat.completions.create({
      ...greedy,
      messages: [...messages, reply, { role: 'user', content: 'And the labor?' }],
    });
    const cached = next.usage?.prompt_tokens_details?.cached_tokens ?? 0;
    expect(cached).toBeGreaterThanOrEqual(expected.usage.inputTokens + expected.usage.outputTokens - 8);
  });

  it('streams the same text, with the usage in the last chunk', async () => {
    const client = openAiClient(await startServer());
    const whole = await client.chat.completions.create(greedy);
    const stream = await client.chat.completions.create({
      ...greedy,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await readAll(iterate(stream));
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe(
      whole.choices[0]?.message.content,
    );
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe('length');
    expect(chunks.at(-1)?.usage).toMatchObject({ completion_tokens: 12, prompt_tokens: whole.usage?.prompt_tokens });
  });

  it('returns several choices, log-probabilities, and the same reply for the same seed', async () => {
    const client = openAiClient(await startServer());
    const request = { ...greedy, temperature: 1, seed: 7, n: 3, logprobs: true, top_logprobs: 2 };
    const [one, two] = [await client.chat.completions.create(request), await client.chat.completions.create(request)];
    const texts = (reply: OpenAI.ChatCompletion) => reply.choices.map(({ message }) => message.content);
    expect(texts(one)).toEqual(texts(two));
    expect(new Set(texts(one)).size).toBe(3);
    expect(one.choices[1]?.logprobs?.content?.[0]?.top_logprobs).toHaveLength(2);
    expect(one.usage?.completion_tokens).toBe(36);
  });

  it('returns calls of tools, at once and as a stream', async () => {
    const client = openAiClient(await startServer());
    const parameters = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] };
    const tools = [{ type: 'function', function: { name: 'set_lamp', parameters } } as const];
    const request = { ...greedy, max_tokens: 200, tools, tool_choice: 'required' as const };
    const { choices } = await client.chat.completions.create(request);
    const call = choices[0]?.message.tool_calls?.[0];
    expect(call?.type === 'function' && call.function.name).toBe('set_lamp');
    expect(choices[0]?.finish_reason).toBe('tool_calls');
    const streamed = await client.chat.completions.stream(request).finalChatCompletion();
    const written = streamed.choices[0]?.message.tool_calls?.[0];
    expect(argumentsOf(written)).toEqual(argumentsOf(call));
  });

  it('follows a JSON schema', async () => {
    const client = openAiClient(await startServer());
    const schema = {
      type: 'object',
      properties: { ok: { type: 'boolean' } },
      required: ['ok'],
      additionalProperties: false,
    };
    const { choices } = await client.chat.completions.create({
      ...greedy,
      max_tokens: 200,
      response_format: { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } },
    });
    expect(JSON.parse(choices[0]?.message.content ?? '')).toEqual({ ok: expect.any(Boolean) });
  });

  it('ignores unknown fields, and a limit of tokens beyond the context', async () => {
    const server = await startServer();
    const body = { ...greedy, max_tokens: 1_000_000, stop: ['\n'], store: false, unheard_of: { deep: [1] } };
    expect((await server.post('/v1/chat/completions', body)).status).toBe(200);
  });

  it('refuses a prompt that is too long, before the stream begins', async () => {
    const server = await startServer({ contextSize: 256 });
    for (const stream of [false, true]) {
      const long = [{ role: 'user', content: 'chain '.repeat(2000) }];
      const response = await server.post('/v1/chat/completions', { messages: long, stream });
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ error: { code: 'context_length_exceeded' } });
    }
  });

  it('stops decoding when the client leaves', async () => {
    const server = await startServer();
    const leaving = new AbortController();
    const response = await server.post(
      '/v1/chat/completions',
      { ...greedy, max_tokens: 900, stream: true },
      { signal: leaving.signal },
    );
    const reader = response.body?.getReader();
    await reader?.read();
    leaving.abort();
    await expect.poll(() => server.agent.health().activeSessions).toBe(0);
  });
});
