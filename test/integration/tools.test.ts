// Tests that tool calls run, and that the model continues with their results.
import { type SendOptions, type StreamPart, type Tool, type ToolContext, tool } from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { z } from 'zod';
import { call, lamp, ONE_CALL, openSession, roles, vendoredTemplate } from '../helpers/lamp.js';
import { testModel } from '../helpers/models.js';
import { rounds } from '../helpers/soak.js';

describe('a tool', () => {
  it('runs with the arguments of the call, and the model continues with its result', async () => {
    const seen: [unknown, ToolContext][] = [];
    const session = await openSession([lamp((args, context) => void seen.push([args, context]))]);
    const parts: StreamPart[] = [];
    for await (const part of session.stream('Light, please', { ...ONE_CALL, maxSteps: 2, maxTokens: 300 })) {
      parts.push(part);
    }
    const types = parts.map(({ type }) => type).filter((type) => type !== 'text-delta' && type !== 'tool-input-delta');
    expect(types).toEqual(['tool-input-start', 'tool-call', 'tool-result', 'finish']);
    expect(seen[0]?.[0]).toEqual({ on: expect.any(Boolean) });
    expect(seen[0]?.[1]).toMatchObject({ session: { id: session.id }, toolCallId: 'call00000' });
    expect(seen[0]?.[1].signal.aborted).toBe(false);
    expect(roles(session).slice(0, 4)).toEqual(['user', 'assistant', 'tool', 'assistant']);
    expect(session.messages[2]).toEqual({ role: 'tool', toolCallId: 'call00000', toolName: 'lamp', content: 'null' });
    expect(parts.at(-1)).toMatchObject({ usage: { steps: 2 } });
  });

  it.each<[string, Tool['execute'], unknown, boolean]>([
    ['a text', () => 'It is lit.', 'It is lit.', false],
    ['data', async () => ({ lit: true }), '{"lit":true}', false],
    ['nothing', () => undefined, 'null', false],
    ['a value that JSON cannot express', () => 1n, expect.stringContaining('is not JSON data'), false],
    [
      'a circular value',
      () => {
        const a: object[] = [];
        a.push(a);
        return a;
      },
      expect.stringContaining('is not JSON data'),
      false,
    ],
    [
      'megabytes',
      () => 'a'.repeat(5_000_000),
      expect.stringMatching(/^a{4096}\n\[cut: 4995904 more characters\]$/),
      false,
    ],
    [
      'a thrown error',
      () => {
        throw new Error('The bulb broke');
      },
      '{"error":"The bulb broke"}',
      true,
    ],
    ['a rejected promise', () => Promise.reject('odd'), '{"error":"odd"}', true],
    [
      'a thrown value without a text',
      () => {
        throw Object.create(null);
      },
      '{"error":"the tool failed"}',
      true,
    ],
  ])('may end with %s, which the model gets as text', async (_, execute, content, isError) => {
    const { reply, session } = await call(lamp(execute));
    expect(reply.toolResults).toMatchObject([{ toolName: 'lamp', isError }]);
    expect(session.messages[2]).toMatchObject({ role: 'tool', content });
    expect(reply).toMatchObject({ finishReason: 'tool-calls', detail: 'max-steps' });
  });
});

describe('a chat template', () => {
  const TEMPLATES = [
    'Qwen-Qwen2.5-7B-Instruct',
    'Qwen-Qwen3-0.6B',
    'mistralai-Mistral-Nemo-Instruct-2407',
    'meta-llama-Llama-3.1-8B-Instruct',
    'Qwen3-Coder',
    // This chat template describes tools but shows no calls, so the package describes both.
    'ibm-granite-granite-3.3-2B-Instruct',
  ];
  it.each(TEMPLATES)('lets the model make a call, and shows the call in the next turn: %s', async (file) => {
    const session = await openSession([lamp(() => 'lit')], { chatTemplate: vendoredTemplate(file) });
    const options: SendOptions = { ...ONE_CALL, reasoning: false, maxTokens: 400 };
    const { toolCalls, toolResults } = await session.send('Light', options);
    expect(toolCalls).toMatchObject([{ toolName: 'lamp', input: { on: expect.any(Boolean) } }]);
    expect(toolResults).toMatchObject([{ output: 'lit', isError: false }]);
    const { usage } = await session.send('Thanks', { toolChoice: 'none', maxTokens: 2 });
    expect(usage.cachedInputTokens).toBeGreaterThan(0);
  });
});

// The test of the example `tools` is similar, so `npm test` leaves this one out.
describe.skipIf(testModel() === undefined || rounds(0, 1) === 0)('SmolLM2', () => {
  it('calls a required tool and answers with its result', async () => {
    const { AgentServer } = await import('llama-headstart');
    const agent = await AgentServer.initialize({
      model: { source: testModel() as string, cacheDir: null, contextSize: 1024, nThreads: 1 },
      sampling: { temperature: 0 },
    });
    onTestFinished(() => agent.close());
    const weather = tool({
      name: 'get_weather',
      description: 'Tells the weather in a city.',
      inputSchema: z.object({ city: z.enum(['Paris', 'Rome']) }),
      execute: ({ city }) => `It is sunny in ${city}, 21 degrees.`,
    });
    const session = await agent.createSession({ systemPrompt: 'Be brief.', tools: [weather] });
    const reply = await session.send('What is the weather in Rome?', {
      toolChoice: 'required',
      maxParallelTools: 1,
      maxTokens: 60,
    });
    expect(reply.toolCalls).toMatchObject([{ toolName: 'get_weather' }]);
    expect(reply.toolResults[0]?.output).toMatch(/^It is sunny in (Paris|Rome)/);
    expect(reply.text.length).toBeGreaterThan(0);
    expect(session.messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'tool', 'assistant']);
  });
});
