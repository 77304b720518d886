// The options of Anthropic's messages, each with Anthropic's own client.
import Anthropic from '@anthropic-ai/sdk';
import { describe, expect, it } from 'vitest';
import type { AgentSettings } from '../../helpers/agents.js';
import { ON, vendoredTemplate } from '../../helpers/lamp.js';
import { likelyCalls, likelyText } from '../../helpers/likely-text.js';
import { eventsOf, startServer } from '../../helpers/server.js';

type Request = Anthropic.MessageCreateParamsNonStreaming;

const messages = [{ role: 'user', content: 'My chain broke. What now?' }] satisfies Anthropic.MessageParam[];
const greedy: Request = { model: 'any', messages, max_tokens: 12 };
const toolOf = (name: string) => ({ name, input_schema: ON as Anthropic.Tool.InputSchema });

async function startClient(settings: AgentSettings = {}) {
  const server = await startServer(settings);
  const client = new Anthropic({ baseURL: server.url, apiKey: 'none', maxRetries: 0 });
  const create = (request: Partial<Request>) => client.messages.create({ ...greedy, ...request });
  const stream = (request: Partial<Request>) => client.messages.stream({ ...greedy, ...request }).finalMessage();
  return { server, client, create, stream };
}

const textOf = ({ content }: Anthropic.Message) =>
  content.map((block) => (block.type === 'text' ? block.text : '')).join('');
const namesIn = ({ content }: Anthropic.Message) =>
  content.flatMap((block) => (block.type === 'tool_use' ? [block.name] : []));

describe('a message', () => {
  it('thinks only if the request has `thinking`, at once and as a stream', async () => {
    const sampling = { ...(await likelyText('<think>Hm.</think>Yes')), penaltyLastTokens: 8 };
    const { create, stream } = await startClient({ chatTemplate: vendoredTemplate('Qwen-Qwen3-0.6B'), sampling });
    const typesOf = ({ content }: Anthropic.Message) => content.map(({ type }) => type);
    const thinking = { type: 'enabled', budget_tokens: 1024 } as const;
    const whole = await create({ thinking, max_tokens: 16 });
    expect(typesOf(whole)).toEqual(['thinking', 'text']);
    const streamed = await stream({ thinking, max_tokens: 16 });
    expect(streamed.content).toEqual(whole.content);
    for (const off of [{}, { thinking: { type: 'disabled' } as const }]) {
      expect(typesOf(await create({ ...off, max_tokens: 16 }))).toEqual(['text']);
    }
    const back = [
      ...messages,
      { role: 'assistant', content: whole.content },
      ...messages,
    ] satisfies Anthropic.MessageParam[];
    const next = await create({ thinking, messages: back });
    const { input_tokens: computed, cache_read_input_tokens: cached } = whole.usage;
    expect(next.usage.cache_read_input_tokens).toBeGreaterThanOrEqual(computed + (cached ?? 0) - 8);
  });

  it('ends in front of a stop sequence, and names it', async () => {
    const { create, stream } = await startClient();
    const text = textOf(await create({}));
    const stop = text.slice(4, 8);
    const expected = {
      stop_reason: 'stop_sequence',
      stop_sequence: stop,
      content: [{ type: 'text', text: text.slice(0, 4) }],
    };
    expect(await create({ stop_sequences: [stop] })).toMatchObject(expected);
    expect(await create({ stop_sequences: ['not in the reply', stop] })).toMatchObject(expected);
    expect(await stream({ stop_sequences: ['not in the reply', stop] })).toMatchObject(expected);
  });

  it('calls tools as `tool_choice` says', async () => {
    const { create } = await startClient({ sampling: await likelyCalls(), contextSize: 4096 });
    const tools = [toolOf('set_lamp'), toolOf('ring_bell')];
    const call = async (tool_choice: Anthropic.ToolChoice) =>
      namesIn(await create({ tools, tool_choice, max_tokens: 300 }));
    const disable_parallel_tool_use = true;
    expect(await call({ type: 'tool', name: 'ring_bell', disable_parallel_tool_use })).toEqual(['ring_bell']);
    expect(await call({ type: 'auto', disable_parallel_tool_use })).toHaveLength(1);
    expect((await call({ type: 'any' })).length).toBeGreaterThan(1);
    expect(await call({ type: 'none' })).toEqual([]);
  });

  it('follows the JSON schema in `output_config.format`', async () => {
    const { create } = await startClient();
    const schema = { ...ON, properties: { on: { type: 'boolean' } } };
    const reply = await create({ max_tokens: 200, output_config: { format: { type: 'json_schema', schema } } });
    expect(JSON.parse(textOf(reply))).toEqual({ on: expect.any(Boolean) });
  });
});

describe('`cache_control`', () => {
  const cache_control = { type: 'ephemeral' } as const;
  const PLACES: [string, Partial<Request>][] = [
    ['a tool', { tools: [{ ...toolOf('set_lamp'), cache_control }] }],
    ['the system prompt', { system: [{ type: 'text', text: 'You are a mechanic.', cache_control }] }],
    [
      'a message',
      { messages: [{ role: 'user', content: [{ type: 'text', text: 'My chain broke.', cache_control }] }] },
    ],
  ];

  it.each(PLACES)('on %s counts prefilled tokens as written to the cache', async (_, request) => {
    const { create, stream } = await startClient();
    const first = await create(request);
    expect(first.usage).toMatchObject({ input_tokens: 0, cache_read_input_tokens: 0 });
    const written = first.usage.cache_creation_input_tokens ?? 0;
    const second = await stream(request);
    const { cache_creation_input_tokens: again, cache_read_input_tokens: read } = second.usage;
    expect([again, read]).toEqual([1, written - 1]); // the last token of a prompt is always decoded
  });

  it('that is missing or null counts prefilled tokens as input', async () => {
    const { create } = await startClient();
    const content = [{ type: 'text', text: 'My chain broke: "cache_control":{}', cache_control: null }] as const;
    const { usage } = await create({ messages: [{ role: 'user', content: [...content] }] });
    expect(usage).toMatchObject({ cache_creation_input_tokens: 0, input_tokens: expect.any(Number) });
    expect(usage.input_tokens).toBeGreaterThan(0);
  });

  it('has fields of 0 in `message_start`, and the final numbers in `message_delta`', async () => {
    const { server, create } = await startClient();
    const { usage: whole } = await create({});
    const events = await eventsOf(await server.post('/v1/messages', { ...greedy, stream: true }));
    const usageOf = (name: string) => {
      const data = JSON.parse(events.find(({ event }) => event === name)?.data ?? '');
      return (data.message ?? data).usage as Anthropic.Usage;
    };
    const total = whole.input_tokens + (whole.cache_read_input_tokens ?? 0);
    const nothing = { cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 0 };
    expect(usageOf('message_start')).toEqual({ input_tokens: total, ...nothing });
    const { input_tokens: computed, cache_read_input_tokens: cached, output_tokens } = usageOf('message_delta');
    expect([computed + (cached ?? 0), output_tokens]).toEqual([total, 12]);
    expect(cached).toBeGreaterThan(0);
  });
});

describe("a tool that Anthropic's servers run", () => {
  const tools: Anthropic.ToolUnion[] = [{ type: 'web_search_20250305', name: 'web_search' }];
  const forced: Partial<Request> = {
    tools,
    tool_choice: { type: 'any', disable_parallel_tool_use: true },
    max_tokens: 120,
  };
  /** The model ends each text in a call at once, because the token of `"` is likely. */
  const settings = { sampling: { temperature: 0, logitBias: { 34: 30 } } };
  const answered = [
    { type: 'server_tool_use', id: expect.stringMatching(/^srvtoolu_/), name: 'web_search', input: { query: '' } },
    {
      type: 'web_search_tool_result',
      tool_use_id: expect.stringMatching(/^srvtoolu_/),
      content: { type: 'web_search_tool_result_error', error_code: 'unavailable' },
    },
    { type: 'text' },
  ];

  it('is answered as unavailable, and the model continues, at once and as a stream', async () => {
    const { client, create, stream } = await startClient(settings);
    const whole = await create(forced);
    expect(whole.content).toMatchObject(answered);
    expect((await stream(forced)).content).toMatchObject(answered);
    const reply = { role: 'assistant', content: whole.content } as Anthropic.MessageParam;
    const next = await create({
      ...forced,
      messages: [...messages, reply, ...messages],
      tool_choice: { type: 'none' },
    });
    const { input_tokens: computed, cache_read_input_tokens: earlier } = whole.usage;
    const { input_tokens: firstPrompt } = await client.messages.countTokens({ model: 'any', messages, tools });
    const secondPrompt = computed + (earlier ?? 0) - firstPrompt;
    expect(next.usage.cache_read_input_tokens).toBeGreaterThanOrEqual(secondPrompt - 8);
  });

  it('does not answer calls of the tools of the client', async () => {
    const { create } = await startClient({ sampling: await likelyCalls(), contextSize: 4096 });
    const tool_choice = { type: 'tool', name: 'set_lamp', disable_parallel_tool_use: true } as const;
    const reply = await create({ ...forced, tools: [...tools, toolOf('set_lamp')], tool_choice, max_tokens: 200 });
    expect(reply).toMatchObject({ content: [{ type: 'tool_use', name: 'set_lamp' }], stop_reason: 'tool_use' });
  });
});
