// A session gives the replies of a cold run of the whole conversation, whatever the KV cache contains.
import type { ChatMessage, StreamPart, Usage } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { EXACT, replies, startAgent, uncachedReplies } from '../helpers/agents.js';
import { coldReply } from '../helpers/cold.js';
import { microModel } from '../helpers/models.js';
import { numberedPrompt, SYSTEM_PROMPT, TOOLS } from '../helpers/prompts.js';

const TURNS = ['My chain broke.', '\nWhat does a new one cost?', '42', 'Thank you'];
const MAX_TOKENS = 16;

describe.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)(
  'a conversation with the %s model',
  (name) => {
    it('gives the reply of a cold run of the whole conversation in each turn', async () => {
      const agent = await startAgent({ name, tools: TOOLS, ...EXACT });
      const session = await agent.createSession();
      for (const content of TURNS.slice(0, 3)) {
        const conversation: ChatMessage[] = [...session.messages, { role: 'user', content }];
        const expected = await coldReply(
          microModel(name),
          { systemPrompt: SYSTEM_PROMPT, tools: TOOLS },
          conversation,
          MAX_TOKENS,
          { replies: agent.sampledReplies },
        );
        expect((await session.send(content, { maxTokens: MAX_TOKENS })).text).toBe(expected.text);
      }
      expect(session.messages).toHaveLength(6);
    });

    it('continues with the same replies after other sessions took its sequence', async () => {
      const expected = await uncachedReplies({ name }, TURNS, MAX_TOKENS);
      const agent = await startAgent({ name, nSeqMax: 1 });
      const sessions = [await agent.createSession(), await agent.createSession(), await agent.createSession()];
      const texts: string[][] = sessions.map(() => []);
      for (const content of TURNS) {
        for (const [index, session] of sessions.entries()) {
          texts[index]?.push((await session.send(content, { maxTokens: MAX_TOKENS })).text);
        }
      }
      expect(texts).toEqual(sessions.map(() => expected));
    });
  },
);

describe('the KV cache in a conversation', () => {
  const usages = async (name: 'dense' | 'recurrent' | 'sliding-window') => {
    const agent = await startAgent({ name });
    const session = await agent.createSession();
    const all: Usage[] = [];
    for (const turn of TURNS) {
      all.push((await session.send(turn, { maxTokens: MAX_TOKENS })).usage);
    }
    return { template: session.report.templateTokens, all };
  };

  it('keeps all earlier turns with an attention model, so that only new messages are decoded', async () => {
    const { template, all } = await usages('dense');
    expect(all[0]?.cachedInputTokens).toBe(template);
    for (const [index, usage] of all.entries()) {
      expect(usage.cachedInputTokens).toBeLessThan(usage.inputTokens);
      if (index > 0) {
        expect(usage.cachedInputTokens).toBeGreaterThanOrEqual((all[index - 1] as Usage).inputTokens);
      }
    }
  });

  it.each(['recurrent', 'sliding-window'] as const)('keeps at least the template with the %s model', async (name) => {
    const { template, all } = await usages(name);
    for (const usage of all) {
      expect(usage.cachedInputTokens).toBeGreaterThanOrEqual(template);
      expect(usage.cachedInputTokens).toBeLessThan(usage.inputTokens);
    }
  });

  it('does not count a template as cached if it had to be decoded again', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const session = await agent.createSession({ templateCache: false });
    await agent.createSession(); // takes the only sequence
    const { usage } = await session.send('Hello', { maxTokens: 2 });
    expect(usage.cachedInputTokens).toBe(0);
    expect((await session.send('Again', { maxTokens: 2 })).usage.cachedInputTokens).toBeGreaterThan(0);
  });
});

/**
 * Returns whether the text has no lone surrogate. The language version of this project lacks
 * `String.prototype.isWellFormed`.
 */
const isWellFormed = (text: string) => Buffer.from(text, 'utf8').toString('utf8') === text;

describe('many sessions', () => {
  it('run at the same time on fewer sequences, and each session gets its own replies', async () => {
    const prompts = Array.from({ length: 6 }, (_, index) => numberedPrompt(index));
    // In the split layout without flash attention, other sequences in the batch change no bit of the logits.
    const settings = { kvLayout: 'split', flashAttention: false } as const;
    const expected: string[][] = [];
    for (const systemPrompt of prompts) {
      expected.push(await uncachedReplies({ ...settings, systemPrompt }, ['Hello', 'And now?'], 8));
    }
    const agent = await startAgent({ ...settings, nSeqMax: 2 });
    const texts = await Promise.all(
      prompts.map(async (systemPrompt) => {
        const session = await agent.createSession({ systemPrompt });
        return replies(session, ['Hello', 'And now?'], 8);
      }),
    );
    expect(texts).toEqual(expected);
  });

  it('evict each other when the KV cache is full, and continue with the same replies', async () => {
    const turn = `Read this. ${'The chain is oiled and the brake is new. '.repeat(12)}`;
    const settings = { ...EXACT, kvCells: 1024, contextSize: 1024, nSeqMax: 4 };
    const expected = await uncachedReplies(settings, [turn, 'And now?'], 8);
    const agent = await startAgent(settings);
    const sessions = await Promise.all([1, 2, 3, 4].map(() => agent.createSession()));
    const texts: string[][] = sessions.map(() => []);
    for (const content of [turn, 'And now?']) {
      for (const [index, session] of sessions.entries()) {
        texts[index]?.push((await session.send(content, { maxTokens: 8 })).text);
      }
    }
    expect(texts).toEqual(sessions.map(() => expected));
  });

  it('can restore a template from memory even if another session fills the KV cache', async () => {
    const settings = { ...EXACT, kvCells: 512, contextSize: 512, nSeqMax: 2, maxResidentTemplates: 1 };
    const expected = await uncachedReplies(settings, ['Hello'], 8);
    const agent = await startAgent(settings);
    await (await agent.createSession()).close();
    // The next template takes the only sequence for resident templates. Then the reply takes all cells.
    const large = await agent.createSession({ systemPrompt: numberedPrompt(1) });
    expect((await large.send('Hello')).finishReason).toBe('length');
    const session = await agent.createSession();
    expect(session.report.source).toBe('memory');
    expect(await replies(session, ['Hello'], 8)).toEqual(expected);
  });

  it('can be opened and closed fifty times, and their sequences and cached template stay usable', async () => {
    const settings = { ...EXACT, nSeqMax: 2 };
    const expected = await uncachedReplies(settings, ['Hello'], 8);
    const agent = await startAgent(settings);
    for (let round = 0; round < 50; round++) {
      const session = await agent.createSession();
      if (round % 10 === 0) {
        await session.send('Hello', { maxTokens: 2 });
      }
      await session.close();
    }
    expect(agent.getTemplateCacheStats()).toMatchObject({ hits: 49, misses: 1, residentTemplates: 1 });
    const both = [await agent.createSession(), await agent.createSession()];
    expect(agent.health().heldSequences).toBe(2);
    for (const session of both) {
      expect(await replies(session, ['Hello'], 8)).toEqual(expected);
    }
  });
});

describe('a session', () => {
  it("has the agent's system prompt and tools unless it has its own", async () => {
    const agent = await startAgent({ systemPrompt: SYSTEM_PROMPT, tools: TOOLS });
    const defaults = await agent.createSession();
    const explicit = await agent.createSession({ systemPrompt: SYSTEM_PROMPT, tools: TOOLS });
    const other = await agent.createSession({ systemPrompt: numberedPrompt(2) });
    expect(defaults.report).toMatchObject({ cache: 'miss', reason: 'absent' });
    expect(explicit.report).toMatchObject({ source: 'resident', key: defaults.report.key });
    expect(other.report.key).not.toBe(defaults.report.key);
    const withoutTools = await agent.createSession({ tools: [] });
    expect(withoutTools.report.templateTokens).toBeLessThan(defaults.report.templateTokens);
  });

  it('bypasses the template cache with `templateCache: false`', async () => {
    const agent = await startAgent();
    const session = await agent.createSession({ templateCache: false });
    expect(session.report).toMatchObject({ cache: 'bypass', cachedTokens: 0, key: '' });
    expect(agent.getTemplateCacheStats()).toMatchObject({ hits: 0, misses: 0, bypasses: 1, entries: 0 });
  });

  it('has the messages of all finished turns, and the caller cannot change them', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const { text } = await session.send('Hello', { maxTokens: 4 });
    expect(session.messages).toEqual([
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: text },
    ]);
    expect(() => Object.assign(session.messages[0] as ChatMessage, { content: 'Bye' })).toThrow(TypeError);
    expect(() => (session.messages as ChatMessage[]).pop()).toThrow(TypeError);
  });

  it('streams the text that `send` returns, in whole characters', async () => {
    const agent = await startAgent({ name: 'hybrid' });
    for (const content of ['Hello', '\u{1F6B2}', '日本語']) {
      const [streamed, whole] = [await agent.createSession(), await agent.createSession()];
      const parts: StreamPart[] = [];
      for await (const part of streamed.stream(content, { maxTokens: 200 })) {
        parts.push(part);
      }
      const texts = parts.flatMap((part) => (part.type === 'text-delta' ? [part.text] : []));
      const reply = await whole.send(content, { maxTokens: 200 });
      expect(texts.join('')).toBe(reply.text);
      expect(texts.every((text) => text !== '' && isWellFormed(text))).toBe(true);
      expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason: reply.finishReason });
      await Promise.all([streamed.close(), whole.close()]);
    }
  });

  it('generates at most `maxTokens` tokens, and then reports `length`', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const reply = await session.send('Hello', { maxTokens: 7 });
    expect(reply.finishReason).toBe('length');
    expect(reply.usage.outputTokens).toBe(7);
  });

  it('starts from memory in the split layout, which has no resident templates', async () => {
    const expected = await uncachedReplies({ kvLayout: 'split' }, TURNS, MAX_TOKENS);
    const agent = await startAgent({ kvLayout: 'split' });
    const sources: string[] = [];
    for (let index = 0; index < 3; index++) {
      const session = await agent.createSession();
      sources.push(session.report.source);
      expect(await replies(session, TURNS, MAX_TOKENS)).toEqual(expected);
    }
    expect(sources).toEqual(['prefill', 'memory', 'memory']);
    expect(agent.getTemplateCacheStats()).toMatchObject({ entries: 1, residentTemplates: 0 });
  });
});
