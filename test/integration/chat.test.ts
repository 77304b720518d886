// `chat` answers a whole conversation with each request. It reuses the tokens that earlier requests have computed.
import type { AgentServer, ChatMessage, ChatRequest, Reply, RequestMessage } from 'llama-headstart';
import { subscribeDiagnostics, tool } from 'llama-headstart';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type AgentSettings, EXACT, shareReplies, startAgent } from '../helpers/agents.js';
import { vendoredTemplate } from '../helpers/lamp.js';
import { assistant, user } from '../helpers/messages.js';
import { codeOf } from '../helpers/native.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
const QUESTIONS = ['My chain broke. What now?', 'What does a new one cost?', 'And the labor?', 'Thank you'];
/** The sampled tokens and the rendered tokens of a reply may differ in up to this many tokens at the end. */
const MARGIN = 8;

/** Asks the questions in separate requests. Each request has all messages so far. */
async function converse(
  agent: AgentServer,
  questions = QUESTIONS,
  more: Partial<ChatRequest> = {},
  between: () => Promise<unknown> = async () => undefined,
): Promise<Reply[]> {
  const messages: ChatMessage[] = [];
  const all: Reply[] = [];
  for (const question of questions) {
    messages.push(user(question));
    const reply = await agent.chat({ messages, maxTokens: 12, ...more }).result;
    messages.push(assistant(reply.text));
    all.push(reply);
    await between();
  }
  return all;
}

/**
 * Returns the replies to the questions if a new agent answers each request.
 *
 * @param other the agent that gave the same replies. Prompts contain them with the tokens that this agent sampled.
 */
async function coldReplies(settings: AgentSettings, other: AgentServer, questions = QUESTIONS): Promise<string[]> {
  const messages: ChatMessage[] = [];
  const texts: string[] = [];
  for (const question of questions) {
    messages.push(user(question));
    const agent = await startAgent({ ...settings, maxResidentTemplates: 0 });
    shareReplies(other, agent);
    const reply = await agent.chat({ messages, maxTokens: 12 }).result;
    await agent.close();
    messages.push(assistant(reply.text));
    texts.push(reply.text);
  }
  return texts;
}

/**
 * Returns, for each turn after the first, the number of input tokens that were computed although an earlier turn had
 * computed them.
 */
function computedAgain(all: readonly Reply[]): number[] {
  return all.slice(1).map(({ usage }, index) => {
    const { inputTokens, outputTokens } = (all[index] as Reply).usage;
    return inputTokens + outputTokens - usage.cachedInputTokens;
  });
}

describe.each(MEMORIES)('with the %s model, a conversation in separate requests', (name) => {
  it('prefills only the new messages, and gets the replies of a cold agent', async () => {
    const settings = { name, ...EXACT };
    const agent = await startAgent(settings);
    const all = await converse(agent);
    expect(all.map(({ text }) => text)).toEqual(await coldReplies(settings, agent));
    // If the memory cannot be trimmed, a reply whose rendered tokens differ from its sampled tokens is computed again.
    const reply = name === 'dense' ? 0 : 12;
    expect(Math.max(...computedAgain(all))).toBeLessThanOrEqual(reply + MARGIN);
    expect(agent.health().heldSequences).toBe(1); // each request continued the sequence of the previous request
  });

  it('prefills no additional tokens because of other requests between its turns', async () => {
    const agent = await startAgent({ name, ...EXACT, nSeqMax: 2 });
    const alone = await converse(agent);
    const other = await startAgent({ name, ...EXACT, nSeqMax: 2 });
    let count = 0;
    const title = () => other.chat({ messages: [user(`Write a title: ${count++}`)], maxTokens: 3 }).result;
    const beside = await converse(other, QUESTIONS, {}, title);
    expect(beside.map(({ text }) => text)).toEqual(alone.map(({ text }) => text));
    expect(computedAgain(beside)).toEqual(computedAgain(alone));
  });
});

describe.each([
  ['shows system messages at their place', 'Qwen-Qwen2.5-7B-Instruct'],
  ['refuses system messages in the middle', 'google-gemma-2-2b-it'],
  ['moves system messages to the top', 'deepseek-ai-DeepSeek-V3.1'],
])('if the chat template %s', (_, file) => {
  it('a conversation with system messages between its turns prefills only the new messages', async () => {
    const chatTemplate = vendoredTemplate(file);
    const agent = await startAgent({ ...EXACT, chatTemplate, contextSize: 4096 });
    const messages: RequestMessage[] = [];
    const all: Reply[] = [];
    for (const [index, question] of QUESTIONS.entries()) {
      messages.push({ role: 'system', content: `It is ${index + 9} o'clock.` }, user(question));
      messages.push({ role: 'system', content: `The workshop is ${index % 2 ? 'open' : 'closed'}.` });
      const reply = await agent.chat({ messages, maxTokens: 12 }).result;
      messages.push(assistant(reply.text));
      all.push(reply);
    }
    expect(Math.max(...computedAgain(all))).toBeLessThanOrEqual(12 + MARGIN);
  });
});

describe('requests of one agent', () => {
  it('that continue one conversation in different ways at once each get the reply of a cold agent', async () => {
    const agent = await startAgent({ ...EXACT });
    const [first] = await converse(agent, [QUESTIONS[0] as string]);
    const ask = async (target: AgentServer, question: string) => {
      const messages = [user(QUESTIONS[0] as string), assistant((first as Reply).text), user(question)];
      return target.chat({ messages, maxTokens: 12 }).result;
    };
    const questions = ['What does it cost?', 'How long does it take?', 'Is it worth it?'];
    const together = await Promise.all(questions.map((question) => ask(agent, question)));
    for (const [index, question] of questions.entries()) {
      const cold = await startAgent({ ...EXACT });
      expect(together[index]?.text).toBe((await ask(cold, question)).text);
      await cold.close();
    }
  });

  it('keep their conversations apart when there are more conversations than sequences', async () => {
    const settings: AgentSettings = { ...EXACT, nSeqMax: 3, maxMemoryBytes: 2 ** 21 };
    const agent = await startAgent(settings);
    const names = ['Ann', 'Bob', 'Cem', 'Dana', 'Eve', 'Finn'];
    const questionsOf = (name: string) => [`I am ${name}. My chain broke.`, 'What does a new one cost?'];
    const all = await Promise.all(names.map((name) => converse(agent, questionsOf(name))));
    const { states, heldSequences } = agent.health();
    expect(heldSequences).toBeLessThanOrEqual(3);
    expect(states.bytes + states.transferBytes).toBeLessThanOrEqual(states.maxBytes);
    for (const [index, name] of names.entries()) {
      const alone = await startAgent(settings);
      const texts = (await converse(alone, questionsOf(name))).map(({ text }) => text);
      expect(all[index]?.map(({ text }) => text)).toEqual(texts);
      await alone.close();
    }
  });

  it.each([
    [1999, ['the main request', 'a title']],
    [2000, ['a title', 'the main request']],
  ])('with tools overtake a request of their tenant without tools that waits %i ms', async (ms, expected) => {
    const clock = vi.spyOn(performance, 'now').mockReturnValue(0);
    onTestFinished(() => clock.mockRestore());
    const agent = await startAgent({ ...EXACT, nSeqMax: 1, contextSize: 8192 });
    const tools = [tool({ name: 'price', description: 'Looks up', inputSchema: { type: 'object', properties: {} } })];
    const controller = new AbortController();
    const endless = { sampling: { ignoreEos: true }, signal: controller.signal };
    const until = (health: object) =>
      vi.waitFor(() => expect(agent.health()).toMatchObject(health), { timeout: 20_000 });
    const running = codeOf(() => agent.chat({ messages: [user('Hello')], ...endless }).result);
    await until({ activeSessions: 1 });
    const order: string[] = [];
    const send = async (name: string, request: Partial<ChatRequest>) => {
      await agent.chat({ messages: [user(name)], tenant: 'a', maxTokens: 1, ...request }).result;
      order.push(name);
    };
    const title = send('a title', {});
    await until({ queueLength: 1 });
    const main = send('the main request', { tools, toolChoice: 'none' });
    await until({ queueLength: 2 });
    clock.mockReturnValue(ms);
    controller.abort();
    await Promise.all([title, main]);
    expect(await running).toBe('ABORTED');
    expect(order).toEqual(expected);
  });

  it('of one tenant never reuse tokens of another tenant', async () => {
    const agent = await startAgent({ ...EXACT });
    const run = async (tenant: string) => (await converse(agent, [QUESTIONS[0] as string], { tenant }))[0] as Reply;
    expect((await run('a')).usage.cachedInputTokens).toBe(0);
    expect((await run('a')).usage.cachedInputTokens).toBeGreaterThan(0);
    expect((await run('b')).usage.cachedInputTokens).toBe(0);
  });

  it('are one-off until another request continues them, and the states of one-off requests are not kept', async () => {
    const agent = await startAgent({ ...EXACT, nSeqMax: 1, contextSize: 2048 });
    for (const topic of ['cats', 'dogs']) {
      await agent.chat({ messages: [user(`Tell me about ${topic}. `.repeat(40))], maxTokens: 4 }).result;
    }
    expect(agent.health().states.byKind).toMatchObject({ request: { count: 0 }, conversation: { count: 0 } });
    await converse(agent, ['Tell me about birds. '.repeat(40), 'And fish?']);
    await agent.chat({ messages: [user('Something else')], maxTokens: 4 }).result;
    expect(agent.health().states.byKind.conversation.count).toBe(1);
    const [, again] = await converse(agent, ['Tell me about birds. '.repeat(40), 'And fish?']);
    expect(again?.usage.cachedInputTokens).toBeGreaterThan(200);
  });
});

describe('a request', () => {
  it('runs tools with `execute`, and returns the calls of other tools', async () => {
    const agent = await startAgent({ maxResidentTemplates: 0 });
    const parts: string[] = [];
    const inputSchema = {
      type: 'object',
      properties: { part: { enum: ['chain'] } },
      required: ['part'],
      additionalProperties: false,
    };
    const price = tool({
      name: 'price',
      description: 'Looks up a price',
      inputSchema,
      execute: async () => 'EUR 12',
    });
    const order = tool({ name: 'order', description: 'Orders a part', inputSchema });
    const messages = [user('How much is a chain?')];
    const stream = agent.chat({ messages, tools: [price], toolChoice: 'required', maxTokens: 60, maxSteps: 2 });
    for await (const part of stream) {
      parts.push(part.type);
    }
    expect(parts).toContain('tool-result');
    const returned = await agent.chat({ messages, tools: [order], toolChoice: 'required', maxTokens: 60 }).result;
    expect(returned).toMatchObject({ finishReason: 'tool-calls', toolCalls: [{ toolName: 'order' }], toolResults: [] });
    const [call] = returned.toolCalls;
    const results: ChatMessage[] = [
      ...messages,
      { role: 'assistant', content: returned.text, toolCalls: returned.toolCalls },
      { role: 'tool', toolCallId: call?.toolCallId as string, toolName: 'order', content: 'ordered' },
    ];
    const after = await agent.chat({ messages: results, tools: [order], maxTokens: 4 }).result;
    expect(after.usage.cachedInputTokens).toBeGreaterThan(returned.usage.inputTokens / 2);
  });

  it('may begin with a system message, which replaces the system prompt of the agent', async () => {
    const agent = await startAgent({ ...EXACT });
    const messages = [{ role: 'developer' as const, content: 'You are terse.' }, user('Hello')];
    const session = await agent.createSession({ systemPrompt: 'You are terse.' });
    const expected = await session.send('Hello', { maxTokens: 8 });
    const reply = await agent.chat({ messages, maxTokens: 8 }).result;
    expect([reply.text, reply.usage.inputTokens]).toEqual([expected.text, expected.usage.inputTokens]);
  });

  it('accepts system messages anywhere, null content, images, unknown fields, and calls without results', async () => {
    const agent = await startAgent({ ...EXACT, contextSize: 2048 });
    const messages: RequestMessage[] = [
      user('Hello'),
      { role: 'system', content: 'The date is 3 May.' },
      { role: 'assistant', content: null, tool_calls: [{ id: 'x', function: { name: 'gone', arguments: '{"a' } }] },
      user('And?'),
      { role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }], id: 'msg_1' },
      { role: 'developer', content: 'Be brief.' },
    ];
    const reply = await agent.chat({ messages, maxTokens: 4 }).result;
    expect(reply.usage.outputTokens).toBe(4);
    expect((await agent.explain({ messages })).promptTokens).toBe(reply.usage.inputTokens);
  });

  it('names the message with the first different token by its index in the request', async () => {
    const agent = await startAgent({ ...EXACT, contextSize: 2048 });
    const system = (content: string) => ({ role: 'system' as const, content });
    const ask = (last: string) => {
      const messages = [system('Be kind.'), system('Be brief.'), user('Hello'), system(' '), user(last)];
      return agent.chat({ messages, maxTokens: 1 }).result;
    };
    await ask('Is the chain broken?');
    expect((await ask('Does the brake work?')).cache.difference).toMatchObject({ part: 'message', message: 4 });
  });

  it.each<[string, unknown]>([
    ['no messages', { messages: [] }],
    ['no list of messages', {}],
    ['a reply as the last message', { messages: [user('Hello'), { role: 'assistant', content: 'Hi' }] }],
    ['only a system message', { messages: [{ role: 'system', content: 'Be brief.' }] }],
    ['a message of an unknown role', { messages: [{ role: 'robot', content: 'Beep' }, user('Hello')] }],
    ['a content of the wrong type', { messages: [{ role: 'user', content: 7 }] }],
    ['an unknown option', { messages: [user('Hello')], maxToken: 4 }],
  ])('with %s fails with INVALID_ARGUMENT, and holds no sequence or cell', async (_, request) => {
    const agent = await startAgent();
    await expect(agent.chat(request as ChatRequest).result).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(agent.health()).toMatchObject({ heldSequences: 0, kvCells: { used: 0 } });
  });

  it('ends with ABORTED if its signal fires, and the next request reuses the tokens that it computed', async () => {
    const agent = await startAgent({ ...EXACT, contextSize: 2048 });
    const events: object[] = [];
    onTestFinished(subscribeDiagnostics('turn', (event) => events.push(event)));
    const controller = new AbortController();
    const messages = [user('Tell me about chains. '.repeat(40))];
    const stream = agent.chat({ messages, signal: controller.signal });
    const aborted = (async () => {
      for await (const _ of stream) {
        controller.abort();
      }
    })();
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    const error = { code: 'ABORTED', message: 'The request was aborted', usage: { inputTokens: expect.any(Number) } };
    expect(events).toMatchObject([{ event: 'start' }, { event: 'end', error }]);
    const { usage } = await agent.chat({ messages, maxTokens: 4 }).result;
    expect(usage.inputTokens - usage.cachedInputTokens).toBeLessThanOrEqual(MARGIN);
    expect(agent.health()).toMatchObject({ activeSessions: 0, queueLength: 0 });
  });

  it('ends with CLOSED if the agent is closed, and later requests are refused', async () => {
    const agent = await startAgent();
    const running = agent.chat({ messages: [user('Hello')], sampling: { ignoreEos: true } }).result;
    running.catch(() => undefined);
    await agent.close();
    await expect(running).rejects.toMatchObject({ code: 'CLOSED' });
    expect(() => agent.chat({ messages: [user('Hello')] })).toThrow(expect.objectContaining({ code: 'CLOSED' }));
  });

  it('with `reproducible` gives the same reply whatever ran before', async () => {
    const settings: AgentSettings = { reproducible: true, name: 'dense-quantised' };
    const alone = await startAgent(settings);
    const expected = (await converse(alone)).map(({ text }) => text);
    await alone.close();
    const agent = await startAgent(settings);
    const [all] = await Promise.all([converse(agent), converse(agent, ['Something else', 'And more'])]);
    expect(all.map(({ text }) => text)).toEqual(expected);
    expect(agent.health().heldSequences).toBe(0);
  });
});
