// Long conversations: shortened where that is asked for, a clear error where it is not.
import type { ChatMessage, MessageInput, StreamPart } from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { testModel } from '../helpers/models.js';

/** Four turns, the second with a tool call. */
const PAST: MessageInput[] = [
  { role: 'user', content: `First. ${'The chain is oiled. '.repeat(10)}` },
  { role: 'assistant', content: 'One.' },
  { role: 'user', content: 'Second.' },
  { role: 'assistant', content: '', toolCalls: [{ toolCallId: 'call00000', toolName: 'find', input: {} }] },
  { role: 'tool', toolCallId: 'call00000', content: 'four' },
  { role: 'assistant', content: 'Two.' },
  { role: 'user', content: 'Third.' },
  { role: 'assistant', content: 'Three.' },
  { role: 'user', content: 'Fourth.' },
  { role: 'assistant', content: 'Four.' },
];
const contents = (messages: readonly ChatMessage[]) => messages.map(({ content }) => content);

describe('session.compact', () => {
  it('puts a summary in the place of older turns, and keeps the newest word for word', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession({ messages: PAST });
    const report = await session.compact({ preserveRecent: 1, prompt: 'Summarise.', maxSummaryTokens: 12 });
    expect(report).toMatchObject({ replacedMessages: 8, summary: session.messages[1]?.content });
    expect(report?.tokensAfter).toBeLessThan(report?.tokensBefore ?? 0);
    expect(contents(session.messages)).toEqual(['Summarise.', report?.summary, 'Fourth.', 'Four.']);
    const { usage } = await session.send('And now?', { maxTokens: 4 });
    expect(usage.cachedTokens).toBeGreaterThanOrEqual(session.report.templateTokens);
  });

  it.each([2, 3])('keeps calls and their results together, with %i turns kept', async (preserveRecent) => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession({ messages: PAST });
    await session.compact({ preserveRecent, maxSummaryTokens: 8 });
    const kept = session.messages.slice(2);
    expect(contents(kept)).toEqual(contents(PAST.slice(preserveRecent === 2 ? 6 : 2) as ChatMessage[]));
    const calls = kept.flatMap((message) => (message.role === 'assistant' ? (message.toolCalls ?? []) : []));
    expect(kept.filter(({ role }) => role === 'tool')).toHaveLength(calls.length);
  });

  it('leaves calls that wait for a result where they are', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession({ messages: PAST.slice(0, 4) });
    await session.compact({ preserveRecent: 0, maxSummaryTokens: 8 });
    expect(session.pendingToolCalls).toHaveLength(1);
    expect(session.messages).toHaveLength(4);
  });

  it('of a conversation that has not begun is nothing', async () => {
    expect(await (await (await startAgent()).createSession()).compact()).toBeUndefined();
  });

  it('that is aborted, or refused, changes nothing', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession({ messages: PAST });
    await expect(session.compact({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(session.compact({ preserveRecent: -1 })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(session.compact({ treshold: 0.5 } as never)).rejects.toThrow(/did you mean `threshold`/);
    expect(session.messages).toHaveLength(PAST.length);
    const turn = session.send('Hello', { maxTokens: 4 });
    await expect(session.compact()).rejects.toMatchObject({ code: 'SESSION_BUSY' });
    await turn;
  });
});

describe('compaction', () => {
  it('happens by itself before a turn that would take too much of the context, and is told of', async () => {
    const agent = await startAgent({ contextSize: 512 });
    const session = await agent.createSession({
      compaction: { threshold: 0.6, maxSummaryTokens: 16, preserveRecent: 1 },
    });
    const compactions: StreamPart[] = [];
    for (let turn = 0; turn < 10; turn++) {
      for await (const part of session.stream(`Turn ${turn}: ${'the chain is oiled. '.repeat(4)}`, { maxTokens: 12 })) {
        if (part.type === 'compaction') {
          compactions.push(part);
        }
      }
    }
    expect(compactions.length).toBeGreaterThan(1);
    expect(agent.getTemplateCacheStats()).toMatchObject({ misses: 1, prefixMismatches: 0 });
  });

  it('is off where nobody asked: a full context says what to do', async () => {
    const session = await (await startAgent({ contextSize: 256 })).createSession();
    const full = session.send('word '.repeat(400));
    await expect(full).rejects.toMatchObject({ code: 'CONTEXT_FULL', message: expect.stringMatching(/compaction/) });
    expect(session.messages).toEqual([]);
    expect((await session.send('Hello', { maxTokens: 3 })).usage.completionTokens).toBe(3);
  });

  it('is checked when a session is opened', async () => {
    const agent = await startAgent();
    for (const compaction of [{ threshold: 2 }, { prompt: '' }, { keep: 3 }, 5]) {
      await expect(agent.createSession({ compaction: compaction as never })).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
      });
    }
  });
});

describe('a message of a megabyte', () => {
  it('is a coded error, and harms nobody', async () => {
    const agent = await startAgent();
    const [session, other] = [await agent.createSession(), await agent.createSession()];
    await expect(session.send('All work and no play. '.repeat(50_000))).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
    expect((await session.send('\ud83d half', { maxTokens: 3 })).usage.completionTokens).toBe(3); // a lone surrogate
    expect((await other.send('', { maxTokens: 3 })).usage.completionTokens).toBe(3);
  });
});

describe.skipIf(testModel() === undefined)('SmolLM2', () => {
  it('summarises a conversation', async () => {
    const { AgentServer } = await import('llama-headstart');
    const model = { source: testModel() as string, cacheDir: null, contextSize: 1024, nThreads: 1 };
    const agent = await AgentServer.initialize({ model, systemPrompt: 'Be brief.' });
    onTestFinished(() => agent.close());
    const session = await agent.createSession({
      messages: [
        { role: 'user', content: 'My name is Ada and my bicycle is red. Please remember that.' },
        { role: 'assistant', content: 'Your name is Ada, and your bicycle is red.' },
      ],
    });
    const report = await session.compact({ preserveRecent: 0, maxSummaryTokens: 40 });
    expect(report?.summary).toMatch(/Ada|red|bicycle/);
    expect(session.messages).toHaveLength(2);
  });
});
