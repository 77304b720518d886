// `toolChoice` and `maxParallelTools` determine the tools and the number of the calls in a reply.
import type { SendOptions } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, startAgent } from '../helpers/agents.js';
import { call, lamp, ONE_CALL, openSession, vendoredTemplate } from '../helpers/lamp.js';
import { likelyCalls, likelyText } from '../helpers/likely-text.js';
import { variants } from '../helpers/soak.js';

describe('the choice of tools', () => {
  it('may name a tool', async () => {
    const session = await openSession([lamp(undefined, 'left'), lamp(undefined, 'right')]);
    for (const name of ['left', 'right']) {
      const { toolCalls } = await (await session.fork()).send('Light', { ...ONE_CALL, toolChoice: { name } });
      expect(toolCalls).toMatchObject([{ toolName: name }]);
    }
  });

  it('may be none, with the same cached template', async () => {
    const session = await openSession([lamp()]);
    const { toolCalls, usage } = await session.send('Light', { toolChoice: 'none', maxTokens: 20 });
    expect(toolCalls).toEqual([]);
    expect(usage.cachedInputTokens).toBe(session.report.templateTokens);
  });

  it('may be automatic: a call that the model begins follows the call format, even without a call marker', async () => {
    const session = await openSession([lamp(() => 'lit')], {
      chatTemplate: vendoredTemplate('meta-llama-Llama-3.1-8B-Instruct'),
    });
    const message = `${'The bulb is old. '.repeat(20)}Light, please`; // only the newest tokens are penalized
    const options: SendOptions = { maxSteps: 1, maxTokens: 100 };
    const { toolCalls } = await session.send(message, { ...options, sampling: await likelyText('{"name": "') });
    expect(toolCalls).toMatchObject([{ toolName: 'lamp', input: { on: expect.any(Boolean) } }]);
    const free = await session.send('Thanks', { ...options, maxTokens: 10 });
    expect(free).toMatchObject({ toolCalls: [], usage: { outputTokens: 10 } });
  });

  it('does not apply to later replies of the turn', async () => {
    const session = await openSession([lamp(() => 'ok')]);
    const { usage, finishReason } = await session.send('Light', { ...ONE_CALL, maxSteps: 16, maxTokens: 60 });
    expect(usage.steps).toBe(2);
    expect(finishReason).toBe('length');
  });
});

describe('a reply that exceeds the length that trigger patterns search', () => {
  const files = ['openai-gpt-oss-120b', 'meta-llama-Llama-3.1-8B-Instruct'];
  it.each(variants(files, (file) => file === 'meta-llama-Llama-3.1-8B-Instruct'))(
    'continues without a grammar, with %s',
    async (file) => {
      const agent = await startAgent({ chatTemplate: vendoredTemplate(file), contextSize: 8192 });
      const session = await agent.createSession({ tools: [lamp(() => 'lit')] });
      const [word, pause] = [' temperature', 'description']; // long tokens of the micro models
      const [often = 0, then = 0] = await agent.model.tokenize(word + pause);
      // The two tokens alternate, because the last token is penalized.
      const sampling = { logitBias: { [often]: 90, [then]: 60 }, presencePenalty: 60, penaltyLastTokens: 1 };
      const { text, usage, finishReason } = await session.send('Light', { sampling, maxTokens: 1400 });
      expect({ finishReason, tokens: usage.outputTokens }).toEqual({ finishReason: 'length', tokens: 1400 });
      expect(text).toBe((word + pause).repeat(700));
    },
  );
});

describe('calls of one reply', () => {
  const TEMPLATES: [string, AgentSettings][] = [
    ['the chat template of the micro model', {}],
    ['Qwen2.5', { chatTemplate: vendoredTemplate('Qwen-Qwen2.5-7B-Instruct') }],
    ['a chat template without tools', { chatTemplate: vendoredTemplate('HuggingFaceTB-SmolLM3-3B') }],
  ];
  it.each(TEMPLATES)(
    'are as many as the model makes, or one with `maxParallelTools: 1`, with %s',
    async (_, settings) => {
      const session = await openSession([lamp(() => 'lit')], settings);
      const options = { sampling: await likelyCalls(), maxSteps: 1, maxTokens: 200 };
      for (const toolChoice of ['auto', 'required'] as const) {
        const one = await (await session.fork()).send('Light', { ...options, toolChoice, maxParallelTools: 1 });
        expect(one).toMatchObject({ finishReason: 'tool-calls', toolCalls: [{ toolName: 'lamp' }] });
        expect(one.toolCalls).toHaveLength(1);
        const many = await (await session.fork()).send('Light', { ...options, toolChoice, maxParallelTools: 4 });
        expect(many.toolCalls.length).toBeGreaterThan(1);
      }
    },
  );
});

describe('a reply that `maxTokens` cuts off in a call', () => {
  it.each([4, 8, 16, 24])('after %i tokens has only complete calls, and the session continues', async (maxTokens) => {
    const { reply, session } = await call(
      lamp(() => 'ok'),
      { maxTokens },
    );
    expect(reply.finishReason).toBe('length');
    for (const { input } of reply.toolCalls) {
      expect(input).toEqual({ on: expect.any(Boolean) });
    }
    expect(reply.text).not.toContain('<tool_call>');
    expect(session.pendingToolCalls).toEqual([]);
    expect((await session.send('Hello', { toolChoice: 'none', maxTokens: 3 })).usage.outputTokens).toBe(3);
  });
});
