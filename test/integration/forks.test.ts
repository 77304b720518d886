// A fork continues the conversation of its session without a new prefill. Fork and session do not affect each other.
import type { Session } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { EXACT, replies, startAgent } from '../helpers/agents.js';
import { TOOLS } from '../helpers/prompts.js';
import { NEXT, savedSession } from '../helpers/saved-session.js';

describe('a fork', () => {
  it.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)(
    'gives the same replies as its session, and does not change its session, with the %s model',
    async (name) => {
      const agent = await startAgent({ name, ...EXACT });
      const session = await agent.createSession();
      await replies(session, ['Hello'], 8);
      const fork = await session.fork();
      expect(fork.id).not.toBe(session.id);
      expect(fork.report).toMatchObject({ source: 'resident', reason: 'forked', key: session.report.key });
      expect(fork.messages).toEqual(session.messages);
      const texts = await replies(fork, NEXT, 8);
      expect(session.messages).toHaveLength(2);
      expect(await replies(session, NEXT, 8)).toEqual(texts);
    },
  );

  it('shares the KV cells of its session, so that only new messages are decoded', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    await session.send('Hello. '.repeat(20), { maxTokens: 4 });
    const { used } = agent.health().kvCells;
    const fork = await session.fork();
    expect(agent.health().kvCells.used).toBe(used);
    const { usage } = await fork.send('And?', { maxTokens: 2 });
    expect(usage.inputTokens - usage.cachedInputTokens).toBeLessThan(30);
  });

  it.each([
    ['in the split layout', { kvLayout: 'split', ...EXACT }],
    ['if all sessions share one sequence', { nSeqMax: 1, ...EXACT }],
  ] as const)('continues from a copy of the state %s', async (_, settings) => {
    const agent = await startAgent(settings);
    const session = await agent.createSession();
    await replies(session, ['Hello'], 8);
    const fork = await session.fork();
    expect(fork.report.source).toBe('memory');
    const { cachedInputTokens } = (await (await session.fork()).send('And now?', { maxTokens: 8 })).usage;
    expect(cachedInputTokens).toBeGreaterThan(session.report.templateTokens);
    expect(await replies(fork, NEXT, 8)).toEqual(await replies(session, NEXT, 8));
  });

  it('of a session that was just restored continues from the saved state', async () => {
    const { path, texts } = await savedSession(true);
    const agent = await startAgent({ tools: TOOLS, ...EXACT });
    const restored = await agent.restoreSession(path);
    const fork = await restored.fork();
    expect(fork.report.source).toBe('memory');
    for (const session of [fork, restored]) {
      const { text, usage } = await session.send(NEXT[0] as string, { maxTokens: 8 });
      expect(text).toBe(texts[0]);
      expect(usage.cachedInputTokens).toBeGreaterThan(restored.report.templateTokens);
    }
  });

  it('keeps its saved state until the fork is used or closed, or until `maxMemoryBytes` is exceeded', async () => {
    const open = async (maxMemoryBytes?: number) => {
      const agent = await startAgent({ kvLayout: 'split', ...EXACT, ...(maxMemoryBytes && { maxMemoryBytes }) });
      const session = await agent.createSession();
      await session.send('Hello. '.repeat(20), { maxTokens: 4 });
      const forks = [await session.fork(), await session.fork(), await session.fork()];
      return { agent, session, forks, saved: () => agent.health().savedBytes };
    };
    const { agent, session, forks, saved } = await open();
    const all = saved();
    expect(all).toBe(3 * (forks[0]?.report.bytes ?? 0));
    const expected = await replies(forks[0] as Session, NEXT, 8);
    expect(saved()).toBe((all / 3) * 2);
    await forks[1]?.close();
    expect(saved()).toBe(all / 3);
    await agent.setLoras([]); // states that were computed with other adapters are dropped
    expect(saved()).toBe(0);
    expect(await replies(forks[2] as Session, NEXT, 8)).toEqual(expected);
    expect(await replies(session, NEXT, 8)).toEqual(expected);

    const small = await open((all / 3) * 2);
    expect(small.saved()).toBe((all / 3) * 2);
    const cached: boolean[] = [];
    for (const fork of small.forks) {
      const { text, usage } = await fork.send(NEXT[0] as string, { maxTokens: 8 });
      expect(text).toBe(expected[0]);
      cached.push(usage.cachedInputTokens > fork.report.templateTokens);
    }
    expect(cached).toEqual([true, true, true]); // the oldest fork lost its state, and used the state of another fork
  });

  it('fails with SESSION_BUSY while its session has a turn in progress, and with CLOSED after a close', async () => {
    const session = await (await startAgent()).createSession();
    const turn = session.send('Hello', { maxTokens: 4 });
    await expect(session.fork()).rejects.toMatchObject({ code: 'SESSION_BUSY' });
    await turn;
    await session.close();
    await expect(session.fork()).rejects.toMatchObject({ code: 'CLOSED' });
  });
});
