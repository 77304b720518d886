// The specification of this package describes a system whose cache never had a hit in production. Each test covers one
// cause of these misses.
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Model } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { agentOptions, replies, startAgent, temporaryDirectory, uncachedReplies } from '../helpers/agents.js';
import { someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { entriesIn, openLab } from '../helpers/open-lab.js';
import { inOtherProcess } from '../helpers/processes.js';
import { numberedPrompt, TOOLS } from '../helpers/prompts.js';

describe('the rendered template', () => {
  it('is a prefix of every prompt, so that no first turn decodes it again', async () => {
    const agent = await startAgent({ tools: TOOLS });
    for (const message of ['Hello', '\nHello', '42', '\u{1F642}', '']) {
      const session = await agent.createSession();
      const { usage } = await session.send(message, { maxTokens: 1 });
      expect(usage.cachedInputTokens).toBe(session.report.templateTokens);
      expect(usage.inputTokens).toBeGreaterThan(usage.cachedInputTokens);
      await session.close();
    }
    expect(agent.getTemplateCacheStats().prefixMismatches).toBe(0);
  });

  it('is correct even if the remembered boundary lies inside the template', async () => {
    const directory = await temporaryDirectory();
    await inOtherProcess('agent', { options: agentOptions({ cacheDir: directory }) });
    const [hint] = (await readdir(directory)).filter((name) => name.startsWith('boundary_'));
    await writeFile(join(directory, hint as string), '{"format":2,"controlTokens":0,"tokens":1}');
    const agent = await startAgent({ cacheDir: directory });
    expect((await agent.createSession()).report.source).toBe('disk');
  });

  it('is found again if the remembered boundary of the chat template is wrong', async () => {
    const directory = await temporaryDirectory();
    const expected = await uncachedReplies({}, ['Hi'], 8);
    await inOtherProcess('agent', { options: agentOptions({ cacheDir: directory }) });
    const [hint] = (await readdir(directory)).filter((name) => name.startsWith('boundary_'));
    const vocabulary = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
    const { length } = await vocabulary.tokenize('assistant\n');
    await vocabulary.close();
    // This boundary lies after the message of the probe, as if that message were part of the template.
    await writeFile(join(directory, hint as string), JSON.stringify({ format: 2, controlTokens: 0, tokens: length }));
    const agent = await startAgent({ cacheDir: directory });
    const misled = await agent.createSession();
    expect(await replies(misled, ['Hi'], 8)).toEqual(expected);
    expect(misled.report.reason).toBe('the first prompt did not begin with the template');
    expect(agent.getTemplateCacheStats().prefixMismatches).toBe(1);
    const next = await agent.createSession();
    expect(next.report.source).toBe('disk');
    expect(await replies(next, ['Hi'], 8)).toEqual(expected);
    expect(agent.getTemplateCacheStats().prefixMismatches).toBe(1);
  });
});

describe('a cache hit', () => {
  it('puts the state into the context that generates, so that only message and reply are decoded', async () => {
    const lab = await openLab({ path: microModel('dense') });
    const [template, message] = [someTokens(200, 1), someTokens(7, 2)];
    await lab.start(template);
    const before = lab.context.counters().decodedTokens;
    const { report } = await lab.run(template, message, 5);
    expect(report).toMatchObject({ source: 'resident', cachedTokens: 200 });
    expect(lab.context.counters().decodedTokens - before).toBe(message.length + 4);
  });

  it('is counted only when the state is in the sequence', async () => {
    const lab = await openLab({ path: microModel('dense') });
    await lab.start(someTokens(200, 1));
    await expect(lab.start(someTokens(200, 1), { signal: AbortSignal.abort() })).rejects.toThrow();
    expect(lab.cache.stats()).toMatchObject({ hits: 0, misses: 1 });
  });

  it('is not reported if the file is missing: the start prefills, and the replies stay the same', async () => {
    const directory = await temporaryDirectory();
    const options = agentOptions({ cacheDir: directory });
    const first = await inOtherProcess('agent', { options, messages: ['Hello'] });
    for (const name of await entriesIn(directory)) {
      await rm(join(directory, name));
    }
    const second = await inOtherProcess('agent', { options, messages: ['Hello'] });
    expect(second.report).toMatchObject({ cache: 'miss', reason: 'absent', cachedTokens: 0 });
    expect(second.after).toMatchObject({ hits: 0, misses: 1 });
    expect(second.texts).toEqual(first.texts);
  });
});

describe('the cache key', () => {
  it('covers the model, so that another model of the same shape misses in the same directory', async () => {
    const directory = await temporaryDirectory();
    const settings = { cacheDir: directory };
    for (const name of ['dense', 'dense-other'] as const) {
      const agent = await startAgent({ ...settings, name });
      const session = await agent.createSession();
      expect(session.report.cache).toBe('miss');
      expect(await replies(session, ['Hello'], 8)).toEqual(await uncachedReplies({ name }, ['Hello'], 8));
      await agent.close();
    }
    expect(await entriesIn(directory)).toHaveLength(2);
  });

  it('is the same in every process', async () => {
    const options = agentOptions({ tools: TOOLS });
    const here = await (await startAgent({ tools: TOOLS })).createSession();
    const [one, two] = await Promise.all([inOtherProcess('agent', { options }), inOtherProcess('agent', { options })]);
    expect(one.report.key).toMatch(/^[0-9a-f]{64}$/);
    expect(two.report.key).toBe(one.report.key);
    expect(here.report.key).toBe(one.report.key);
  });

  it('changes with the system prompt, the tools and the settings of the KV cache', async () => {
    const keys = new Set<string>();
    const settings = [
      {},
      { systemPrompt: numberedPrompt(1) },
      { tools: TOOLS },
      { tools: [...TOOLS].reverse() },
      { keyType: 'q8_0' },
      { flashAttention: true },
      { kvLayout: 'split' },
    ] as const;
    for (const options of settings) {
      const agent = await startAgent(options);
      keys.add((await agent.createSession()).report.key);
      await agent.close();
    }
    expect(keys.size).toBe(settings.length);
  });
});

describe('a restart', () => {
  it('keeps cached templates, which are counted at once and used', async () => {
    const directory = await temporaryDirectory();
    const options = agentOptions({ cacheDir: directory });
    const first = await inOtherProcess('agent', { options, messages: ['Hello'] });
    expect(first.report.cache).toBe('miss');
    expect(first.before).toMatchObject({ entries: 0, totalTokens: 0 });
    const second = await inOtherProcess('agent', { options, messages: ['Hello'] });
    expect(second.before).toMatchObject({
      entries: 1,
      totalTokens: first.report.templateTokens,
      bytesOnDisk: first.after.bytesOnDisk,
      hits: 0,
      misses: 0,
    });
    expect(second.report).toMatchObject({ source: 'disk', cachedTokens: first.report.templateTokens });
    expect(second.after).toMatchObject({ hits: 1, misses: 0, hitRate: 1 });
    expect(second.texts).toEqual(first.texts);
  });
});

describe('concurrent starts', () => {
  it.each(['unified', 'split'] as const)(
    'of one template decode the template once in the %s layout',
    async (layout) => {
      const lab = await openLab({ path: microModel('dense'), layout, sessions: 10, kvCells: 8192 });
      const [template, message] = [someTokens(300, 1), someTokens(5, 2)];
      const all = await Promise.all(Array.from({ length: 10 }, () => lab.run(template, message, 1)));
      expect(lab.context.counters().decodedTokens).toBe(template.length + 10 * message.length);
      const sources = all.map(({ report }) => report.source).sort();
      const hit = layout === 'unified' ? 'resident' : 'memory';
      expect(sources).toEqual([...Array.from({ length: 9 }, () => hit), 'prefill'].sort());
      expect(lab.cache.stats()).toMatchObject({ hits: 9, misses: 1, hitRate: 0.9 });
    },
  );

  it('of one template are one miss and nine hits, even with fewer sequences than sessions', async () => {
    const agent = await startAgent({ tools: TOOLS });
    const sessions = await Promise.all(Array.from({ length: 10 }, () => agent.createSession()));
    expect(agent.getTemplateCacheStats()).toMatchObject({ hits: 9, misses: 1, hitRate: 0.9 });
    const [expected] = await uncachedReplies({ tools: TOOLS }, ['Hello'], 4);
    for (const session of sessions) {
      expect((await session.send('Hello', { maxTokens: 4 })).text).toBe(expected);
    }
  });

  it('of one template continue if the start that prefills is aborted, because another start prefills', async () => {
    const lab = await openLab({ path: microModel('dense'), sessions: 3, kvCells: 8192, batchSize: 64 });
    const template = someTokens(3000, 1);
    const controller = new AbortController();
    const aborted = lab.start(template, { signal: controller.signal });
    const others = [lab.start(template), lab.start(template)];
    while (lab.context.counters().decodes < 2) {
      await new Promise(setImmediate);
    }
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    expect((await Promise.all(others)).map(({ source }) => source).sort()).toEqual(['prefill', 'resident']);
    expect(lab.cache.stats()).toMatchObject({ hits: 1, misses: 1 });
  });

  it('of many templates each get the right template, even with few resident sequences', async () => {
    const lab = await openLab({ path: microModel('dense'), sessions: 12, residents: 2, kvCells: 8192 });
    const message = someTokens(4, 9);
    const seeds = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4];
    const all = await Promise.all(seeds.map((seed) => lab.run(someTokens(150, seed), message, 1)));
    for (const [index, { report, tokens }] of all.entries()) {
      const alone = await lab.run(someTokens(150, seeds[index] as number), message, 1, { cache: false });
      expect(tokens).toEqual(alone.tokens);
      expect(report.templateTokens).toBe(150);
    }
    expect(lab.cache.stats()).toMatchObject({ misses: 4, hits: 8 });
  });
});
