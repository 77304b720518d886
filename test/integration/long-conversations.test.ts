// Compaction shortens long conversations. If compaction is off, a full context causes an error that names the option.
import {
  type ChatMessage,
  type CompactionOptions,
  type MessageInput,
  type SendOptions,
  type StreamPart,
  subscribeDiagnostics,
} from 'llama-headstart';
import { Model } from 'llama-headstart/native';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { EXACT, startAgent } from '../helpers/agents.js';
import { coldReply } from '../helpers/cold.js';
import { likelyCalls } from '../helpers/likely-text.js';
import { type MicroModelName, microModel, testModel } from '../helpers/models.js';
import { SYSTEM_PROMPT } from '../helpers/prompts.js';
import { withEnoughTime } from '../helpers/time-limits.js';

/** Four turns. The second one has a tool call. */
const HISTORY: MessageInput[] = [
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
/** Returns a turn of about `tokens` tokens. */
const turnOf = (number: number, tokens: number): MessageInput[] => [
  { role: 'user', content: `Turn ${number}: ${'the chain is oiled. '.repeat(tokens / 10)}` },
  { role: 'assistant', content: 'Good.' },
];
const contents = (messages: readonly ChatMessage[]) => messages.map(({ content }) => content);

describe('session.compact', () => {
  it('replaces older turns by a summary, and keeps the newest turns unchanged', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession({ messages: HISTORY });
    const report = await session.compact({ preserveRecent: 1, prompt: 'Summarize.', maxSummaryTokens: 12 });
    expect(report).toMatchObject({ replacedMessages: 8, summary: session.messages[1]?.content });
    expect(report?.tokensAfter).toBeLessThan(report?.tokensBefore ?? 0);
    expect(contents(session.messages)).toEqual(['Summarize.', report?.summary, 'Fourth.', 'Four.']);
    const { usage } = await session.send('And now?', { maxTokens: 4 });
    expect(usage.cachedInputTokens).toBeGreaterThanOrEqual(session.report.templateTokens);
  });

  it.each([2, 3])('keeps tool calls and their results together if it keeps %i turns', async (preserveRecent) => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession({ messages: HISTORY });
    await session.compact({ preserveRecent, maxSummaryTokens: 8 });
    const kept = session.messages.slice(2);
    expect(contents(kept)).toEqual(contents(HISTORY.slice(preserveRecent === 2 ? 6 : 2) as ChatMessage[]));
    const calls = kept.flatMap((message) => (message.role === 'assistant' ? (message.toolCalls ?? []) : []));
    expect(kept.filter(({ role }) => role === 'tool')).toHaveLength(calls.length);
  });

  it('keeps tool calls that have no results yet', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession({ messages: HISTORY.slice(0, 4) });
    await session.compact({ preserveRecent: 0, maxSummaryTokens: 8 });
    expect(session.pendingToolCalls).toHaveLength(1);
    expect(session.messages).toHaveLength(4);
  });

  it('does nothing in a conversation without messages', async () => {
    expect(await (await (await startAgent()).createSession()).compact()).toBeUndefined();
  });

  it.each(['dense', 'sliding-window', 'recurrent'] as const)(
    'shows the model only the messages to summarize, whatever the sequence holds, with the %s model',
    async (name) => {
      const session = await (await startAgent({ name, contextSize: 2048, ...EXACT })).createSession({
        messages: HISTORY,
      });
      await session.send('Fifth.', { maxTokens: 4 });
      const older = session.messages.slice(0, 2);
      const report = await session.compact({ preserveRecent: 4, prompt: 'Summarize.', maxSummaryTokens: 12 });
      expect(report?.replacedMessages).toBe(2);
      const prompt: ChatMessage[] = [...older, { role: 'user', content: 'Summarize.' }];
      const cold = await coldReply(microModel(name), { systemPrompt: SYSTEM_PROMPT }, prompt, 12);
      expect(report?.summary).toBe(cold.text.trim());
    },
  );

  /** Watches prefills from now on. The returned function returns the size of the largest prefill, in tokens. */
  function watchPrompts(): () => number {
    let longest = 0;
    onTestFinished(
      subscribeDiagnostics('prefill', ({ tokens }) => {
        longest = Math.max(longest, tokens);
      }),
    );
    return () => longest;
  }

  it('summarizes only the beginnings of the messages of a turn that nearly fills the context', async () => {
    const messages: MessageInput[] = [
      { role: 'user', content: 'Read all of this. '.repeat(40) },
      { role: 'assistant', content: '', toolCalls: [{ toolCallId: 'call00000', toolName: 'find', input: {} }] },
      { role: 'tool', toolCallId: 'call00000', content: 'It says that the chain is oiled. '.repeat(40) },
      { role: 'assistant', content: 'Two.' },
    ];
    const agent = await startAgent({ contextSize: 1024 });
    expect(await agent.countTokens(messages)).toBeGreaterThan(900);
    const session = await agent.createSession({ messages });
    const longest = watchPrompts();
    const report = await session.compact({ maxSummaryTokens: 128, prompt: 'Summarize.' });
    expect(longest()).toBeGreaterThan(300);
    expect(report).toMatchObject({ replacedMessages: 4 });
    expect(session.messages).toHaveLength(2);
  });

  it('limits a summary to half of the context, and summarizes as many turns as fit into the other half', async () => {
    const session = await (await startAgent({ contextSize: 1024 })).createSession({
      messages: [turnOf(1, 300), turnOf(2, 100)].flat(),
    });
    const longest = watchPrompts();
    await session.compact({ preserveRecent: 0, maxSummaryTokens: 100_000, prompt: 'Summarize.' });
    expect(longest()).toBeGreaterThan(80);
    expect(session.messages).toHaveLength(2);
  });

  it('fails with CONTEXT_FULL if no summary fits into the context, and keeps the conversation', async () => {
    const session = await (await startAgent({ contextSize: 1024 })).createSession({ messages: HISTORY });
    const full = session.compact({ prompt: 'Summarize. '.repeat(400) });
    await expect(full).rejects.toMatchObject({
      code: 'CONTEXT_FULL',
      message: expect.stringMatching(/`compaction.prompt`/),
    });
    expect(session.messages).toHaveLength(HISTORY.length);
  });

  it('uses the reasoning as the summary if the model only reasons', async () => {
    // As with gpt-oss, every reply begins with reasoning.
    const chatTemplate =
      "{% for m in messages %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|channel|>analysis<|message|>' }}{% endif %}";
    const session = await (await startAgent({ contextSize: 2048, chatTemplate })).createSession({ messages: HISTORY });
    const { text, reasoning } = await session.send('And?', { maxTokens: 8 });
    expect({ text, isThought: reasoning !== '' }).toEqual({ text: '', isThought: true });
    const report = await session.compact({ maxSummaryTokens: 8 });
    expect(report?.summary).not.toBe('');
  });

  it('keeps the conversation if the call is aborted, its options are invalid, or a turn runs', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession({ messages: HISTORY });
    await expect(session.compact({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(session.compact({ preserveRecent: -1 })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(session.compact({ treshold: 0.5 } as never)).rejects.toThrow(/did you mean `threshold`/);
    expect(session.messages).toHaveLength(HISTORY.length);
    const turn = session.send('Hello', { maxTokens: 4 });
    await expect(session.compact()).rejects.toMatchObject({ code: 'SESSION_BUSY' });
    await turn;
  });
});

describe('compaction', () => {
  it('happens automatically before a turn whose prompt exceeds the threshold, and the stream reports it', async () => {
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

  it('counts towards the time limit of its turn', async () => {
    const agent = await startAgent({ contextSize: 1024 });
    await withEnoughTime(50, async (timeoutMs) => {
      const session = await agent.createSession({ messages: HISTORY, compaction: { threshold: 0.1 } });
      const deadline = performance.now() + timeoutMs + 10;
      let isCompacting = false;
      const unsubscribe = subscribeDiagnostics('decode', () => {
        isCompacting = true;
        while (performance.now() < deadline); // now the limit has passed, before the summary is complete
      });
      const parts: string[] = [];
      const reading = (async () => {
        for await (const { type } of session.stream('And now?', { timeoutMs })) {
          parts.push(type);
        }
      })();
      await expect(reading).rejects.toThrow(`\`timeoutMs\` (${timeoutMs} ms) passed`);
      unsubscribe();
      expect({ isCompacting, parts }).toEqual({ isCompacting: true, parts: [] });
      expect(session.messages).toHaveLength(HISTORY.length);
    });
  });

  describe('between the steps of a turn', () => {
    const RESULT = 'The chain is oiled and the brake is new. '.repeat(8);
    const look = { name: 'look', description: 'Looks.', execute: () => RESULT };
    const open = async (name: MicroModelName, compaction: CompactionOptions | boolean) => {
      const agent = await startAgent({ name, contextSize: 1024, ...EXACT });
      return agent.createSession({ tools: [look], compaction, messages: HISTORY.slice(6) });
    };
    const options = async (): Promise<SendOptions> => ({
      sampling: await likelyCalls(),
      maxParallelTools: 1,
      maxSteps: 12,
      maxTokens: 60,
    });

    it.each(['dense', 'recurrent'] as const)(
      'keeps tool calls and their results together, with the %s model',
      async (name) => {
        const session = await open(name, { maxSummaryTokens: 16 });
        const parts: StreamPart[] = [];
        for await (const part of session.stream('Look around', await options())) {
          parts.push(part);
        }
        const ofType = (type: StreamPart['type']) => parts.filter((part) => part.type === type);
        expect(ofType('compaction').length).toBeGreaterThan(1);
        const called = ofType('tool-call').map((part) => 'toolCallId' in part && part.toolCallId);
        expect(new Set(called).size).toBe(12);
        expect(ofType('tool-result').map((part) => 'toolCallId' in part && part.toolCallId)).toEqual(called);
        expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason: 'tool-calls', usage: { steps: 12 } });
        const [, { content: summary }, ...rest] = session.messages as [ChatMessage, ChatMessage, ...ChatMessage[]];
        expect(ofType('compaction').at(-1)).toMatchObject({ summary });
        expect(rest[0]).toEqual({ role: 'user', content: 'Look around' });
        for (const [index, { role }] of rest.slice(1).entries()) {
          expect(role).toBe(index % 2 === 0 ? 'assistant' : 'tool');
        }
        expect(rest.at(-1)).toMatchObject({ toolCallId: called.at(-1), content: RESULT });
        const source = { systemPrompt: SYSTEM_PROMPT, tools: [look] };
        const { text, usage } = await session.send('And?', { maxTokens: 8 });
        expect(usage.cachedInputTokens).toBeGreaterThanOrEqual(session.report.templateTokens);
        expect(text).toBe((await coldReply(microModel(name), source, session.messages.slice(0, -1), 8)).text);
      },
    );

    it('is off without the option: the turn fails with CONTEXT_FULL and has no effect on the session', async () => {
      const session = await open('dense', false);
      const full = session.send('Look around', await options());
      await expect(full).rejects.toMatchObject({
        code: 'CONTEXT_FULL',
        message: expect.stringMatching(/`compaction`.*`maxToolResultLength`/),
      });
      expect(session.messages).toHaveLength(4);
      expect((await session.send('Hello', { maxTokens: 3 })).usage.outputTokens).toBe(3);
    });

    it('fails with CONTEXT_FULL if one tool result alone fills the context', async () => {
      const agent = await startAgent({ contextSize: 512 });
      const tools = [{ ...look, execute: () => 'much '.repeat(2000) }];
      const session = await agent.createSession({ tools, compaction: true });
      const send = session.send('Look', { ...(await options()), maxToolResultLength: 10_000 });
      await expect(send).rejects.toMatchObject({
        code: 'CONTEXT_FULL',
        message: expect.stringMatching(
          /`compaction` has already replaced all of the conversation .*Raise `contextSize`.*`maxToolResultLength`/,
        ),
      });
      expect(session.messages).toEqual([]);
    });
  });

  it('keeps fewer turns than `preserveRecent` if `preserveRecent` turns would fill the context', async () => {
    const session = await (await startAgent({ contextSize: 512 })).createSession({
      compaction: { preserveRecent: 3, maxSummaryTokens: 16 },
      messages: [1, 2, 3].flatMap((turn): MessageInput[] => [
        { role: 'user', content: `Turn ${turn}: ${'the chain is oiled. '.repeat(10)}` },
        { role: 'assistant', content: 'Good.' },
      ]),
    });
    await session.send('And now?', { maxTokens: 4 });
    const kept = session.messages.slice(2).filter(({ role }) => role === 'user');
    expect(kept.length).toBeLessThan(4);
    expect(kept.at(-1)).toMatchObject({ content: 'And now?' });
  });

  it('shortens a conversation that is many times longer than the context, with fewer than 30 renders', async () => {
    const render = vi.spyOn(Model.prototype, 'render');
    onTestFinished(() => render.mockRestore());
    const messages = Array.from({ length: 100 }, (_, turn) => turnOf(turn, 50)).flat();
    const agent = await startAgent({ contextSize: 512 });
    const session = await agent.createSession({ messages, compaction: { maxSummaryTokens: 16 } });
    render.mockClear();
    expect((await session.send('And now?', { maxTokens: 4 })).usage.outputTokens).toBe(4);
    expect(session.messages.length).toBeLessThan(8);
    expect(session.messages.at(-2)).toMatchObject({ content: 'And now?' });
    expect(render.mock.calls.length).toBeLessThan(30);
  });

  it('leaves out the arguments of a tool call that alone fill the context', async () => {
    const session = await (await startAgent({ contextSize: 512 })).createSession({
      messages: [
        { role: 'user', content: 'Keep it.' },
        {
          role: 'assistant',
          content: '',
          toolCalls: [
            { toolCallId: 'call00000', toolName: 'keep', input: { poem: 'of spring and rain, '.repeat(200) } },
          ],
        },
        { role: 'tool', toolCallId: 'call00000', content: 'kept' },
        { role: 'assistant', content: 'Done.' },
      ],
    });
    const report = await session.compact({ preserveRecent: 0, maxSummaryTokens: 16 });
    expect(report).toMatchObject({ replacedMessages: 4 });
    expect((await session.send('And now?', { maxTokens: 3 })).usage.outputTokens).toBe(3);
  });

  it('keeps the conversation if the model writes no summary and the prompt still fits', async () => {
    const agent = await startAgent({ contextSize: 1024 });
    const { eos } = agent.model.info.vocabulary;
    const session = await agent.createSession({
      messages: [turnOf(1, 300), turnOf(2, 200)].flat(),
      compaction: { threshold: 0.5 },
      sampling: { logitBias: { [eos as number]: 1e6 } },
    });
    const { finishReason, text } = await session.send('And now?');
    expect({ finishReason, text, messages: session.messages.length }).toEqual({
      finishReason: 'stop',
      text: '',
      messages: 6,
    });
    await expect(session.compact()).rejects.toMatchObject({ code: 'REPLY_INVALID' });
    expect(session.messages).toHaveLength(6);
  });

  it('is off by default: the error of a full context names the option', async () => {
    const session = await (await startAgent({ contextSize: 256 })).createSession();
    const full = session.send('word '.repeat(400));
    await expect(full).rejects.toMatchObject({ code: 'CONTEXT_FULL', message: expect.stringMatching(/compaction/) });
    expect(session.messages).toEqual([]);
    expect((await session.send('Hello', { maxTokens: 3 })).usage.outputTokens).toBe(3);
  });

  it('rejects invalid options when a session is opened', async () => {
    const agent = await startAgent();
    for (const compaction of [{ threshold: 2 }, { prompt: '' }, { keep: 3 }, 5]) {
      await expect(agent.createSession({ compaction: compaction as never })).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
      });
    }
  });
});

describe('a message of a megabyte', () => {
  it('fails with CONTEXT_FULL, without an effect on any session', async () => {
    const agent = await startAgent();
    const [session, other] = [await agent.createSession(), await agent.createSession()];
    await expect(session.send('All work and no play. '.repeat(50_000))).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
    expect((await session.send('\ud83d half', { maxTokens: 3 })).usage.outputTokens).toBe(3); // a lone surrogate
    expect((await other.send('', { maxTokens: 3 })).usage.outputTokens).toBe(3);
  });
});

describe.skipIf(testModel() === undefined)('SmolLM2', () => {
  it('writes a summary that names a fact of the conversation', async () => {
    const { AgentServer } = await import('llama-headstart');
    const model = { source: testModel() as string, cacheDir: null, contextSize: 1024, nThreads: 1 };
    const agent = await AgentServer.initialize({ model, systemPrompt: 'Be brief.', sampling: { temperature: 0 } });
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
