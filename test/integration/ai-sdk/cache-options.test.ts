// The options of the provider, `providerOptions.headstart`, reach the cache.
import type { LanguageModelV4CallOptions, LanguageModelV4Message, LanguageModelV4Prompt } from '@ai-sdk/provider';
import { createLlamaHeadstart } from '@llama-headstart/ai-sdk';
import { describe, expect, it } from 'vitest';
import { EXACT, startAgent } from '../../helpers/agents.js';
import { ask, callModel } from '../../helpers/ai-sdk.js';
import { ON } from '../../helpers/lamp.js';
import { LONG_PROMPT } from '../../helpers/prompts.js';

const headstart = (options: object) => ({ providerOptions: { headstart: options as never } });

/** A message of the user with options. */
const withOptions = (text: string, options: object): LanguageModelV4Message => ({
  ...(ask(text)[0] as LanguageModelV4Message),
  ...headstart(options),
});

const replied: LanguageModelV4Message = { role: 'assistant', content: [{ type: 'text', text: 'Hi' }] };

describe('the provider options', () => {
  it('of a call override those of messages, and newer messages override older ones', async () => {
    const agent = await startAgent();
    const prompt = [withOptions('Hello', { affinity: 'a' }), withOptions('And?', { affinity: 'b' })];
    expect((await callModel(agent, { prompt })).request.affinity).toBe('b');
    expect((await callModel(agent, { prompt, ...headstart({ affinity: 'c' }) })).request.affinity).toBe('c');
  });

  it('keep tenants apart, and are refused if they name two tenants', async () => {
    const agent = await startAgent({ ...EXACT });
    const cached = async (tenant: string) => {
      const { result } = await callModel(agent, { prompt: [withOptions('Is the chain broken?', { tenant })] });
      return result.usage.inputTokens.cacheRead;
    };
    expect(await cached('a')).toBe(0);
    expect(await cached('a')).toBeGreaterThan(0);
    expect(await cached('b')).toBe(0);
    const both = callModel(agent, { prompt: [withOptions('Hello', { tenant: 'a' })], ...headstart({ tenant: 'b' }) });
    await expect(both).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('of a message with a grammar apply to the reply to this message, and not to later replies', async () => {
    const agent = await startAgent();
    const question = withOptions('Is it broken?', { grammar: 'root ::= "yes" | "no"' });
    const options = { temperature: 1, seed: 3, maxOutputTokens: 8 };
    const { result } = await callModel(agent, { prompt: [question], ...options });
    expect(result.content).toEqual([{ type: 'text', text: expect.stringMatching(/^(yes|no)$/) }]);
    const { request } = await callModel(agent, { prompt: [question, replied, ...ask('Why?')], ...options });
    expect(request.grammar).toBeUndefined();
  });

  it('of tools, messages and parts mark cache boundaries, of which the newest count', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    const tools: LanguageModelV4CallOptions['tools'] = ['lamp', 'light'].map((name) => ({
      type: 'function',
      name,
      inputSchema: ON,
      ...(name === 'light' && headstart({ cacheBoundary: true })),
    }));
    const system: LanguageModelV4Message = {
      role: 'system',
      content: 'Hm.',
      ...headstart({ cacheBoundary: { ttlMs: 9 } }),
    };
    const part = { type: 'text', text: 'Hello', ...headstart({ cacheBoundary: true }) } as const;
    const prompt: LanguageModelV4Prompt = [system, { role: 'user', content: [part] }, replied, ...ask('And?')];
    const { request, result } = await callModel(agent, { prompt, tools });
    expect(request.cacheHints).toEqual([{ tool: 1 }, { message: 0, ttlMs: 9 }, { message: 1 }]);
    expect(result.warnings).toEqual([]);
    const { total, noCache, cacheRead, cacheWrite } = result.usage.inputTokens;
    expect([noCache, (cacheRead ?? 0) + (cacheWrite ?? 0)]).toEqual([0, total]);
    const many = Array.from({ length: 9 }, () => [withOptions('Hello', { cacheBoundary: true }), replied]).flat();
    const limited = await callModel(agent, { prompt: [...many, ...ask('And?')] });
    expect(limited.request.cacheHints).toEqual(Array.from({ length: 8 }, (_, index) => ({ message: 2 * index + 2 })));
    expect(limited.result.warnings).toMatchObject([{ feature: 'providerOptions.headstart.cacheBoundary' }]);
  });

  it('keep a state at a boundary, from which another conversation continues on memory that cannot be trimmed', async () => {
    const cached = async (options: object) => {
      const agent = await startAgent({ name: 'recurrent', contextSize: 4096 });
      const model = createLlamaHeadstart({ agent })();
      const begin = [withOptions(LONG_PROMPT, options), replied];
      await model.doGenerate({ prompt: [...begin, ...ask('Is the chain broken?')], maxOutputTokens: 2 });
      const { usage } = await model.doGenerate({ prompt: [...begin, ...ask('Does it work?')], maxOutputTokens: 2 });
      return usage.inputTokens.cacheRead ?? 0;
    };
    expect(await cached({ cacheBoundary: true })).toBeGreaterThan((await cached({})) + 1000);
  });
});

describe('the metadata of a reply', () => {
  it('have the report of the cache, and the usage adds up', async () => {
    const agent = await startAgent({ ...EXACT });
    await callModel(agent, { prompt: ask('Is the chain broken?') });
    const { result } = await callModel(agent, { prompt: ask('Is the brake broken?'), maxOutputTokens: 5 });
    const cache = result.providerMetadata?.headstart?.cache;
    const { inputTokens, outputTokens, raw } = result.usage;
    expect(cache).toMatchObject({
      source: 'resident',
      cachedTokens: inputTokens.cacheRead,
      prefilledTokens: inputTokens.noCache,
      reason: expect.any(String),
      difference: { part: 'message', message: 0, text: expect.stringContaining('brake') },
    });
    expect(inputTokens.total).toBe((inputTokens.cacheRead ?? 0) + (inputTokens.noCache ?? 0));
    expect(inputTokens.cacheWrite).toBe(0);
    expect(outputTokens).toEqual({ total: 5, text: 5, reasoning: 0 });
    expect(raw).toMatchObject({ steps: 1, outputTokens: 5 });
    expect(result.finishReason).toEqual({ unified: 'length', raw: 'max-tokens' });
    expect(result.response).toMatchObject({ id: expect.any(String), modelId: agent.id, timestamp: expect.any(Date) });
  });
});
