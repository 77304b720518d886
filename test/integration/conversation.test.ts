// A session's conversation is the conversation: whatever is in the KV cache, replies are those of a cold run.
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
    it('says in each turn what a cold run of the whole conversation says', async () => {
      const agent = await startAgent({ name, tools: TOOLS, ...EXACT });
      const session = await agent.createSession();
      for (const content of TURNS) {
        const conversation: ChatMessage[] = [...session.messages, { role: 'user', content }];
        const expected = await coldReply(
          microModel(name),
          { systemPrompt: SYSTEM_PROMPT, tools: TOOLS },
          conversation,
          MAX_TOKENS,
        );
        expect((await session.send(content, { maxTokens: MAX_TOKENS })).text).toBe(expected.text);
      }
      expect(session.messages).toHaveLength(2 * TURNS.length);
    });

    it('goes on the same after its sequence was taken for other sessions', async () => {
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

  it('grows with the turns: attention models read only what is new', async () => {
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

  it('counts as cached only what was: a template that had to be read again was not', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const session = await agent.createSession({ templateCache: false });
    await agent.createSession(); // takes the one sequence
    const { usage } = await session.send('Hello', { maxTokens: 2 });
    expect(usage.cachedInputTokens).toBe(0);
    expect((await session.send('Again', { maxTokens: 2 })).usage.cachedInputTokens).toBeGreaterThan(0);
  });
});

/** Without half a surrogate pair; `String.prototype.isWellFormed` is younger than the language that we compile for. */
const isWellFormed = (text: string) => Buffer.from(text, 'utf8').toString('utf8') === text;

describe('many sessions', () => {
  it('run at the same time on fewer sequences, each with its own replies', async () => {
    const prompts = Array.from({ length: 6 }, (_, index) => numberedPrompt(index));
    // Without flash attention, in split streams, company does not matter to the bit.
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

  it('give each other room when the KV cache is full: idle ones come back later', async () => {
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

  it('bring a template back from memory into a full KV cache', async () => {
    const settings = { ...EXACT, kvCells: 512, contextSize: 512, nSeqMax: 2, maxResidentTemplates: 1 };
    const expected = await uncachedReplies(settings, ['Hello'], 8);
    const agent = await startAgent(settings);
    await (await agent.createSession()).close();
    const large = await agent.createSession({ systemPrompt: numberedPrompt(1) }); // takes the one resident place
    expect((await large.send('Hello')).finishReason).toBe('length'); // and now all cells
    const session = await agent.createSession();
    expect(session.report.source).toBe('memory');
    expect(await replies(session, ['Hello'], 8)).toEqual(expected);
  });

  it('can be opened and closed without end', async () => {
    const agent = await startAgent({ nSeqMax: 2 });
    for (let round = 0; round < 50; round++) {
      const session = await agent.createSession();
      if (round % 10 === 0) {
        await session.send('Hello', { maxTokens: 2 });
      }
      await session.close();
    }
    expect(agent.getTemplateCacheStats()).toMatchObject({ hits: 49, misses: 1, residentTemplates: 1 });
    const both = await Promise.all([agent.createSession(), agent.createSession()]);
    expect(await Promise.all(both.map((session) => replies(session, ['Hello'], 8)))).toHaveLength(2);
  });
});

describe('a session', () => {
  it("takes the agent's system prompt and tools where it names none", async () => {
    const agent = await startAgent({ systemPrompt: SYSTEM_PROMPT, tools: TOOLS });
    const bare = await agent.createSession();
    const explicit = await agent.createSession({ systemPrompt: SYSTEM_PROMPT, tools: TOOLS });
    const other = await agent.createSession({ systemPrompt: numberedPrompt(2) });
    expect(bare.report).toMatchObject({ cache: 'miss', reason: 'absent' });
    expect(explicit.report).toMatchObject({ source: 'resident', key: bare.report.key });
    expect(other.report.key).not.toBe(bare.report.key);
    const withoutTools = await agent.createSession({ tools: [] });
    expect(withoutTools.report.templateTokens).toBeLessThan(bare.report.templateTokens);
  });

  it('leaves the cache alone when told to', async () => {
    const agent = await startAgent();
    const session = await agent.createSession({ templateCache: false });
    expect(session.report).toMatchObject({ cache: 'bypass', cachedTokens: 0, key: '' });
    expect(agent.getTemplateCacheStats()).toMatchObject({ hits: 0, misses: 0, bypasses: 1, entries: 0 });
  });

  it('remembers finished turns, and nobody can change them', async () => {
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

  it('streams what it sends whole, in well-formed characters', async () => {
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

  it('generates as many tokens as asked for, and says why it ended', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const reply = await session.send('Hello', { maxTokens: 7 });
    expect(reply.finishReason).toBe('length');
    expect(reply.usage.outputTokens).toBe(7);
  });

  it('in split streams starts from memory, as nothing can be resident there', async () => {
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
