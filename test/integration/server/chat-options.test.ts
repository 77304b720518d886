// The options of OpenAI's chat completions, each with OpenAI's own client.
import type { ChatModel } from 'llama-headstart';
import { createHandler, listen } from 'llama-headstart/server';
import type OpenAI from 'openai';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startAgent } from '../../helpers/agents.js';
import { ON, vendoredTemplate } from '../../helpers/lamp.js';
import { likelyCalls, likelyText } from '../../helpers/likely-text.js';
import { openAiClient } from '../../helpers/openai-client.js';
import { startServer } from '../../helpers/server.js';
import { readAll } from '../../helpers/streams.js';
import { iterate } from '../../helpers/turns.js';

type Request = OpenAI.ChatCompletionCreateParamsNonStreaming;

const messages = [{ role: 'user', content: 'My chain broke. What now?' }] satisfies OpenAI.ChatCompletionMessageParam[];
const greedy: Request = { model: 'any', messages, max_tokens: 12, temperature: 0 };

const functionTool = (name: string) => ({ type: 'function', function: { name, parameters: ON } }) as const;
const tools = [functionTool('set_lamp'), functionTool('ring_bell')];

const choiceOf = async (client: OpenAI, request: Partial<Request>) => {
  const { choices } = await client.chat.completions.create({ ...greedy, ...request });
  return choices[0] as OpenAI.ChatCompletion.Choice;
};

const namesOf = ({ message }: OpenAI.ChatCompletion.Choice) =>
  message.tool_calls?.map((call) => call.type === 'function' && call.function.name) ?? [];

describe('tools in a chat completion', () => {
  it('are called as `tool_choice` says', async () => {
    const client = openAiClient(await startServer({ sampling: await likelyCalls(), contextSize: 4096 }));
    const call = async (tool_choice: OpenAI.ChatCompletionToolChoiceOption) =>
      namesOf(await choiceOf(client, { tools, tool_choice, parallel_tool_calls: false, max_tokens: 200 }));
    expect(await call({ type: 'function', function: { name: 'ring_bell' } })).toEqual(['ring_bell']);
    expect(await call('none')).toEqual([]);
    expect(await call('required')).toHaveLength(1);
    expect(await call('auto')).toHaveLength(1); // the model begins a call by itself
  });

  it('are called several times in one reply, unless `parallel_tool_calls` is false', async () => {
    const client = openAiClient(await startServer({ sampling: await likelyCalls(), contextSize: 4096 }));
    const request: Partial<Request> = { tools, tool_choice: 'required', max_tokens: 300 };
    const calls = async (parallel_tool_calls: boolean) =>
      namesOf(await choiceOf(client, { ...request, parallel_tool_calls })).length;
    expect(await calls(true)).toBeGreaterThan(1);
    expect(await calls(false)).toBe(1);
  });

  it('get their results in the next request, which reuses the first one', async () => {
    const client = openAiClient(await startServer());
    const request = { ...greedy, tools, tool_choice: 'required', parallel_tool_calls: false, max_tokens: 100 } as const;
    const first = await client.chat.completions.create(request);
    const reply = first.choices[0]?.message as OpenAI.ChatCompletionMessage;
    const result = { role: 'tool', tool_call_id: reply.tool_calls?.[0]?.id ?? '', content: 'Done' } as const;
    const next: Request = { ...request, messages: [...messages, reply, result], tool_choice: 'none' };
    const { usage } = await client.chat.completions.create(next);
    expect(usage?.prompt_tokens_details?.cached_tokens).toBeGreaterThanOrEqual((first.usage?.total_tokens ?? 0) - 8);
  });
});

describe('the schema of a tool', () => {
  it('may have keywords that no grammar can enforce', async () => {
    const server = await startServer();
    const parameters = {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      type: 'object',
      propertyNames: { pattern: '^[a-z]+$' },
      properties: {
        kind: { const: 'lamp' },
        level: { type: ['integer', 'null'], minimum: 0, exclusiveMinimum: -1, maximum: 9 },
        place: {
          oneOf: [
            { type: 'string', format: 'uri', minLength: 1 },
            { type: 'object', properties: {} },
          ],
        },
        list: { anyOf: [{ type: 'array', items: { enum: ['a', 1] }, minItems: 1, maxItems: 2 }, { type: 'null' }] },
      },
      additionalProperties: false,
    };
    const chat = { type: 'function', function: { name: 'deep', parameters } };
    const bodies: [string, object][] = [
      ['/v1/chat/completions', { messages, tools: [chat] }],
      ['/v1/messages', { messages, tools: [{ name: 'deep', input_schema: parameters }] }],
      ['/v1/responses', { input: messages, tools: [{ type: 'function', name: 'deep', parameters }] }],
    ];
    for (const [path, body] of bodies) {
      const { status } = await server.post(path, { ...body, max_tokens: 2, max_output_tokens: 2 });
      expect([path, status]).toEqual([path, 200]);
    }
  });
});

describe('the form of a chat completion', () => {
  it('is any JSON object with `json_object`', async () => {
    const client = openAiClient(await startServer());
    const { message } = await choiceOf(client, {
      messages: [{ role: 'user', content: 'Answer with an object' }],
      response_format: { type: 'json_object' },
      max_tokens: 400,
      logit_bias: { 34: 100, 125: 60 }, // the tokens of `"` and `}` end the object soon
    });
    expect(JSON.parse(message.content ?? '')).toBeTypeOf('object');
  });

  it('ends in front of a stop string', async () => {
    const client = openAiClient(await startServer());
    const { message } = await choiceOf(client, {});
    const text = message.content ?? '';
    for (const stop of [text.slice(4, 8), ['not in the reply', text.slice(4, 8)]]) {
      const stopped = await choiceOf(client, { stop });
      expect([stopped.message.content, stopped.finish_reason]).toEqual([text.slice(0, 4), 'stop']);
    }
  });

  it('has at most `max_completion_tokens`, which overrides `max_tokens`', async () => {
    const client = openAiClient(await startServer());
    const { usage, choices } = await client.chat.completions.create({ ...greedy, max_completion_tokens: 5 });
    expect([usage?.completion_tokens, choices[0]?.finish_reason]).toEqual([5, 'length']);
  });
});

describe('the sampling of a chat completion', () => {
  it('obeys `logit_bias`', async () => {
    const server = await startServer();
    const client = openAiClient(server);
    const { message } = await choiceOf(client, { logit_bias: { 65: 100 } });
    expect(message.content).toBe('A'.repeat(12));
    const firstToken = async (request: Partial<Request>) =>
      (await choiceOf(client, { ...request, max_tokens: 1, logprobs: true })).logprobs?.content?.[0]?.token ?? '';
    const likeliest = await firstToken({});
    const [token = 0] = await server.agent.model.tokenize(likeliest);
    expect(await firstToken({ logit_bias: { [token]: -100 } })).not.toBe(likeliest);
  });

  it('obeys the penalties of repeated tokens', async () => {
    const client = openAiClient(await startServer());
    const textWith = async (request: Partial<Request>) =>
      (await choiceOf(client, { logit_bias: { 65: 90, 66: 60 }, ...request })).message.content;
    expect(await textWith({})).toBe('A'.repeat(12));
    expect(await textWith({ presence_penalty: 40 })).toMatch(/^ABA/);
    expect(await textWith({ frequency_penalty: 20 })).toMatch(/^AAB/);
  });

  it('takes the most likely token with `top_p` and `top_k` of almost nothing', async () => {
    const client = openAiClient(await startServer());
    const greedyText = (await choiceOf(client, {})).message.content;
    for (const only of [{ top_p: 1e-9 }, { top_k: 1 } as object]) {
      expect((await choiceOf(client, { temperature: 2, ...only })).message.content).toBe(greedyText);
    }
  });
});

describe('the reasoning of a chat completion', () => {
  it('is returned, at once and as a stream, and sent back without loss of cached tokens', async () => {
    const sampling = { ...(await likelyText('<think>Hm.</think>Yes')), penaltyLastTokens: 8 };
    const client = openAiClient(await startServer({ chatTemplate: vendoredTemplate('Qwen-Qwen3-0.6B'), sampling }));
    const request = { model: 'any', messages, max_tokens: 16 };
    const { choices, usage } = await client.chat.completions.create(request);
    const reply = choices[0]?.message as OpenAI.ChatCompletionMessage & { reasoning_content?: string };
    expect(reply.reasoning_content?.length).toBeGreaterThan(0);
    expect(usage?.completion_tokens_details?.reasoning_tokens).toBeGreaterThan(0);
    const chunks = await readAll(iterate(await client.chat.completions.create({ ...request, stream: true })));
    const deltas = chunks.map(({ choices: [choice] }) => (choice?.delta ?? {}) as { reasoning_content?: string });
    expect(deltas.map(({ reasoning_content: text = '' }) => text).join('')).toBe(reply.reasoning_content);
    const call = { ...messages[0], content: 'And then?' };
    const next = await client.chat.completions.create({ ...request, messages: [...messages, reply, call] });
    expect(next.usage?.prompt_tokens_details?.cached_tokens).toBeGreaterThanOrEqual((usage?.prompt_tokens ?? 0) - 8);
    const off = await client.chat.completions.create({ ...request, reasoning_effort: 'none' });
    expect(off.choices[0]?.message).not.toHaveProperty('reasoning_content');
  });
});

describe('the name of a conversation', () => {
  it('comes from the most specific header of a client, or from `prompt_cache_key`', async () => {
    const affinities: (string | undefined)[] = [];
    const agent = await startAgent();
    const model: ChatModel = {
      id: agent.id,
      countTokens: (request, options) => agent.countTokens(request, options),
      chat: (request) => {
        affinities.push(request.affinity);
        return agent.chat(request);
      },
    };
    const server = await listen(createHandler(model), { port: 0 });
    onTestFinished(() => server.close());
    const client = openAiClient(server);
    await client.chat.completions.create({ ...greedy, prompt_cache_key: 'thread' });
    const names = {
      'session-id': 'Codex, the session of a sub-agent and its parent',
      'thread-id': 'Codex, the sub-agent',
      'x-session-id': 'opencode',
      'x-claude-code-session-id': 'Claude Code, the session',
      'x-claude-code-agent-id': 'Claude Code, the sub-agent',
    };
    const { 'thread-id': ofCodex, ...others } = names;
    for (const headers of [names, others, { 'x-session-id': names['x-session-id'] }]) {
      await client.chat.completions.create({ ...greedy, prompt_cache_key: 'thread' }, { headers });
    }
    expect(affinities).toEqual(['thread', ofCodex, names['x-claude-code-agent-id'], names['x-session-id']]);
  });
});
