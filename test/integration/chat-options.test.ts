// Every option of a reply that `session.send` takes has the same effect in `chat`.
import type { ChatRequest, Reply, SendOptions, Tool } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, startAgent } from '../helpers/agents.js';
import { lamp, vendoredTemplate } from '../helpers/lamp.js';
import { likelyCalls } from '../helpers/likely-text.js';
import { withEnoughTime } from '../helpers/time-limits.js';

const MESSAGE = 'Light, please';
const SCHEMA = {
  type: 'object',
  properties: { on: { type: 'boolean' } },
  required: ['on'],
  additionalProperties: false,
};

/**
 * The parts of a reply that an option can change. Leaves out times and random ids of calls. Also leaves out the values of
 * log-probabilities, because their last digits depend on the places of the KV cells.
 */
const visible = ({ text, reasoning, toolCalls, finishReason, usage, logProbabilities, object }: Reply) => ({
  text,
  reasoning,
  calls: toolCalls.map(({ toolName, input }) => ({ toolName, input })),
  finishReason,
  likely: logProbabilities?.map(({ token, likely }) => [token, ...likely.map((other) => other.token)]),
  object,
  inputTokens: usage.inputTokens,
  outputTokens: usage.outputTokens,
  reasoningTokens: usage.reasoningTokens,
  steps: usage.steps,
});

interface OptionCase {
  options: SendOptions;
  /** The options of the reply that must differ. */
  without?: SendOptions;
  tools?: readonly Tool[];
  settings?: AgentSettings;
}

const tools = [lamp(undefined, 'left'), lamp(undefined, 'right')];
const CASES: Record<string, () => OptionCase | Promise<OptionCase>> = {
  'toolChoice with a name': () => ({ options: { toolChoice: { name: 'right' }, maxTokens: 60 }, tools }),
  'toolChoice none': () => ({ options: { toolChoice: 'none' }, without: { toolChoice: 'required' }, tools }),
  parallelToolCalls: async () => {
    const without: SendOptions = { sampling: await likelyCalls(), maxTokens: 200, maxSteps: 1 };
    return { options: { ...without, parallelToolCalls: false }, without, tools };
  },
  maxSteps: () => {
    const without: SendOptions = { toolChoice: 'required', maxParallelTools: 1, maxTokens: 60 };
    return { options: { ...without, maxSteps: 1 }, without, tools: [lamp(() => 'lit')] };
  },
  responseFormat: () => ({ options: { responseFormat: { type: 'json', schema: SCHEMA }, maxTokens: 60 } }),
  sampling: () => ({ options: { sampling: { temperature: 1.5, seed: 7 } } }),
  stop: () => ({ options: { stop: 'e' } }),
  maxTokens: () => ({ options: { maxTokens: 3 } }),
  reasoning: () => ({
    options: { reasoning: false },
    settings: { chatTemplate: vendoredTemplate('Qwen-Qwen3-0.6B') },
  }),
  logProbabilities: () => ({ options: { logProbabilities: 2 } }),
  repetitionGuard: () => {
    const without: SendOptions = { sampling: { logitBias: { 101: 100 } }, maxTokens: 300 };
    return { options: { ...without, repetitionGuard: true }, without };
  },
};

describe('an option of a reply', () => {
  it.each(Object.keys(CASES))('%s changes a reply of `chat` as it changes a reply of a session', async (name) => {
    const makeCase = CASES[name] as () => Promise<OptionCase>;
    const { options, without = {}, settings = {}, ...own } = await makeCase();
    const agent = await startAgent({ ...EXACT, ...settings });
    const ask = async (more: SendOptions) => {
      const request: ChatRequest = { messages: [{ role: 'user', content: MESSAGE }], maxTokens: 12, ...own, ...more };
      return visible(await agent.chat(request).result);
    };
    const session = await agent.createSession(own);
    const reply = await ask(options);
    expect(reply).toEqual(visible(await session.send(MESSAGE, { maxTokens: 12, ...options })));
    expect(reply).not.toEqual(await ask(without));
  });

  it('timeoutMs ends a reply of `chat` with the text so far', async () => {
    const agent = await startAgent({ contextSize: 8192 });
    await withEnoughTime(300, async (timeoutMs) => {
      const messages = [{ role: 'user' as const, content: MESSAGE }];
      const reply = await agent.chat({ messages, sampling: { ignoreEos: true }, timeoutMs }).result;
      expect(reply).toMatchObject({ finishReason: 'aborted', detail: 'timeout' });
      expect(reply.text).not.toBe('');
    });
  });

  it('that requires both a call and JSON is refused by `chat`', async () => {
    const agent = await startAgent();
    const request: ChatRequest = {
      messages: [{ role: 'user', content: MESSAGE }],
      tools,
      toolChoice: 'required',
      responseFormat: { type: 'json', schema: SCHEMA },
    };
    await expect(agent.chat(request).result).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});
