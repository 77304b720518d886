// Tests the reports of starts, and starts that run at the same time as generating sessions or other starts.
import { subscribeDiagnostics } from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startAgent, temporaryDirectory } from '../helpers/agents.js';
import { someTokens } from '../helpers/lab.js';
import { openLab } from '../helpers/open-lab.js';

describe('a start from a resident template', () => {
  it('takes no longer than three decode steps of a generating session', async () => {
    const agent = await startAgent();
    let steps = 0;
    onTestFinished(
      subscribeDiagnostics('decode', () => {
        steps++;
      }),
    );
    const running = await agent.createSession();
    let started = 0;
    for (let turn = 0; started < 10; turn++) {
      for await (const part of running.stream(`Hello ${turn}`, { maxTokens: 20 })) {
        if (part.type === 'text-delta') {
          const before = steps;
          const session = await agent.createSession();
          expect(session.report.source).toBe('resident');
          expect(steps - before).toBeLessThanOrEqual(3); // decode steps may end while the start resolves
          await session.close();
          started++;
        }
      }
    }
  });
});

describe('starts of one template at the same time', () => {
  it('are one miss and four hits, and each hit reports how long it waited for the miss', async () => {
    const lab = await openLab({ sessions: 5, directory: await temporaryDirectory() });
    const reports = await Promise.all([1, 2, 3, 4, 5].map(() => lab.start(someTokens(200, 1))));
    expect(reports.map(({ source, waitedMs }) => `${source} ${typeof waitedMs}`).sort()).toEqual([
      'prefill undefined',
      ...Array(4).fill('resident number'),
    ]);
    expect(lab.cache.stats()).toMatchObject({ waits: 4, misses: 1, hits: 4 });
  });

  it('all fail with CONTEXT_FULL if the template does not fit, and release everything', async () => {
    const lab = await openLab({ sessions: 3, kvCells: 256, directory: await temporaryDirectory() });
    const failed = await Promise.allSettled([1, 2, 3].map(() => lab.start(someTokens(600, 1))));
    for (const result of failed) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'CONTEXT_FULL' } });
    }
    expect(lab.engine.status()).toMatchObject({ queueLength: 0, heldSequences: 0, kvCells: { used: 0 } });
    expect((await lab.start(someTokens(200, 1))).cache).toBe('miss');
    expect(lab.cache.stats()).toMatchObject({ hits: 0, misses: 1 });
  });
});

describe('a start report', () => {
  it('repeats source and cache outcome in the fields `tier` and `match` of earlier versions', async () => {
    const template = someTokens(100, 1);
    const longer = Int32Array.of(...template, ...someTokens(20, 2));
    const options = { residents: 1, directory: await temporaryDirectory(), cache: { reuse: 'nearest' } } as const;
    const first = await openLab(options);
    const reports = [await first.start(template), await first.start(template)];
    await first.start(someTokens(100, 3)); // takes the only resident sequence
    reports.push(await first.start(template));
    await first.cache.flush();
    const second = await openLab(options);
    reports.push(
      await second.start(template),
      await second.start(longer),
      await second.start(template, { cache: false }),
    );
    expect(reports.map(({ source, cache, tier, match }) => [source, cache, tier, match])).toEqual([
      ['prefill', 'miss', 'miss', 'none'],
      ['resident', 'hit', 'resident', 'exact'],
      ['memory', 'hit', 'memory', 'exact'],
      ['disk', 'hit', 'disk', 'exact'],
      ['memory', 'prefix', 'memory', 'prefix'], // the new template takes the only resident sequence
      ['prefill', 'bypass', 'bypass', 'none'],
    ]);
  });

  it.each([
    ['shares the cells of its session', {}, ['resident', 'hit', 'resident', 'exact']],
    ['copied the state of its session', { kvLayout: 'split' }, ['memory', 'hit', 'memory', 'exact']],
  ] as const)('of a fork says that the fork %s', async (_, settings, expected) => {
    const session = await (await startAgent(settings)).createSession();
    await session.send('Hello', { maxTokens: 2 });
    const { source, cache, tier, match } = (await session.fork()).report;
    expect([source, cache, tier, match]).toEqual(expected);
  });
});
