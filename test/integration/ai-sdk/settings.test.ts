// Each setting of a call of the AI SDK reaches the request, or the result has a warning.
import {
  type LanguageModelV4CallOptions,
  type LanguageModelV4Message,
  UnsupportedFunctionalityError,
} from '@ai-sdk/provider';
import type { AgentServer } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../../helpers/agents.js';
import { ask, callModel } from '../../helpers/ai-sdk.js';
import { ON } from '../../helpers/lamp.js';

type Options = Partial<LanguageModelV4CallOptions>;

const LAMP = { type: 'function', name: 'lamp', description: 'Switches the lamp.', inputSchema: ON } as const;

const start = (): Promise<AgentServer> => startAgent({ contextSize: 2048 });

describe('the settings of a call', () => {
  it('reach the request, without a warning', async () => {
    const { request, result } = await callModel(await start(), {
      temperature: 0.5,
      topP: 0.9,
      topK: 20,
      presencePenalty: 0.1,
      frequencyPenalty: 0.2,
      seed: 7,
      stopSequences: ['\n\n'],
      headers: { 'user-agent': 'ai/7' },
      reasoning: 'none',
      responseFormat: { type: 'text' },
    });
    expect(request).toMatchObject({
      sampling: { temperature: 0.5, topP: 0.9, topK: 20, presencePenalty: 0.1, frequencyPenalty: 0.2, seed: 7 },
      stop: ['\n\n'],
      maxTokens: 2,
      reasoning: false,
      tools: [],
    });
    expect(result.warnings).toEqual([]);
    expect(result.request?.body).toBe(request);
  });

  it('may have any integer as the seed, and equal seeds give equal replies', async () => {
    const agent = await start();
    for (const seed of [-1, 2 ** 32 - 1, Number.MAX_SAFE_INTEGER]) {
      const options = { seed, temperature: 1, maxOutputTokens: 8 };
      const [first, second] = [await callModel(agent, options), await callModel(agent, options)];
      expect(first.result.content).toEqual(second.result.content);
    }
  });

  it.each<[LanguageModelV4CallOptions['toolChoice'], unknown]>([
    [undefined, undefined],
    [{ type: 'auto' }, 'auto'],
    [{ type: 'none' }, 'none'],
    [{ type: 'required' }, 'required'],
    [{ type: 'tool', toolName: 'lamp' }, { name: 'lamp' }],
  ])('with the tool choice %j make the request have %j', async (toolChoice, expected) => {
    const options: Options = { tools: [LAMP], maxOutputTokens: 60, ...(toolChoice && { toolChoice }) };
    const { request } = await callModel(await start(), options);
    expect(request.toolChoice).toEqual(expected);
    expect(request.tools).toEqual([{ name: 'lamp', description: LAMP.description, inputSchema: ON }]);
  });

  it('have a warning for each ignored setting', async () => {
    const { result, request } = await callModel(await start(), {
      tools: [
        { ...LAMP, inputExamples: [{ input: { on: true } }] },
        { type: 'provider', id: 'other.search', name: 'search', args: {} },
      ],
      toolChoice: { type: 'none' },
      responseFormat: { type: 'json', schema: ON, name: 'lamp', description: 'A lamp' },
      headers: { authorization: 'x', 'user-agent': 'ai/7' },
      reasoning: 'high',
      maxOutputTokens: 40,
      providerOptions: { headstart: { afinity: 'a' }, openai: { user: 'x' } },
      prompt: [{ ...(ask('Hello')[0] as LanguageModelV4Message), providerOptions: { headstart: { cache: true } } }],
    });
    expect(result.warnings.map((warning) => ('feature' in warning ? warning.feature : warning.message))).toEqual([
      'providerOptions.headstart.afinity',
      'providerOptions.headstart.cache',
      'inputExamples of the tool "lamp"',
      'provider-defined tool other.search',
      'responseFormat.name',
      'responseFormat.description',
      'reasoning',
      'headers',
    ]);
    expect(request.tools).toHaveLength(1);
    expect(request.reasoning).toBe(true);
  });

  it('may not require a JSON reply and a grammar', async () => {
    const call = callModel(await start(), {
      responseFormat: { type: 'json' },
      providerOptions: { headstart: { grammar: 'root ::= "a"' } },
    });
    await expect(call).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('grammar') });
  });
});

describe('the messages of a call', () => {
  it('keep text, reasoning, calls and results of every kind', async () => {
    const result = (toolCallId: string, output: object) =>
      ({ type: 'tool-result', toolCallId, toolName: 'lamp', output }) as never;
    const call = (toolCallId: string) =>
      ({ type: 'tool-call', toolCallId, toolName: 'lamp', input: { on: true } }) as const;
    const ids = ['a', 'b', 'c', 'd', 'e'];
    const { request } = await callModel(await start(), {
      prompt: [
        { role: 'system', content: 'Be brief.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'Hel' },
            { type: 'text', text: 'lo' },
          ],
        },
        {
          role: 'assistant',
          content: [{ type: 'reasoning', text: 'Hm.' }, { type: 'text', text: 'Hi' }, ...ids.map(call)],
        },
        {
          role: 'tool',
          content: [
            result('a', { type: 'text', value: 'on' }),
            result('b', { type: 'json', value: { on: true } }),
            result('c', { type: 'error-text', value: 'It broke' }),
            result('d', { type: 'execution-denied', reason: 'Not now' }),
            result('e', {
              type: 'content',
              value: [
                { type: 'text', text: 'o' },
                { type: 'text', text: 'n' },
              ],
            }),
            { type: 'tool-approval-response', approvalId: 'x', approved: false },
          ],
        },
      ],
    });
    const texts = ['on', '{"on":true}', 'It broke', 'Not now', 'on'];
    expect(request.messages).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hello' },
      {
        role: 'assistant',
        content: 'Hi',
        reasoning: 'Hm.',
        toolCalls: ids.map((toolCallId) => ({ toolCallId, toolName: 'lamp', input: { on: true } })),
      },
      ...ids.map((toolCallId, index) => ({ role: 'tool', toolCallId, toolName: 'lamp', content: texts[index] })),
    ]);
  });

  it.each<[string, LanguageModelV4Message]>([
    [
      'file (image/png) in a message',
      { role: 'user', content: [{ type: 'file', mediaType: 'image/png', data: { type: 'data', data: 'AA==' } }] },
    ],
    [
      'file (text/plain) in a message',
      { role: 'assistant', content: [{ type: 'file', mediaType: 'text/plain', data: { type: 'text', text: 'a' } }] },
    ],
    [
      'reasoning-file (image/png) in a message',
      {
        role: 'assistant',
        content: [{ type: 'reasoning-file', mediaType: 'image/png', data: { type: 'data', data: 'AA==' } }],
      },
    ],
    [
      'file-data (image/png) in a tool result',
      {
        role: 'tool',
        content: [
          {
            type: 'tool-result',
            toolCallId: 'a',
            toolName: 'lamp',
            output: { type: 'content', value: [{ type: 'file-data', mediaType: 'image/png', data: 'AA==' }] as never },
          },
        ],
      },
    ],
  ])('are refused with an UnsupportedFunctionalityError for a %s', async (functionality, message) => {
    const agent = await start();
    const error = await callModel(agent, { prompt: [message, ...ask('Hello')] }).catch((reason: unknown) => reason);
    expect(UnsupportedFunctionalityError.isInstance(error)).toBe(true);
    expect(error).toMatchObject({ functionality });
    expect(agent.health().activeSessions).toBe(0);
  });

  it('do not show custom content of other providers, with a warning', async () => {
    const custom: LanguageModelV4Message = { role: 'assistant', content: [{ type: 'custom', kind: 'other.note' }] };
    const { result } = await callModel(await start(), { prompt: [...ask('Hi'), custom, ...ask('Hello')] });
    expect(result.warnings).toMatchObject([{ type: 'unsupported', feature: 'custom content' }]);
  });
});
