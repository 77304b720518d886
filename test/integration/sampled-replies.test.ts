// A prompt contains the model's earlier replies with the tokens that were sampled, even if the client sends the replies
// back in another form. The next request then reuses the KV state of these replies.
import { join } from 'node:path';
import type {
  AgentServer,
  AssistantMessage,
  ChatMessage,
  ChatRequest,
  MessageInput,
  Reply,
  Tool,
} from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { ALWAYS } from '../helpers/conversations.js';
import { likelyText } from '../helpers/likely-text.js';
import { writeLora } from '../helpers/loras.js';
import { user } from '../helpers/messages.js';
import { SYSTEM_PROMPT } from '../helpers/prompts.js';
import { coldTokens, promptWith, renderedTokens, tokensOf } from '../helpers/sampled.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
const QUESTION = user('My chain broke. What now?');
/** A grammar enforces the form of a call, but not its tokens: models with random weights write it in small pieces. */
const ORDER: Tool = {
  name: 'order',
  description: 'Orders a part',
  inputSchema: {
    type: 'object',
    properties: { part: { enum: ['chain'] }, count: { enum: [2] } },
    required: ['part', 'count'],
    additionalProperties: false,
  },
};
const CALL = { toolChoice: 'required', parallelToolCalls: false, maxTokens: 150, logProbabilities: 0 } as const;
const TOOLS = { tools: [ORDER], toolChoice: 'none' } as const;

const start = (settings: AgentSettings = {}) => startAgent({ contextSize: 2048, ...EXACT, ...settings });

const ask = (agent: AgentServer, messages: readonly ChatMessage[], more: Partial<ChatRequest> = {}): Promise<Reply> =>
  agent.chat({ messages, maxTokens: 8, logProbabilities: 0, ...more }).result;

const endOf = async (agent: AgentServer) =>
  (await agent.model.tokenize('<|im_end|>', { parseSpecial: true }))[0] as number;

/** The conversation after a call, in which the client has changed the form of the reply. */
function afterCall({ text, toolCalls }: Reply, change: Partial<AssistantMessage> = {}): ChatMessage[] {
  const [call] = toolCalls;
  expect(call).toMatchObject({ toolName: 'order', input: { part: 'chain', count: 2 } });
  const toolCallId = call?.toolCallId as string;
  return [
    QUESTION,
    { role: 'assistant', content: text, toolCalls, ...change },
    { role: 'tool', toolCallId, toolName: 'order', content: 'It is ordered' },
  ];
}

/** The prompt of `messages`, if the first reply has its sampled tokens. */
async function promptAfter(agent: AgentServer, reply: Reply, messages: readonly ChatMessage[]) {
  const { name, description = '', inputSchema } = ORDER;
  const tools = [{ name, description, parameters: inputSchema as object }];
  const source = { systemPrompt: SYSTEM_PROMPT, tools };
  const before = await renderedTokens(agent, source, [QUESTION]);
  const rendered = await renderedTokens(agent, source, messages);
  return { before, rendered, expected: promptWith(before, tokensOf(reply), rendered, await endOf(agent)) };
}

describe.each(MEMORIES)('with the %s model', (name) => {
  it('a request reuses a sampled call, and gets the reply of a cold run over the sampled tokens', async () => {
    const agent = await start({ name });
    const reply = await ask(agent, [QUESTION], { ...CALL, tools: [ORDER] });
    const toolCalls = reply.toolCalls.map((call) => ({ ...call, input: { count: 2, part: 'chain' } }));
    const messages = afterCall(reply, { toolCalls });
    const { before, rendered, expected } = await promptAfter(agent, reply, messages);
    expect(expected).not.toEqual(rendered);
    const after = await ask(agent, messages, TOOLS);
    expect(after.usage.inputTokens).toBe(expected.length);
    expect(after.usage.cachedInputTokens).toBeGreaterThanOrEqual(before.length + tokensOf(reply).length - 1);
    expect(tokensOf(after)).toEqual(await coldTokens(name, expected, 8));
  });

  it('a request reuses a sampled call after a restart in the middle of a tool loop', async () => {
    const settings = { name, cacheDir: await temporaryDirectory(), conversations: ALWAYS };
    const first = await start(settings);
    const reply = await ask(first, [QUESTION], { ...CALL, tools: [ORDER] });
    await first.close();
    const agent = await start(settings);
    const toolCalls = reply.toolCalls.map((call) => ({ ...call, input: { count: 2, part: 'chain' } }));
    const messages = afterCall(reply, { toolCalls });
    const { before, expected } = await promptAfter(agent, reply, messages);
    const after = await ask(agent, messages, TOOLS);
    expect(after.cache.source).toBe('disk');
    expect(after.usage.inputTokens).toBe(expected.length);
    expect(after.usage.cachedInputTokens).toBeGreaterThanOrEqual(before.length + tokensOf(reply).length - 1);
    expect(tokensOf(after)).toEqual(await coldTokens(name, expected, 8));
  });

  it('a session reuses its own calls, and so do its fork and a session that was saved and restored', async () => {
    const agent = await start({ name });
    const path = join(await temporaryDirectory(), 'session.json');
    const session = await agent.createSession(TOOLS);
    const reply = await session.send('My chain broke. What now?', CALL);
    await session.save(path, { state: true });
    const restored = await (await start({ name, tools: [ORDER] })).restoreSession(path);
    const messages = afterCall(reply);
    const { expected } = await promptAfter(agent, reply, messages);
    const cold = await coldTokens(name, expected, 8);
    for (const each of [await session.fork(), session, restored]) {
      const result = messages.at(-1) as MessageInput;
      const after = await each.send(result, { toolChoice: 'none', maxTokens: 8, logProbabilities: 0 });
      expect(after.usage.inputTokens).toBe(expected.length);
      const sampled = reply.usage.inputTokens + tokensOf(reply).length;
      expect(after.usage.cachedInputTokens).toBeGreaterThanOrEqual(sampled - 1);
      expect(tokensOf(after)).toEqual(cold);
    }
  });
});

describe('a request after a reply', () => {
  /** The number of input tokens of the next request, and the numbers for a rendered and for the sampled reply. */
  async function counts(
    agent: AgentServer,
    reply: Reply,
    change: Partial<AssistantMessage> = {},
    more: Partial<ChatRequest> = {},
  ) {
    const { content = reply.text, ...rest } = change;
    const { usage } = await ask(agent, afterCall(reply, { ...rest, content }), { ...TOOLS, maxTokens: 1, ...more });
    const { rendered, expected } = await promptAfter(agent, reply, afterCall(reply, rest));
    expect(expected.length).not.toBe(rendered.length);
    return { input: usage.inputTokens, rendered: rendered.length, sampled: expected.length };
  }

  it('contains the sampled reply if its content is null or a list of parts', async () => {
    const agent = await start();
    const reply = await ask(agent, [QUESTION], { ...CALL, tools: [ORDER] });
    for (const content of [null, [], [{ type: 'text', text: reply.text }]] as unknown as string[]) {
      const { input, sampled } = await counts(agent, reply, { content });
      expect(input).toBe(sampled);
    }
  });

  it('has the reply as rendered if a value differs, for another tenant, and with other adapters', async () => {
    const agent = await start();
    const reply = await ask(agent, [QUESTION], { ...CALL, tools: [ORDER] });
    const toolCalls = reply.toolCalls.map((call) => ({ ...call, input: { part: 'chain', count: 3 } }));
    const forged = await counts(agent, reply, { toolCalls });
    expect(forged.input).toBe(forged.rendered);
    const tenant = await counts(agent, reply, {}, { tenant: 'other' });
    expect(tenant.input).toBe(tenant.rendered);
    const own = await counts(agent, reply);
    expect(own.input).toBe(own.sampled);
    const lora = await writeLora(await temporaryDirectory(), 'adapter', {}, agent.model.info.embeddingSize);
    await agent.setLoras([{ source: lora }]);
    const adapted = await counts(agent, reply);
    expect(adapted.input).toBe(adapted.rendered);
  });

  it('has the reply as rendered after `forget`, and other conversations keep their replies', async () => {
    const agent = await start();
    const [one, two] = [
      { affinity: 'one', tenant: 'a' },
      { affinity: 'two', tenant: 'b' },
    ];
    const options = { ...CALL, tools: [ORDER] };
    const [first, second] = [
      await ask(agent, [QUESTION], { ...options, ...one }),
      await ask(agent, [QUESTION], { ...options, ...two }),
    ];
    await agent.forget({ affinity: 'one' });
    const forgotten = await counts(agent, first, {}, one);
    expect(forgotten.input).toBe(forgotten.rendered);
    const kept = await counts(agent, second, {}, two);
    expect(kept.input).toBe(kept.sampled);
  });

  it('has the reply as rendered with `reproducible`', async () => {
    const agent = await start({ reproducible: true, name: 'dense-quantised' });
    const reply = await ask(agent, [QUESTION], { ...CALL, tools: [ORDER] });
    const { input, rendered } = await counts(agent, reply);
    expect(input).toBe(rendered);
  });
});

describe('a reply that did not end by itself', () => {
  /** Expects that the next request reuses the tokens of a reply, except the newest ones. */
  async function expectReused(agent: AgentServer, before: Reply['usage'], text: string, sampled: number) {
    const messages = [
      QUESTION,
      { role: 'assistant' as const, content: text },
      { role: 'user' as const, content: 'Why?' },
    ];
    const { usage } = await ask(agent, messages);
    expect(usage.cachedInputTokens).toBeGreaterThanOrEqual(before.inputTokens + sampled);
    const cold = await start();
    expect((await ask(cold, messages)).usage.inputTokens).not.toBe(usage.inputTokens);
  }

  it('is reused after a limit', async () => {
    const agent = await start();
    const { text, usage } = await ask(agent, [QUESTION], { maxTokens: 40 });
    await expectReused(agent, usage, text, 39); // the newest token is not decoded yet
  });

  it('is reused up to a stop string', async () => {
    const agent = await start();
    const whole = await ask(agent, [QUESTION], { maxTokens: 40 });
    const other = await start();
    const stop = whole.text.slice(-3);
    const { text, finishReason, detail, usage } = await ask(other, [QUESTION], { maxTokens: 40, stop: [stop] });
    expect({ finishReason, detail }).toEqual({ finishReason: 'stop', detail: 'stop-string' });
    await expectReused(other, usage, text, 35);
  });

  it('is reused up to the end of its text if a limit ended it after a complete call', async () => {
    const agent = await start();
    const { logitBias, ...likely } = await likelyText('<tool_call>');
    // Each character of the text is sampled as a token of its own, and a newline follows the tag.
    const [t, h, e, newline] = Buffer.from('the\n') as unknown as [number, number, number, number];
    const single = { ...logitBias, [t]: 114, [h]: 106, [e]: 98, [newline]: 186 };
    const sampling = { ...likely, logitBias: single, penaltyLastTokens: 8 };
    const limits = { parallelToolCalls: true, maxTokens: 90, logProbabilities: 0 };
    const reply = await ask(agent, [QUESTION], { ...limits, tools: [ORDER], sampling });
    expect([reply.text, reply.toolCalls.length, tokensOf(reply).length]).toEqual(['the', 1, 90]);
    const messages = afterCall(reply);
    const { before, rendered } = await promptAfter(agent, reply, messages);
    const { usage } = await ask(agent, messages, { ...TOOLS, maxTokens: 1 });
    const whole = await agent.model.tokenize('the');
    expect(usage.inputTokens).toBe(rendered.length - whole.length + 'the'.length);
    expect(usage.cachedInputTokens).toBe(before.length + 'the'.length);
  });

  it('is reused after an abort', async () => {
    const agent = await start();
    const { usage } = await ask(agent, [QUESTION], { maxTokens: 1, tenant: 'other' });
    const controller = new AbortController();
    let text = '';
    const reading = (async () => {
      for await (const part of agent.chat({ messages: [QUESTION], maxTokens: 400, signal: controller.signal })) {
        text += part.type === 'text-delta' ? part.text : '';
        if (text.length > 150) {
          controller.abort();
        }
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ABORTED' });
    await expectReused(agent, usage, text, 35);
  });
});
