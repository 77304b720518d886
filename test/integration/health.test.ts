// Tests the numbers that `agent.health()` reports while an agent works.
import { type AgentHealth, subscribeDiagnostics } from 'llama-headstart';
import type { DecodeEvent, PrefillEvent } from 'llama-headstart/internal';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { startAgent } from '../helpers/agents.js';

let decodes: DecodeEvent[] = [];

beforeEach(() => {
  decodes = [];
  onTestFinished(subscribeDiagnostics('decode', (event) => decodes.push(event)));
});

describe('`agent.health()`', () => {
  it('counts sessions, KV cells and decodes; closed sessions leave only the resident template', async () => {
    const begin = performance.now();
    const agent = await startAgent({ nSeqMax: 2, maxResidentTemplates: 1, contextSize: 512 });
    expect(agent.health()).toMatchObject({
      status: 'ok',
      openSessions: 0,
      activeSessions: 0,
      heldSequences: 0,
      queueLength: 0,
      decodes: 0,
      kvCells: { total: 1024, used: 0, free: 1024 },
      templateCache: { hits: 0, misses: 0 },
    });
    expect(agent.health().model).toMatch(/micro-dense-v\d+\.gguf$/);
    const sessions = await Promise.all([agent.createSession(), agent.createSession()]);
    const stream = sessions[0]?.stream('Hello', { maxTokens: 8 })[Symbol.asyncIterator]();
    await stream?.next();
    const during = agent.health();
    expect(during).toMatchObject({ openSessions: 2, heldSequences: 2, templateCache: { residentTemplates: 1 } });
    expect(during.activeSessions).toBe(1);
    expect(during.kvCells.used).toBeGreaterThan(sessions[0]?.report.templateTokens as number);
    expect(during.kvCells.used + during.kvCells.free).toBe(1024);
    while (!(await stream?.next())?.done);
    expect(agent.health().tokensPerSecond).toBeGreaterThan(0);
    expect(agent.health().decodes).toBe(decodes.length);
    await Promise.all(sessions.map((session) => session.close()));
    const after = agent.health();
    expect(after).toMatchObject({ openSessions: 0, activeSessions: 0, heldSequences: 0, queueLength: 0 });
    expect(after.kvCells.used).toBe(sessions[0]?.report.templateTokens);
    expect(after.uptimeMs).toBeGreaterThan(during.uptimeMs);
    expect(after.uptimeMs).toBeLessThan(performance.now() - begin); // counted from the start of the agent
    const closing = agent.close();
    expect(agent.health().status).toBe('closing');
    await closing;
    expect(agent.health().status).toBe('closing');
  });

  it('counts sessions that wait for a sequence, and does not count turns that wait for tools as active', async () => {
    const seen: AgentHealth[] = [];
    const look = () => seen.push(agent.health());
    const agent = await startAgent({ nSeqMax: 1, contextSize: 512, tools: [{ name: 'look', execute: look }] });
    const sessions = await Promise.all([agent.createSession(), agent.createSession()]);
    const unsubscribe = subscribeDiagnostics('decode', look);
    await Promise.all(sessions.map((session) => session.send('Hello', { maxTokens: 8, toolChoice: 'none' })));
    unsubscribe();
    expect(Math.max(...seen.map(({ queueLength }) => queueLength))).toBe(1);
    expect(new Set(seen.map(({ activeSessions }) => activeSessions))).toEqual(new Set([1]));
    seen.length = 0;
    await sessions[0]?.send('Hello', { maxTokens: 64, toolChoice: 'required', maxSteps: 1, maxParallelTools: 1 });
    expect(seen).toEqual([expect.objectContaining({ activeSessions: 0, openSessions: 2, queueLength: 0 })]);
  });
});

describe('the prefill channel', () => {
  it('reports each prefill with the number of tokens that were not in the sequence before', async () => {
    const prefills: PrefillEvent[] = [];
    onTestFinished(subscribeDiagnostics('prefill', (event) => prefills.push(event)));
    const agent = await startAgent({ contextSize: 512 });
    const session = await agent.createSession();
    expect(prefills).toEqual([
      { sequence: expect.any(Number), tokens: session.report.templateTokens, ms: expect.any(Number) },
    ]);
    const { usage } = await session.send('Hello', { maxTokens: 4 });
    expect(prefills).toHaveLength(2);
    expect(prefills[1]?.tokens).toBe(usage.inputTokens - usage.cachedInputTokens);
  });
});

describe('an agent that is closed during streams', () => {
  it('ends each stream with CLOSED and refuses new work', async () => {
    const agent = await startAgent({ nSeqMax: 2, contextSize: 512 });
    const sessions = await Promise.all([1, 2, 3, 4].map(() => agent.createSession()));
    let onRunning = () => {};
    const running = new Promise<void>((resolve) => {
      onRunning = resolve;
    });
    const outcomes = Promise.allSettled(
      sessions.map(async (session) => {
        for await (const _ of session.stream('Hello', { maxTokens: 400 })) {
          onRunning();
        }
      }),
    );
    await running; // the other streams also run or wait for a sequence
    await agent.close();
    const results = await outcomes;
    for (const result of results) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'CLOSED' } });
    }
    await expect(agent.createSession()).rejects.toMatchObject({ code: 'CLOSED' });
  });
});
