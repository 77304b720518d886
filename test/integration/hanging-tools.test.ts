// A tool that is slow or never returns does not delay other work.
import type { MessageInput, Tool } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { CLEAN, runChild } from '../helpers/children.js';
import { call, lamp, ONE_CALL, openSession } from '../helpers/lamp.js';
import { likelyCalls } from '../helpers/likely-text.js';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { withEnoughTime } from '../helpers/time-limits.js';

describe('a tool that hangs', () => {
  it('gives an error after its time limit, and its signal is aborted', async () => {
    let stopped: AbortSignal | undefined;
    const hangs: Tool['execute'] = (_, { signal }) => {
      stopped = signal;
      return new Promise(() => undefined);
    };
    const { reply } = await call(lamp(hangs), { toolTimeoutMs: 20 });
    expect(reply.toolResults).toMatchObject([{ isError: true, output: 'The tool did not answer within 20 ms' }]);
    expect(stopped?.aborted).toBe(true);
  });

  it('gives an error even if nothing else keeps the process alive', async () => {
    const child = await runChild('integration/children/hanging-tool.mjs', [microModel('dense')]);
    expect(child).toEqual({ ...CLEAN, stdout: 'The tool did not answer within 50 ms' });
  });

  it('does not delay an abort of its turn, and the session stays unchanged', async () => {
    const controller = new AbortController();
    const hangs: Tool['execute'] = () => {
      controller.abort();
      return new Promise(() => undefined);
    };
    const session = await openSession([lamp(hangs)]);
    await expect(session.send('Light', { ...ONE_CALL, signal: controller.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    expect(session.messages).toEqual([]);
    expect((await session.send('Hello', { toolChoice: 'none', maxTokens: 3 })).usage.outputTokens).toBe(3);
  });

  it('does not delay the time limit of its turn', async () => {
    let isRunning = false;
    const hangs: Tool['execute'] = () => {
      isRunning = true;
      return new Promise(() => undefined);
    };
    const root = await openSession([lamp(hangs)]);
    await withEnoughTime(500, async (timeoutMs) => {
      const session = await root.fork();
      const late = session.send('Light', { ...ONE_CALL, maxSteps: 2, timeoutMs });
      await expect(late).rejects.toMatchObject({ code: 'ABORTED', message: expect.stringContaining('`timeoutMs`') });
      expect(session.messages).toEqual([]);
      expect(isRunning).toBe(true); // false if the turn timed out before the call
    });
  });

  it('does not delay the close of its session', async () => {
    const session = await openSession([lamp(() => new Promise(() => void session.close()))]);
    await expect(session.send('Light', ONE_CALL)).rejects.toMatchObject({ code: 'CLOSED' });
  });
});

describe('while a tool runs', () => {
  it('its session leaves the only sequence to another session', async () => {
    const agent = await startAgent({ nSeqMax: 1, contextSize: 4096 });
    const other = await agent.createSession();
    const session = await agent.createSession({
      tools: [lamp(async () => (await other.send('Hello', { maxTokens: 3 })).text)],
    });
    const { toolResults } = await session.send('Light', { ...ONE_CALL, maxSteps: 2 });
    expect(toolResults[0]).toMatchObject({ isError: false, output: other.messages[1]?.content });
  });

  it('the sequence stays free until the last call of the reply has ended', async () => {
    const agent = await startAgent({ nSeqMax: 1, contextSize: 4096 });
    let onRead = () => {};
    const isRead = new Promise<void>((resolve) => {
      onRead = resolve;
    });
    let calls = 0;
    const ask = async () => {
      if (calls++ === 0) {
        return 'lit';
      }
      await isRead;
      const helper = await agent.createSession();
      await helper.send('Hello', { maxTokens: 3 });
      return helper.close();
    };
    const session = await agent.createSession({ tools: [lamp(ask)] });
    const results: boolean[] = [];
    for await (const part of session.stream('Light', { sampling: await likelyCalls(), maxSteps: 1, maxTokens: 200 })) {
      if (part.type === 'tool-result') {
        results.push(part.isError);
        onRead();
      }
    }
    expect(results.length).toBeGreaterThan(1);
    expect(results).not.toContain(true);
  });

  it('the tool may change adapters and open sessions, and the turn continues with the new adapters', async () => {
    const options = { toolChoice: 'required', maxParallelTools: 1, maxSteps: 2, maxTokens: 100 } as const;
    // In the unified layout, cells of other sequences would change the last digits of logits.
    const settings = { contextSize: 4096, kvLayout: 'split', ...EXACT } as const;
    const agent = await startAgent(settings);
    const source = await writeLora(await temporaryDirectory(), 'a', { value: 0.3 }, agent.model.info.embeddingSize);
    const seen: string[] = [];
    const session = await agent.createSession({
      tools: [
        lamp(async () => {
          const changing = agent.setLoras([{ source }]);
          const helper = await agent.createSession();
          seen.push((await helper.send('Hello', { maxTokens: 3 })).finishReason);
          seen.push((await agent.complete('Hello', { maxTokens: 3 })).finishReason);
          await changing;
          return 'lit';
        }),
      ],
    });
    const { toolResults, text } = await session.send('Light', options);
    expect(toolResults).toMatchObject([{ isError: false }]);
    expect(seen).toEqual(['length', 'length']);
    const [user, call, result] = session.messages as [MessageInput, MessageInput, MessageInput];
    const replyOf = async (loras: { source: string }[]) => {
      const fresh = await (await startAgent({ ...settings, loras })).createSession({
        tools: [lamp(() => 'lit')],
        messages: [user, call],
      });
      return (await fresh.send(result, { maxTokens: 100 })).text;
    };
    expect(text).toBe(await replyOf([{ source }]));
    expect(text).not.toBe(await replyOf([]));
  });
});
