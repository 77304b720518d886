// Many sessions share few sequences and KV cells. They wait, are evicted and resumed, and all of them finish.
import { HeadstartError, type Reply } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { EXACT, NOTHING_HELD, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { CLEAN, runChild } from '../helpers/children.js';
import { until, watchBatches } from '../helpers/event-loop.js';
import { microModel } from '../helpers/models.js';
import { numberedPrompt } from '../helpers/prompts.js';
import { rounds } from '../helpers/soak.js';

/** More sessions than sequences. */
const SESSIONS = rounds(16, 32);

describe('an agent with many sessions', () => {
  it('gives a sequence to waiting sessions in the order of their requests', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const sessions = await Promise.all(Array.from({ length: 5 }, () => agent.createSession()));
    const done: number[] = [];
    const send = async (number: number) => {
      await sessions[number]?.send('Hello', { maxTokens: 4 });
      done.push(number);
    };
    await Promise.all([4, 3, 0, 2, 1].map(send)); // session 4 was opened last and still holds the sequence
    expect(done).toEqual([4, 3, 0, 2, 1]);
  });

  it.each([
    ['resident templates', { nSeqMax: 252, maxResidentTemplates: 4 }],
    ['the split layout', { nSeqMax: 256, kvLayout: 'split' }],
  ] as const)('decodes more than 32 sequences together, with %s', async (_, sequences) => {
    const agent = await startAgent({
      ...sequences,
      contextSize: 256,
      batchSize: 512,
      systemPrompt: 'You are brief.',
      kvCells: 65536,
    });
    const batches = watchBatches();
    const sessions = await Promise.all(Array.from({ length: rounds(80, 260) }, () => agent.createSession()));
    const all = await Promise.all(sessions.map((session) => session.send('Hello', { maxTokens: rounds(16, 40) })));
    expect(all.every(({ usage }) => usage.outputTokens > 0)).toBe(true);
    expect(batches.maxSequences).toBeGreaterThan(32);
  });

  it.each([
    ['is prefilled', 1],
    ['is restored from memory', 0],
  ])('opens a session whose large template %s, even if small sessions keep opening and closing', async (_, count) => {
    const settings = { ...EXACT, kvCells: 1024, nSeqMax: 7, maxResidentTemplates: count, batchSize: 128 };
    const agent = await startAgent({ ...settings, systemPrompt: 'You are terse.' });
    const systemPrompt = [1, 2, 3, 4, 5].map(numberedPrompt).join('\n');
    if (count === 0) {
      await (await agent.createSession({ systemPrompt })).close(); // now the state of the template is in memory
    }
    let isOpen = false;
    let turns = 0;
    const openAndClose = async (number: number) => {
      while (!isOpen && turns < 60) {
        const session = await agent.createSession();
        await session.send('Hello, '.repeat(20 + number), { maxTokens: 60 });
        await session.close();
        turns++;
      }
    };
    const others = [1, 2, 3, 4, 5, 6].map(openAndClose);
    await until(() => turns >= 12); // now the sessions use all cells
    const { report } = await agent.createSession({ systemPrompt });
    isOpen = true;
    expect(report.source).toBe(count === 0 ? 'memory' : 'prefill');
    expect(turns).toBeLessThan(36); // only the turns in progress and a few more could run
    await Promise.all(others);
  });

  it('finishes the turns of a hundred sessions, although the KV cells suffice for only two sessions', async () => {
    const agent = await startAgent({ nSeqMax: 252, contextSize: 256, batchSize: 512, systemPrompt: 'You are brief.' });
    const sessions = await Promise.all(Array.from({ length: rounds(100, 260) }, () => agent.createSession()));
    const all = await Promise.all(sessions.map((session) => session.send('Hello', { maxTokens: 12 })));
    expect(all.every(({ usage }) => usage.outputTokens > 0)).toBe(true);
    expect(agent.health()).toMatchObject({ queueLength: 0, activeSessions: 0 });
  });

  it('resumes evicted sessions from saved states, and drops the oldest state beyond `maxMemoryBytes`', async () => {
    const first = (index: number) => `${index}. ${'Hello. '.repeat(60)}`;
    const run = async (maxMemoryBytes: number) => {
      const agent = await startAgent({ nSeqMax: 1, maxMemoryBytes, contextSize: 2048, kvCells: 8192, ...EXACT });
      const sessions = [await agent.createSession(), await agent.createSession(), await agent.createSession()];
      const texts: string[] = [];
      for (const [index, session] of sessions.entries()) {
        texts.push(...(await replies(session, [first(index)], 8)));
      }
      const { savedBytes } = agent.health();
      const cached: number[] = [];
      for (const session of sessions) {
        const { text, usage } = await session.send('And now?', { maxTokens: 8 });
        texts.push(text);
        cached.push(usage.cachedInputTokens - session.report.templateTokens);
      }
      return { texts, savedBytes, cached };
    };
    const plenty = await run(256 * 1024 ** 2);
    const none = await run(0);
    expect(none).toMatchObject({ savedBytes: 0, cached: [0, 0, 0] });
    expect(plenty.savedBytes).toBeGreaterThan(0);
    expect(plenty.cached[0]).toBeGreaterThan(60);
    expect(plenty.texts).toEqual(none.texts);
    const maxBytes = Math.floor(plenty.savedBytes * 0.75); // one of the two states fits
    const one = await run(maxBytes);
    expect(one.savedBytes).toBeGreaterThan(0);
    expect(one.savedBytes).toBeLessThanOrEqual(maxBytes);
    expect(one.cached[0]).toBe(0); // the older state was dropped
    expect(one.texts).toEqual(none.texts);
  });

  it('frees everything that abandoned sessions and streams hold once they are garbage-collected', async () => {
    const { stdout, ...rest } = await runChild('integration/children/dropped-sessions.mjs', [microModel('dense')], {
      nodeArgs: ['--expose-gc'],
    });
    expect({ ...rest, stdout: '' }).toEqual(CLEAN);
    const { streams, ...held } = JSON.parse(stdout);
    expect(held).toEqual({ openSessions: 0, heldSequences: 0, used: 0, savedBytes: 0, queueLength: 0 });
    expect(streams).toMatchObject({ dropped: ['text-delta', 'text-delta'], next: 'length' });
    expect(streams.ends).toContain('The stream was left before its end');
  });

  it.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)(
    'finishes the turns of many sessions of the %s model, although evicted states get no memory',
    async (name) => {
      const agent = await startAgent({
        name,
        contextSize: 512,
        batchSize: 128,
        maxMemoryBytes: 0,
        cacheDir: await temporaryDirectory(),
      });
      const sessions = await Promise.all(
        Array.from({ length: SESSIONS }, (_, number) =>
          agent.createSession({ systemPrompt: numberedPrompt(number % 3) }),
        ),
      );
      const usages = await Promise.all(
        sessions.map(async (session) => {
          await session.send('Hello', { maxTokens: 10 });
          return (await session.send('Go on', { maxTokens: 10 })).usage;
        }),
      );
      expect(usages.every(({ outputTokens }) => outputTokens > 0)).toBe(true);
      expect(sessions.map(({ messages }) => messages.length)).toEqual(Array(SESSIONS).fill(4));
      await Promise.all(sessions.map((session) => session.close()));
      await agent.templateCache.clear();
      expect(agent.health()).toMatchObject({ ...NOTHING_HELD, savedBytes: 0, templateCache: { residentTemplates: 0 } });
    },
  );

  it('limits a thousand unclosed sessions to `nSeqMax` sequences, without an effect on other sessions', async () => {
    const agent = await startAgent({ nSeqMax: 4 });
    const kept = await agent.createSession();
    const [expected] = await replies(kept, ['Hello'], 8);
    for (let number = 0; number < 1000; number++) {
      await agent.createSession();
    }
    const { heldSequences, kvCells, queueLength } = agent.health();
    expect(queueLength).toBe(0);
    expect(heldSequences).toBeLessThanOrEqual(4); // fewer if some sessions were garbage-collected already
    expect(kvCells.used).toBeLessThan(2 * kept.report.templateTokens + 4);
    const late = await agent.createSession();
    expect(await replies(late, ['Hello'], 8)).toEqual([expected]);
  });

  it('rejects turns with QUEUE_FULL if more than `maxQueueSize` would wait', async () => {
    const agent = await startAgent({ nSeqMax: 1, maxQueueSize: 1 });
    const sessions = [await agent.createSession(), await agent.createSession(), await agent.createSession()];
    const results = await Promise.allSettled(sessions.map((session) => session.send('Hello', { maxTokens: 20 })));
    const codes = results.map((result) =>
      result.status === 'fulfilled' ? 'ok' : HeadstartError.isInstance(result.reason) && result.reason.code,
    );
    expect(codes.sort()).toEqual(['QUEUE_FULL', 'ok', 'ok']);
    expect((await replies(sessions[0] as never, ['Again'], 4)).length).toBe(1);
  });

  it('lets a turn that lost its sequence in a tool call wait for a sequence, even if the queue is full', async () => {
    const agent = await startAgent({ nSeqMax: 1, maxQueueSize: 1, contextSize: 2048 });
    const others = [await agent.createSession(), await agent.createSession()];
    const turns: Promise<Reply>[] = [];
    const execute = async () => {
      turns.push(...others.map((session) => session.send('Hello', { maxTokens: 300 })));
      await until(() => agent.health().queueLength > 0); // one turn has the sequence, the other one fills the queue
      return 'lit';
    };
    const session = await agent.createSession({ tools: [{ name: 'lamp', execute }] });
    const options = { toolChoice: 'required', maxParallelTools: 1, maxSteps: 2, maxTokens: 60 } as const;
    const turn = session.send('Light', options);
    expect((await turn).toolResults).toMatchObject([{ output: 'lit' }]);
    expect((await Promise.all(turns)).map(({ finishReason }) => finishReason)).toEqual(['length', 'length']);
    const refused = await Promise.allSettled([...others, session].map((each) => each.send('Again', { maxTokens: 4 })));
    // A new turn is rejected if the queue is full.
    expect(refused.filter(({ status }) => status === 'rejected')).toHaveLength(1);
  });
});
