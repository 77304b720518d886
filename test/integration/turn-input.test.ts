// A turn accepts valid messages and options. It rejects invalid ones without an effect on the session.
import type { ToolDefinition } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { EXACT, replies, startAgent, uncachedReplies } from '../helpers/agents.js';
import { expectLikeNew, withCode } from '../helpers/turns.js';

describe('a turn', () => {
  it('is not affected by later changes of the array of tools that was passed to the session', async () => {
    const tools: ToolDefinition[] = [{ name: 'look', description: 'Look around' }];
    const session = await (await startAgent({ ...EXACT })).createSession({ tools });
    tools.push({ name: 'jump' });
    tools[0] = { name: 'run' };
    const expected = await uncachedReplies(
      { ...EXACT, tools: [{ name: 'look', description: 'Look around' }] },
      ['Hello'],
      8,
    );
    expect(await replies(session, ['Hello'], 8)).toEqual(expected);
  });

  it('rejects invalid messages and options, and the session stays usable', async () => {
    const session = await (await startAgent()).createSession();
    const bad: [unknown, unknown][] = [
      [undefined, {}],
      [7, {}],
      ['Hello', { maxTokens: 0 }],
      ['Hello', { maxTokens: 1.5 }],
      ['Hello', { maxTokens: '8' }],
      ['Hello', { signal: 'stop' }],
      ['Hello', { max_tokens: 8 }],
      ['Hello', null],
    ];
    for (const [message, options] of bad) {
      await expect(session.send(message as string, options as object)).rejects.toThrow(withCode('INVALID_ARGUMENT'));
    }
    await expectLikeNew(session);
  });

  it('can still begin after other calls of the session and the agent were rejected for invalid arguments', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    for (const options of [{ signal: 5 }, null, { preserveRecent: -1 }]) {
      await expect(session.compact(options as never)).rejects.toThrow(withCode('CONFIG_INVALID'));
    }
    await expect(session.save('x.json', { signal: 5 } as never)).rejects.toThrow(withCode('INVALID_ARGUMENT'));
    for (const options of [null, { messages: [] }]) {
      await expect(agent.restoreSession('x.json', options as never)).rejects.toThrow(withCode('CONFIG_INVALID'));
    }
    await expect(agent.setLoras([], { signal: 5 } as never)).rejects.toThrow(withCode('INVALID_ARGUMENT'));
    await expectLikeNew(session);
  });

  it('accepts an empty message and malformed Unicode', async () => {
    const agent = await startAgent();
    for (const message of ['', '\ud800', 'half a \udc00 pair', '\0', '<|im_start|>']) {
      const session = await agent.createSession({ systemPrompt: `As written: ${message}` });
      expect((await session.send(message, { maxTokens: 4 })).usage.outputTokens).toBe(4);
      await session.close();
    }
  });

  it('fails with CONTEXT_FULL if its conversation exceeds the context, and a shorter turn still works', async () => {
    const session = await (await startAgent({ contextSize: 512 })).createSession();
    await expect(session.send('word '.repeat(600))).rejects.toThrow(withCode('CONTEXT_FULL'));
    await expect(session.send('word '.repeat(200_000))).rejects.toThrow(withCode('CONTEXT_FULL')); // a megabyte
    await expect(session.send('x'.repeat(1_000_000))).rejects.toThrow(withCode('TEXT_UNBREAKABLE'));
    await expectLikeNew(session);
  });

  it('ends with finish reason `length` at the end of the context', async () => {
    const session = await (await startAgent({ contextSize: 256 })).createSession();
    const { finishReason, usage } = await session.send('Hello');
    expect(finishReason).toBe('length');
    expect(usage.inputTokens + usage.outputTokens).toBe(256);
  });
});
