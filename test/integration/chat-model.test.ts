// The interface `ChatModel`: the name of a model, counts of tokens, and prompts that are too long.
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { AgentServer, ChatModel, ChatRequest } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { lamp, ON, vendoredTemplate } from '../helpers/lamp.js';
import { user } from '../helpers/messages.js';
import { microModel } from '../helpers/models.js';

const LONG = 'word '.repeat(3000);

/** Starts an agent with one sequence, which a reply without an end occupies until the function is called. */
async function occupied(settings: AgentSettings = {}): Promise<{ agent: AgentServer; free: () => void }> {
  const agent = await startAgent({ contextSize: 8192, nSeqMax: 1, maxResidentTemplates: 0, ...settings });
  const controller = new AbortController();
  const { signal } = controller;
  const running = agent.chat({ messages: [user('Hello')], sampling: { ignoreEos: true }, signal });
  await new Promise<void>((resolve, reject) => {
    const read = async () => {
      for await (const _ of running) {
        resolve();
      }
    };
    read().catch(reject);
  });
  return { agent, free: () => controller.abort() };
}

describe('the id of a chat model', () => {
  it('is the name of the file, or the option `model.id`', async () => {
    expect((await startAgent()).id).toBe('micro-dense-v1');
    expect((await startAgent({ id: 'my-model' })).id).toBe('my-model');
    const source = join(await temporaryDirectory(), 'tiny-00001-of-00001.gguf');
    await copyFile(microModel('dense'), source);
    expect((await startAgent({ source })).id).toBe('tiny');
  });
});

describe('countTokens of a request', () => {
  const lit = lamp();
  const call = { toolCallId: 'a', toolName: 'lamp', input: { on: true } };
  const PLAIN: Record<string, Partial<ChatRequest>> = {
    'a user message': {},
    'a system message': { messages: [{ role: 'system', content: 'Be brief.' }, user('Hello')] },
    'other tools than those of the agent': { tools: [lit] },
    'tools that the model may not call': { toolChoice: 'none' },
    'a tool result': {
      messages: [
        user('Light'),
        { role: 'assistant', content: '', toolCalls: [call] },
        { role: 'tool', toolCallId: 'a', content: '<|im_start|>' },
      ],
    },
  };
  const QWEN3: Record<string, Partial<ChatRequest>> = {
    'a required call': { tools: [lit], toolChoice: 'required', parallelToolCalls: false },
    JSON: { responseFormat: { type: 'json', schema: ON } },
    'reasoning switched off': { reasoning: false },
  };
  it.each<[string, Record<string, Partial<ChatRequest>>, AgentSettings]>([
    ['the chat template of the model', PLAIN, {}],
    ['the chat template of Qwen3', QWEN3, { chatTemplate: vendoredTemplate('Qwen-Qwen3-0.6B') }],
  ])('is the number of input tokens of its reply, with %s', async (_, requests, settings) => {
    const model: ChatModel = await startAgent({ tools: [lamp(undefined, 'left')], ...settings });
    for (const [name, request] of Object.entries(requests)) {
      const first: ChatRequest = { messages: [user('Hello')], maxTokens: 8, maxSteps: 1, ...request };
      const counted = await model.countTokens(first);
      const { text, usage } = await model.chat(first).result;
      expect(counted, name).toBe(usage.inputTokens);
      const messages = [...first.messages, { role: 'assistant' as const, content: text || 'Well' }, user('And now?')];
      const next = { ...first, messages };
      const countedNext = await model.countTokens(next);
      expect(countedNext, `after ${name}`).toBe((await model.chat(next).result).usage.inputTokens);
    }
  });

  it('counts prompts that do not fit into the context', async () => {
    const agent = await startAgent();
    const long = { messages: [{ role: 'system' as const, content: LONG }, user(LONG)] };
    expect(await agent.countTokens(long)).toBeGreaterThan(2 * 3000);
  });

  it('takes no sequence, and does not wait for a request in progress', async () => {
    const { agent, free } = await occupied();
    expect(await agent.countTokens({ messages: [user('Hello')] })).toBeGreaterThan(0);
    expect(agent.health()).toMatchObject({ activeSessions: 1, heldSequences: 1, queueLength: 0 });
    free();
  });

  it('ends with ABORTED, CLOSED or INVALID_ARGUMENT as `chat` does', async () => {
    const agent = await startAgent();
    const request = { messages: [user('Hello')] };
    const signal = AbortSignal.abort();
    await expect(agent.countTokens(request, { signal })).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(agent.countTokens({ ...request, signal })).rejects.toMatchObject({ code: 'ABORTED' });
    for (const wrong of [{}, { messages: [] }, { ...request, maxToken: 1 }, { ...request, toolChoice: 'required' }]) {
      await expect(agent.countTokens(wrong as ChatRequest)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    await expect(agent.countTokens(request, { signa: signal } as object)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    const counting = agent.countTokens({ messages: [user(LONG.repeat(100))] });
    counting.catch(() => undefined);
    await agent.close();
    await expect(counting).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(agent.countTokens(request)).rejects.toMatchObject({ code: 'CLOSED' });
  });
});

describe('a prompt that is too long', () => {
  const TOO_LONG: [string, Partial<ChatRequest>][] = [
    ['messages', { messages: [user(LONG)] }],
    ['system message', { messages: [{ role: 'system', content: LONG }, user('Hello')] }],
  ];
  it.each(TOO_LONG)('because of its %s fails with CONTEXT_FULL, and the error has the numbers', async (_, request) => {
    const agent = await startAgent();
    const complete = { messages: [user('Hello')], ...request };
    const tokens = await agent.countTokens(complete);
    const error = await agent.chat(complete).result.catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'CONTEXT_FULL', tokens, maxTokens: agent.contextSize - 1 });
    const { message } = error as Error;
    expect(message).toContain(`The prompt has ${tokens} tokens`);
    expect(message).toContain('leave out messages');
    expect(message).not.toMatch(/session|compact/);
    expect(agent.health()).toMatchObject({ heldSequences: 0, kvCells: { used: 0 } });
  });

  it('is refused at once, although a short prompt has to wait for a sequence', async () => {
    const { agent, free } = await occupied({ maxQueueSize: 0 });
    await expect(agent.chat({ messages: [user('Hi')] }).result).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    const long = { messages: [user(LONG.repeat(4))] };
    await expect(agent.chat(long).result).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
    await expect(agent.chat({ messages: [user('Hi')] }).result).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    free();
  });

  it('may be as long as the error says', async () => {
    const agent = await startAgent();
    const ofLength = async (words: number) => {
      const messages = [user('word '.repeat(words))];
      return { messages, tokens: await agent.countTokens({ messages }) };
    };
    const base = await ofLength(100);
    const perWord = ((await ofLength(200)).tokens - base.tokens) / 100;
    const longest = await ofLength(100 + Math.floor((agent.contextSize - 1 - base.tokens) / perWord));
    expect(longest.tokens).toBeLessThan(agent.contextSize);
    const { usage } = await agent.chat({ messages: longest.messages }).result;
    expect(usage.inputTokens).toBe(longest.tokens);
  });

  it('of a completion or a session also fails with the numbers', async () => {
    const agent = await startAgent();
    const numbers = { code: 'CONTEXT_FULL', tokens: expect.any(Number), maxTokens: agent.contextSize - 1 };
    await expect(agent.complete(LONG)).rejects.toMatchObject(numbers);
    await expect((await agent.createSession()).send(LONG)).rejects.toMatchObject(numbers);
    await expect(agent.createSession({ systemPrompt: LONG })).rejects.toMatchObject(numbers);
  });
});
