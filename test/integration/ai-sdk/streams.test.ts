// Streams of the provider: their parts, errors, aborts and pauses.
import type { LanguageModelV4CallOptions, LanguageModelV4StreamPart } from '@ai-sdk/provider';
import { createLlamaHeadstart } from '@llama-headstart/ai-sdk';
import { streamText } from 'ai';
import type { AgentServer } from 'llama-headstart';
import { describe, expect, it, vi } from 'vitest';
import { startAgent } from '../../helpers/agents.js';
import { ask, modelOf, partsOf } from '../../helpers/ai-sdk.js';
import { ON, vendoredTemplate } from '../../helpers/lamp.js';
import { LONG_PROMPT } from '../../helpers/prompts.js';

/** Options that make the model call a tool. */
const ONE_CALL: Partial<LanguageModelV4CallOptions> = {
  tools: [{ type: 'function', name: 'lamp', inputSchema: ON }],
  toolChoice: { type: 'required' },
};

const typesOf = (parts: readonly LanguageModelV4StreamPart[]) =>
  parts.map(({ type }) => type).filter((type, index, all) => type !== all[index - 1]);

/** Resolves when the agent decodes nothing. */
const untilIdle = (agent: AgentServer) =>
  vi.waitFor(() => expect(agent.health()).toMatchObject({ activeSessions: 0, queueLength: 0 }), { timeout: 60_000 });

describe('a stream', () => {
  it('has the parts of the specification, in order', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    const parts = await partsOf(agent, { maxOutputTokens: 6 });
    expect(typesOf(parts)).toEqual([
      'stream-start',
      'response-metadata',
      'text-start',
      'text-delta',
      'text-end',
      'finish',
    ]);
    const text = parts.map((part) => (part.type === 'text-delta' ? part.delta : '')).join('');
    const { content } = await createLlamaHeadstart({ agent })().doGenerate({
      prompt: ask('Hello'),
      maxOutputTokens: 6,
    });
    expect(content).toEqual([{ type: 'text', text }]);
  });

  it('has the arguments of a call in pieces, which together are the input of the call', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    const parts = await partsOf(agent, { ...ONE_CALL, maxOutputTokens: 80 });
    const call = parts.find((part) => part.type === 'tool-call');
    const ofCall = parts.filter((part) => 'id' in part && part.id === call?.toolCallId);
    expect(typesOf(ofCall)).toEqual(['tool-input-start', 'tool-input-delta', 'tool-input-end']);
    expect(parts.indexOf(ofCall.at(-1) as LanguageModelV4StreamPart) + 1).toBe(parts.indexOf(call as never));
    const deltas = ofCall.map((part) => (part.type === 'tool-input-delta' ? part.delta : ''));
    expect(JSON.parse(deltas.join(''))).toEqual(JSON.parse(call?.input as string));
    expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason: { unified: 'tool-calls', raw: 'tool-calls' } });
  });

  it('ends the parts of a call that was cut off, and has no such call', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    let parts: LanguageModelV4StreamPart[] = [];
    const count = (type: string) => parts.filter((part) => part.type === type).length;
    for (let maxOutputTokens = 1; count('tool-input-start') === 0; maxOutputTokens++) {
      parts = await partsOf(agent, { ...ONE_CALL, maxOutputTokens });
    }
    expect([count('tool-input-end'), count('tool-call')]).toEqual([1, 0]);
    expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason: { unified: 'length', raw: 'max-tokens' } });
  });

  it('has the reasoning in parts of its own', async () => {
    const chatTemplate = vendoredTemplate('Qwen-QwQ-32B');
    const agent = await startAgent({ contextSize: 2048, chatTemplate });
    const parts = await partsOf(agent, { maxOutputTokens: 6 });
    expect(typesOf(parts).slice(2, 5)).toEqual(['reasoning-start', 'reasoning-delta', 'reasoning-end']);
    expect(parts.at(-1)).toMatchObject({ usage: { outputTokens: { reasoning: 6, text: 0 } } });
  });

  it('also has the parts of the agent if the program asks for raw chunks', async () => {
    const agent = await startAgent();
    const parts = await partsOf(agent, { maxOutputTokens: 3, includeRawChunks: true });
    const raw = parts.flatMap((part) => (part.type === 'raw' ? [(part.rawValue as { type: string }).type] : []));
    expect(raw.at(-1)).toBe('finish');
    expect(raw).toContain('text-delta');
  });

  it('is refused at once if the prompt does not fit into the context', async () => {
    const agent = await startAgent({ contextSize: 256 });
    const stream = partsOf(agent, { prompt: ask(LONG_PROMPT) });
    await expect(stream).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
  });

  it('that fails after its beginning has the error and the cost as its last parts', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    const { stream } = await createLlamaHeadstart({ agent })().doStream({
      prompt: ask('Hello'),
      maxOutputTokens: 2000,
    });
    const parts: LanguageModelV4StreamPart[] = [];
    let closing: Promise<void> | undefined;
    for await (const part of stream) {
      parts.push(part);
      closing ??= part.type === 'text-delta' ? agent.close() : undefined;
    }
    await closing;
    expect(typesOf(parts).slice(-3)).toEqual(['text-end', 'error', 'finish']);
    expect(parts.at(-2)).toMatchObject({ error: { code: 'CLOSED' } });
    expect(parts.at(-1)).toMatchObject({
      finishReason: { unified: 'error', raw: 'CLOSED' },
      usage: { inputTokens: { total: expect.any(Number) } },
    });
  });
});

describe('an abort', () => {
  const endless = { prompt: ask('Hello'), maxOutputTokens: 4000 };

  it('stops the decode of a whole reply, and rejects with its reason', async () => {
    const agent = await startAgent({ contextSize: 8192 });
    const controller = new AbortController();
    const reply = createLlamaHeadstart({ agent })().doGenerate({ ...endless, abortSignal: controller.signal });
    await vi.waitFor(() => expect(agent.health().activeSessions).toBe(1), { timeout: 60_000 });
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(reply).rejects.toBe(reason);
    await untilIdle(agent);
  });

  it.each(['abort', 'cancel'] as const)('of a stream by %s stops the decode', async (way) => {
    const agent = await startAgent({ contextSize: 8192 });
    const controller = new AbortController();
    const { stream } = await createLlamaHeadstart({ agent })().doStream({ ...endless, abortSignal: controller.signal });
    const reader = stream.getReader();
    await reader.read();
    await reader.read();
    await reader.read();
    if (way === 'cancel') {
      await reader.cancel();
    } else {
      controller.abort();
      const read = async () => {
        while (!(await reader.read()).done);
      };
      await expect(read()).rejects.toMatchObject({ name: 'AbortError' });
    }
    await untilIdle(agent);
  });

  it('of `streamText` ends its stream with the part `abort`', async () => {
    const agent = await startAgent({ contextSize: 8192 });
    const controller = new AbortController();
    const { fullStream } = streamText({
      model: modelOf(agent),
      prompt: 'Hello',
      maxOutputTokens: 4000,
      abortSignal: controller.signal,
    });
    const types = new Set<string>();
    for await (const part of fullStream) {
      types.add(part.type);
      if (part.type === 'text-delta') {
        controller.abort();
      }
    }
    expect([...types].at(-1)).toBe('abort');
    await untilIdle(agent);
  });

  it('before the call starts nothing', async () => {
    const agent = await startAgent();
    const model = createLlamaHeadstart({ agent })();
    const abortSignal = AbortSignal.abort();
    await expect(model.doGenerate({ ...endless, abortSignal })).rejects.toMatchObject({ name: 'AbortError' });
    await expect(model.doStream({ ...endless, abortSignal })).rejects.toMatchObject({ name: 'AbortError' });
  });
});

describe('a reader that pauses', () => {
  it('pauses the decode', async () => {
    const agent = await startAgent({ contextSize: 8192 });
    const { stream } = await createLlamaHeadstart({ agent })().doStream({
      prompt: ask('Hello'),
      maxOutputTokens: 2000,
    });
    const reader = stream.getReader();
    await reader.read();
    const promptTokens = await agent.countTokens({ messages: [{ role: 'user', content: 'Hello' }], tools: [] });
    const hasBegun = () => expect(agent.health().kvCells.used).toBeGreaterThan(promptTokens + 32);
    await vi.waitFor(hasBegun, { timeout: 60_000 });
    await untilIdle(agent);
    expect(agent.health().kvCells.used).toBeLessThan(1000);
    await reader.cancel();
  });
});
