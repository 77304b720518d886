// A template without an entry reuses the longest prefix that it shares with a cached template. Only the rest is
// prefilled.
import { type StartReport, subscribeDiagnostics } from 'llama-headstart';
import type { ToolDefinition } from 'llama-headstart/internal';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EXACT, replies, startAgent, temporaryDirectory, uncachedReplies } from '../helpers/agents.js';
import { type LabOptions, someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { openLab } from '../helpers/open-lab.js';
import { SYSTEM_PROMPT, TOOLS } from '../helpers/prompts.js';
import { variants } from '../helpers/soak.js';

const NEAREST = { cache: { reuse: 'nearest' } } as const;

const HEAD = someTokens(200, 1);
const MESSAGE = someTokens(9, 5);

/** Returns a template that begins with `head` and ends with `count` other tokens. */
function template(seed: number, count = 50, head = HEAD): Int32Array {
  const tokens = new Int32Array(head.length + count);
  tokens.set(head);
  tokens.set(someTokens(count, seed), head.length);
  return tokens;
}

const others: ToolDefinition[] = ['sell', 'rent', 'lend'].map((name) => ({
  name,
  description: `To ${name} a bicycle`,
}));

describe.each(['dense', 'recurrent', 'hybrid', 'sliding-window'] as const)(
  'templates of the %s model that are started together',
  (name) => {
    const layouts = variants(['unified', 'split'] as const, (layout) => (layout === 'split') === (name === 'hybrid'));
    it.each(layouts)('decode their common beginning once, and give the replies of cold starts (%s)', async (layout) => {
      const lab = await openLab({ path: microModel(name), layout, sessions: 4, batchSize: 64, ...NEAREST });
      const templates = [2, 3, 4, 5].map((seed) => template(seed));
      const runs = await Promise.all(templates.map((tokens) => lab.run(tokens, MESSAGE, 4)));
      expect(lab.context.counters().decodedTokens).toBe(HEAD.length + 4 * (50 + MESSAGE.length + 3));
      expect(runs.map(({ report }) => report.cachedTokens).sort((a, b) => a - b)).toEqual([0, 200, 200, 200]);
      const cold = await openLab({ path: microModel(name), layout });
      for (const [index, { tokens }] of runs.entries()) {
        const alone = await cold.run(templates[index] as Int32Array, MESSAGE, 4, { cache: false });
        expect(tokens).toEqual(alone.tokens);
      }
    });

    it.each(layouts)('one of them alone has the bits of a start without the cache (%s)', async (layout) => {
      const path = microModel(name);
      const lab = await openLab({ path, layout, batchSize: 64, ...NEAREST });
      const warm = await openLab({ path, layout, batchSize: 64, ...NEAREST });
      const cold = await openLab({ path, layout, batchSize: 64 });
      const alone = await cold.run(HEAD, MESSAGE, 3, { cache: false });
      await warm.start(HEAD);
      for (const { logits } of [await lab.run(HEAD, MESSAGE, 3), await warm.run(HEAD, MESSAGE, 3)]) {
        expect(logits).toEqual(alone.logits);
      }
    });

    it('decode it once more if the first start is aborted', async () => {
      const lab = await openLab({ path: microModel(name), sessions: 4, batchSize: 32, ...NEAREST });
      const controller = new AbortController();
      onTestFinished(subscribeDiagnostics('decode', () => controller.abort()));
      const first = lab.start(template(2), { signal: controller.signal });
      const others = Promise.all([3, 4, 5].map((seed) => lab.start(template(seed))));
      await expect(first).rejects.toMatchObject({ code: 'ABORTED' });
      const cached = (await others).map(({ cachedTokens }) => cachedTokens);
      expect(cached.sort((a, b) => a - b).slice(1)).toEqual([200, 200]);
      expect(lab.context.counters().decodedTokens).toBeLessThanOrEqual(32 + HEAD.length + 3 * 50);
    });
  },
);

describe('for a model whose state can be trimmed', () => {
  it.each(['resident', 'memory', 'disk'] as const)(
    'a template starts from the prefix that it shares with a cached template (source: %s)',
    async (source) => {
      const directory = await temporaryDirectory();
      const options: LabOptions = { path: microModel('dense'), directory, ...NEAREST };
      const first = await openLab(source === 'memory' ? { ...options, residents: 0 } : options);
      await first.start(template(2));
      await first.cache.flush();
      const lab = source === 'disk' ? await openLab(options) : first;
      const before = lab.context.counters().decodedTokens;
      const { report, tokens } = await lab.run(template(3), MESSAGE, 6);
      expect(report).toMatchObject({ source, cache: 'prefix', templateTokens: 250, cachedTokens: 200 });
      expect(report.reason).toBe(
        'the template has no entry: it shares 200 of its 250 tokens with a cached template of 250 tokens, which differs from there on',
      );
      expect(lab.context.counters().decodedTokens - before).toBe(50 + MESSAGE.length + 5);
      expect(lab.cache.stats()).toMatchObject({ hits: 0, hitRate: 0, prefixStarts: 1, reusedTokens: 200 });
      // The replies equal those of a cold start, and the template now has its own entry.
      const cold = await (await openLab({ path: microModel('dense') })).run(template(3), MESSAGE, 6, { cache: false });
      expect(tokens).toEqual(cold.tokens);
      expect((await lab.run(template(3), MESSAGE, 6)).report).toMatchObject({ cache: 'hit', cachedTokens: 250 });
    },
  );

  it('the nearest of several templates is used, on disk and in memory', async () => {
    const directory = await temporaryDirectory();
    const options: LabOptions = { path: microModel('dense'), directory, ...NEAREST };
    const first = await openLab(options);
    const near = template(2, 100);
    await first.start(template(4, 40));
    await first.start(near);
    await first.start(someTokens(300, 8)); // shares no prefix with the others
    await first.close();
    const wanted = template(9, 30, near.slice(0, 280));
    const lab = await openLab(options);
    expect(await lab.start(wanted)).toMatchObject({ source: 'disk', cache: 'prefix', cachedTokens: 280 });
    const longer = template(7, 30, wanted);
    expect(await lab.start(longer)).toMatchObject({ source: 'resident', cache: 'prefix', cachedTokens: wanted.length });
  });

  it('a template that is a prefix of a cached template needs no prefill', async () => {
    const lab = await openLab({ path: microModel('dense'), ...NEAREST });
    await lab.start(template(2));
    const before = lab.context.counters().decodedTokens;
    expect(await lab.start(HEAD)).toMatchObject({ cache: 'prefix', cachedTokens: 200 });
    expect(lab.context.counters().decodedTokens).toBe(before);
  });

  it('a shared prefix is not used if it is shorter than 16 tokens, or with `reuse: "exact"`', async () => {
    const lab = await openLab({ path: microModel('dense'), ...NEAREST });
    await lab.start(someTokens(100, 1));
    expect((await lab.start(template(3, 50, someTokens(15, 1)))).cache).toBe('miss');
    const exact = await openLab({ path: microModel('dense') });
    await exact.start(template(2));
    expect(await exact.start(template(3))).toMatchObject({ cache: 'miss', cachedTokens: 0 });
  });

  it('a changed tool list reuses the system prompt and the tools in front of the change', async () => {
    const settings = { ...EXACT, reuse: 'nearest' } as const;
    const agent = await startAgent(settings);
    await agent.createSession({ tools: TOOLS });
    const tools = [...TOOLS, others[0] as ToolDefinition];
    const session = await agent.createSession({ tools });
    const { report } = session;
    expect(report.cache).toBe('prefix');
    expect(report.cachedTokens).toBeGreaterThan(0.6 * report.templateTokens);
    expect(await replies(session, ['Hello', 'And now?'], 12)).toEqual(
      await uncachedReplies({ ...EXACT, tools }, ['Hello', 'And now?'], 12),
    );
  });

  it('a shared prefix is also used in the split layout', async () => {
    const lab = await openLab({ path: microModel('dense'), layout: 'split', ...NEAREST });
    await lab.start(template(2));
    const { report, tokens } = await lab.run(template(3), MESSAGE, 6);
    expect(report).toMatchObject({ source: 'memory', cache: 'prefix', cachedTokens: 200 });
    const cold = await openLab({ path: microModel('dense'), layout: 'split' });
    expect(tokens).toEqual((await cold.run(template(3), MESSAGE, 6, { cache: false })).tokens);
  });
});

describe.each(['recurrent', 'hybrid', 'sliding-window'] as const)(
  'for the %s model, whose state cannot be trimmed',
  (name) => {
    it('a cached template is used only if all its tokens are a prefix of the new template', async () => {
      const directory = await temporaryDirectory();
      const options: LabOptions = { path: microModel(name), directory, ...NEAREST };
      const first = await openLab(options);
      await first.start(template(2));
      expect((await first.start(template(3))).match).toBe('none');
      await first.start(HEAD);
      await first.close();
      const lab = await openLab(options);
      const wanted = template(4, 60);
      const { report, tokens } = await lab.run(wanted, MESSAGE, 6);
      expect(report).toMatchObject({ source: 'disk', cache: 'prefix', cachedTokens: 200 });
      expect(report.reason).toMatch(
        /shares 200 of its 260 tokens with a cached template of 200 tokens, which ends there$/,
      );
      const cold = await (await openLab({ path: microModel(name) })).run(wanted, MESSAGE, 6, { cache: false });
      expect(tokens).toEqual(cold.tokens);
    });

    it('a template starts from the beginning at which earlier templates were seen to differ', async () => {
      const lab = await openLab({ path: microModel(name), ...NEAREST });
      const head = someTokens(300, 1);
      await lab.start(template(2, 50, head));
      expect(await lab.start(template(3, 50, head))).toMatchObject({ cache: 'miss', cachedTokens: 0 });
      const wanted = template(4, 50, head);
      const { report, tokens } = await lab.run(wanted, MESSAGE, 6);
      expect(report).toMatchObject({ source: 'memory', cache: 'prefix', cachedTokens: 300 });
      const cold = await (await openLab({ path: microModel(name) })).run(wanted, MESSAGE, 6, { cache: false });
      expect(tokens).toEqual(cold.tokens);
    });

    it('each breakpoint has a cache entry, and a start from the entry gives the bits of a cold start', async () => {
      const breakpoints = [120, 200];
      const lab = await openLab({ path: microModel(name), ...NEAREST });
      await lab.start(template(2), { breakpoints });
      const warm = await lab.run(template(3), MESSAGE, 6, { breakpoints });
      expect(warm.report).toMatchObject({ cache: 'prefix', cachedTokens: 200 });
      const cold = await (await openLab({ path: microModel(name) })).run(template(3), MESSAGE, 6, {
        cache: false,
        breakpoints,
      });
      expect(warm.tokens).toEqual(cold.tokens);
      for (const [step, row] of warm.logits.entries()) {
        expect(row).toEqual(cold.logits[step]);
      }
    });

    if (!variants([name], (each) => each !== 'recurrent').includes(name)) {
      return; // a hybrid model has recurrent layers too
    }
    it('an agent with `breakpoints` reuses the system prompt and the tool groups in front of a change', async () => {
      const directory = await temporaryDirectory();
      const settings = { ...EXACT, name, cacheDir: directory, reuse: 'nearest', breakpoints: true } as const;
      const [local, ofServer] = [TOOLS, others.map((tool) => ({ ...tool, server: 'shop' }))];
      const reports: StartReport[] = [];
      const agent = await startAgent(settings);
      for (const tools of [[...local, ...ofServer], [...local, ...ofServer.slice(1)], [...local.slice(1)]]) {
        const session = await agent.createSession({ tools });
        reports.push(session.report);
        expect(await replies(session, ['Hello'], 8)).toEqual(
          await uncachedReplies({ ...EXACT, name, tools }, ['Hello'], 8),
        );
        await session.close();
      }
      const [first, second, third] = reports as [StartReport, StartReport, StartReport];
      expect(first.match).toBe('none');
      expect(second.cache).toBe('prefix'); // from the system prompt and the local tools
      expect(third.cache).toBe('prefix'); // from the system prompt
      expect(second.cachedTokens).toBeGreaterThan(third.cachedTokens);
      const tokens = await agent.model.tokenize(SYSTEM_PROMPT);
      expect(third.cachedTokens).toBeGreaterThan(tokens.length);
    });
  },
);
