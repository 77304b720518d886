// The program may approve, change, refuse or answer tool calls.
import type { Reply, Session, ToolCallHook } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { call, lamp, openSession, roles } from '../helpers/lamp.js';
import { likelyCalls } from '../helpers/likely-text.js';

describe('`onToolCall`', () => {
  it.each<[string, ToolCallHook, object]>([
    ['approves a call', () => true, { output: 'ran', isError: false }],
    ['lets a call run by returning nothing', () => undefined, { output: 'ran', isError: false }],
    ['lets a call run by returning null', () => null as never, { output: 'ran', isError: false }],
    ['refuses a call', async () => false, { output: 'The call was refused', isError: true }],
    [
      'refuses a call with a reason',
      () => ({ refuse: 'It is noon' }),
      { output: 'Refused: It is noon', isError: true },
    ],
    [
      'refuses a call by throwing',
      () => {
        throw new Error('no');
      },
      { output: 'no', isError: true },
    ],
  ])('%s', async (_, onToolCall, expected) => {
    const { reply } = await call(
      lamp(() => 'ran'),
      { onToolCall },
    );
    expect(reply.toolResults).toMatchObject([expected]);
  });

  it.each([
    ['a value that JSON cannot express', { on: 1n }],
    ['nothing', undefined],
  ])('makes a call fail if it changes the arguments to %s, and the conversation continues', async (_, input) => {
    const { reply, session } = await call(
      lamp(() => 'ran'),
      { onToolCall: () => ({ input }), maxSteps: 2 },
    );
    expect(reply.toolResults).toMatchObject([{ isError: true, output: expect.stringContaining('JSON data') }]);
    expect(session.messages[1]).toMatchObject({ toolCalls: [{ input: { on: expect.any(Boolean) } }] });
  });

  it('may change the arguments, both for the tool and in the conversation', async () => {
    const seen: unknown[] = [];
    const { reply, session } = await call(
      lamp((args) => void seen.push(args)),
      {
        onToolCall: ({ input }) => ({ input: { on: !(input as { on: boolean }).on } }),
      },
    );
    const [{ input }] = reply.toolCalls as unknown as [{ input: { on: boolean } }];
    expect(seen).toEqual([{ on: !input.on }]);
    expect(session.messages[1]).toMatchObject({ toolCalls: [{ input: { on: !input.on } }] });
  });
});

describe('a tool without `execute`', () => {
  it('ends the reply with `tool-calls`, and the next `send` continues with the results', async () => {
    const { reply, session } = await call(lamp());
    expect(reply).toMatchObject({ finishReason: 'tool-calls', toolResults: [] });
    expect(session.pendingToolCalls).toEqual(reply.toolCalls);
    await expect(session.send('Never mind')).rejects.toThrow(/results for the tool calls "call00000" first/);
    const results = reply.toolCalls.map(({ toolCallId }) => ({ role: 'tool', toolCallId, content: 'lit' }) as const);
    const { usage } = await session.send(results, { toolChoice: 'none', maxTokens: 3 });
    expect(usage.cachedInputTokens).toBeGreaterThan(session.report.templateTokens);
    expect(roles(session)).toEqual(['user', 'assistant', 'tool', 'assistant']);
    expect(session.pendingToolCalls).toEqual([]);
  });

  it('is the only tool that needs results from the program if other tools of the same reply ran', async () => {
    const root = await openSession([lamp(() => 'lit', 'mine'), lamp(undefined, 'yours')]);
    const calls = await likelyCalls();
    const turnWithBothTools = async (seed: number): Promise<{ session: Session; reply: Reply }> => {
      const session = await root.fork();
      const sampling = { ...calls, temperature: 2, seed };
      const reply = await session.send('Light', { sampling, maxTokens: 200 });
      const names = new Set(reply.toolCalls.map(({ toolName }) => toolName));
      return names.size === 2 && reply.finishReason === 'tool-calls' ? { session, reply } : turnWithBothTools(seed + 1);
    };
    const { session, reply } = await turnWithBothTools(1);
    const ids = (name: string) => reply.toolCalls.flatMap((each) => (each.toolName === name ? each.toolCallId : []));
    expect(reply.usage.steps).toBe(1);
    expect(reply.toolResults.map(({ toolCallId }) => toolCallId).sort()).toEqual(ids('mine'));
    expect(session.pendingToolCalls.map(({ toolCallId }) => toolCallId)).toEqual(ids('yours'));
    const results = ids('yours').map((toolCallId) => ({ role: 'tool', toolCallId, content: 'lit' }) as const);
    expect((await session.send(results, { toolChoice: 'none', maxTokens: 3 })).usage.outputTokens).toBe(3);
    expect(session.pendingToolCalls).toEqual([]);
  });
});
