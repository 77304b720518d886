// Tests `close()` of sessions and agents: it ends turns with CLOSED, does not wait for readers, and can be repeated.
import type { AgentServer } from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { until } from '../helpers/event-loop.js';
import { Lab, someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { LONG_PROMPT } from '../helpers/prompts.js';
import { expectLikeNew, outcomeOf, readTurn, withCode } from '../helpers/turns.js';

describe('closing a session', () => {
  it('while its stream is read ends the turn with CLOSED', async () => {
    const session = await (await startAgent()).createSession();
    await expect(readTurn(session, () => session.close())).rejects.toThrow(withCode('CLOSED'));
    await expect(session.send('Hello')).rejects.toThrow(withCode('CLOSED'));
  });

  it('while a turn generates ends the turn with CLOSED', async () => {
    const session = await (await startAgent()).createSession();
    const turn = session.send('Hello', { maxTokens: 500 });
    await Promise.all([expect(turn).rejects.toThrow(withCode('CLOSED')), session.close()]);
  });

  it('does not wait for the reader of a stream', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const session = await agent.createSession();
    const stream = session.stream('Hello', { maxTokens: 50 })[Symbol.asyncIterator]();
    await stream.next();
    await session.close();
    await expectLikeNew(await agent.createSession()); // the only sequence is free
    await expect(stream.next()).rejects.toThrow(withCode('CLOSED'));
  });

  it('can be repeated', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    await Promise.all([session.close(), session.close()]);
    await session.close();
    expect(session.closed).toBe(true);
    await expectLikeNew(await agent.createSession());
  });
});

describe('closing an agent', () => {
  const outcomesOfClosing = async (agent: AgentServer, work: Promise<unknown>[]) => {
    const outcomes = Promise.all(work.map(outcomeOf));
    await agent.close();
    return outcomes;
  };

  it('ends all turns with CLOSED', async () => {
    const agent = await startAgent();
    const sessions = [await agent.createSession(), await agent.createSession(), await agent.createSession()];
    const turns = sessions.map((session) => session.send('Hello', { maxTokens: 800 }));
    expect(await outcomesOfClosing(agent, turns)).toEqual(['CLOSED', 'CLOSED', 'CLOSED']);
  });

  it('while the stream of a turn is read ends that turn with CLOSED', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    await expect(readTurn(session, () => agent.close())).rejects.toThrow(withCode('CLOSED'));
  });

  it('during a fork leaves no session open', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    expect(await outcomesOfClosing(agent, [session.fork()])).toEqual(['CLOSED']);
    expect(agent.health().openSessions).toBe(0);
  });

  it('rejects sessions that are being opened, during their prefill or while they wait for a sequence', async () => {
    const agent = await startAgent({ nSeqMax: 2, contextSize: 8192, systemPrompt: LONG_PROMPT });
    const opening = Array.from({ length: 5 }, () => agent.createSession());
    expect(await outcomesOfClosing(agent, opening)).toEqual(['CLOSED', 'CLOSED', 'CLOSED', 'CLOSED', 'CLOSED']);
  });

  it('ends a prefill before its last token', async () => {
    const lab = await Lab.open({ path: microModel('dense'), kvCells: 8192, batchSize: 64 });
    onTestFinished(() => lab.close());
    const template = someTokens(6000, 1);
    const starting = lab.start(template);
    const refused = expect(starting).rejects.toThrow(withCode('CLOSED'));
    await until(() => lab.context.counters().decodes >= 2);
    await lab.prefixCache.close();
    await refused;
    expect(lab.context.counters().decodedTokens).toBeLessThan(template.length);
  });

  it('can be repeated, and later calls fail with CLOSED', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    await Promise.all([agent.close(), agent.close()]);
    await agent.close();
    await expect(agent.createSession()).rejects.toThrow(withCode('CLOSED'));
    await expect(session.send('Hello')).rejects.toThrow(withCode('CLOSED'));
    await session.close();
  });

  it('keeps the statistics readable', async () => {
    const agent = await startAgent();
    await agent.createSession();
    await agent.close();
    expect(agent.getTemplateCacheStats().misses).toBe(1);
  });
});
