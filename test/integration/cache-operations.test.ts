// Tests the methods of `agent.templateCache`: warm, list, inspect, verify, invalidate, clear, prune, and explainMiss.
import { chmod, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { agentOptions, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { entriesIn, numberedTemplate, openLab, save } from '../helpers/open-lab.js';
import { numberedPrompt, TOOLS } from '../helpers/prompts.js';

describe('the template cache of an agent', () => {
  it('warms templates, so that their first session is a hit', async () => {
    const agent = await startAgent({ cacheDir: await temporaryDirectory() });
    const seen: number[] = [];
    const reports = await agent.templateCache.warm([{}, { tools: TOOLS }, { tools: TOOLS, tenant: 'a' }], {
      onProgress: (done) => seen.push(done),
    });
    expect(reports.map(({ source }) => source)).toEqual(['prefill', 'prefill', 'prefill']);
    expect(seen).toEqual([1, 2, 3]);
    expect(agent.getTemplateCacheStats().entries).toBe(3);
    expect((await agent.createSession({ tools: TOOLS, tenant: 'a' })).report.source).toBe('resident');
    await expect(agent.templateCache.warm([{}], { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    await expect(agent.templateCache.warm([{ sytemPrompt: 'x' } as never])).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
  });

  it('reports why nothing was warmed if conversations do not begin with the same token', async () => {
    const chatTemplate = '{% for m in messages | reverse %}{{ m.content }}{% endfor %}'; // the newest message first
    const agent = await startAgent({ chatTemplate });
    const [report] = await agent.templateCache.warm([{}]);
    expect(report).toEqual({ ...(await agent.createSession()).report, ms: expect.any(Number) });
    expect(report).toMatchObject({
      cache: 'bypass',
      templateTokens: 0,
      reason: expect.stringMatching(/the same token/),
    });
    expect(agent.getTemplateCacheStats().bypasses).toBe(2);
  });

  it('lists templates with their tiers, and shows the components of a key', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent({ cacheDir: directory });
    const { report } = await agent.createSession();
    await agent.templateCache.flush();
    const [entry, ...rest] = await agent.templateCache.list();
    expect(rest).toEqual([]);
    expect(entry).toMatchObject({
      key: report.key,
      tokens: report.templateTokens,
      tiers: ['resident', 'memory', 'disk'],
      pinned: false,
    });
    expect((await stat(join(directory, entry?.file as string))).size).toBe(entry?.bytes);
    expect(await agent.templateCache.inspect(report.key)).toMatchObject({
      components: { keyType: 'f16', layout: 'unified', lora: [] },
    });
    await expect(agent.templateCache.inspect('00')).rejects.toMatchObject({ code: 'ENTRY_MISSING' });
  });

  it('verifies the directory: a damaged entry is set aside, and a renamed intact entry stays', async () => {
    const directory = await temporaryDirectory();
    const lab = await openLab({ directory });
    const [good, bad, moved] = [await save(lab, 1), await save(lab, 2), await save(lab, 3)];
    const path = (key: string) => join(directory, `template_${key.slice(0, 16)}.kv`);
    const bytes = await readFile(path(bad));
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
    await writeFile(path(bad), bytes);
    await rename(path(moved), path('f'.repeat(64)));
    expect(await lab.cache.verify()).toMatchObject({ checked: 3, intact: 2, corrupt: 1, foreign: 0 });
    expect((await entriesIn(directory)).sort()).toEqual(
      [path(good), path('f'.repeat(64))].map((file) => file.slice(directory.length + 1)).sort(),
    );
    expect(lab.cache.stats()).toMatchObject({ corruptions: 1, entries: 2 });
    await expect(lab.cache.verify({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('deletes one template or all templates while sessions continue', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent({ cacheDir: directory });
    const session = await agent.createSession();
    await agent.createSession({ systemPrompt: numberedPrompt(1) });
    await agent.flush();
    expect(await agent.templateCache.invalidate({ systemPrompt: numberedPrompt(1) })).toBe(true);
    expect(await agent.templateCache.invalidate({ systemPrompt: numberedPrompt(1) })).toBe(false);
    expect((await agent.createSession({ systemPrompt: numberedPrompt(1) })).report.cache).toBe('miss');
    await agent.flush();
    expect(await agent.templateCache.clear()).toBe(2);
    expect(await entriesIn(directory)).toEqual([]);
    expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
    expect((await agent.createSession()).report.cache).toBe('miss');
    const unsaved = await startAgent({ maxMemoryBytes: 0 });
    await unsaved.createSession();
    expect(await unsaved.templateCache.clear()).toBe(1); // the resident template, which has no file
  });

  it('deletes the files of dead processes in `prune`, and applies the budgets passed to `prune`', async () => {
    const directory = await temporaryDirectory();
    const lab = await openLab({ directory });
    await save(lab, 1);
    await save(lab, 2);
    const dead = join(directory, `template_0011223344556677.kv.${'ab'.repeat(8)}.0.tmp`);
    await writeFile(dead, 'half');
    await utimes(dead, 1, 1);
    await writeFile(join(directory, `template_8899aabbccddeeff.kv.${'cd'.repeat(8)}.0.tmp`), 'just begun, elsewhere');
    await writeFile(join(directory, `owner_${'ef'.repeat(8)}.lock`), '');
    await writeFile(join(directory, `template_8899aabbccddeeff.kv.${'ef'.repeat(8)}.0.tmp`), 'its owner holds no lock');
    for (let index = 0; index < 12; index++) {
      await writeFile(join(directory, `template_${String(index).padStart(16, '0')}.kv.corrupt`), '');
    }
    for (const budget of [{ maxEntry: 1 }, { maxDiskBytes: '1 GiB' }, { maxAgeMs: -1 }, 7]) {
      await expect(lab.cache.prune(budget as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect(await lab.cache.prune({ maxEntries: 1 })).toEqual({ entries: 1, temporaryFiles: 2, corruptFiles: 4 });
    const names = await readdir(directory);
    expect(names.filter((name) => name.endsWith('.tmp'))).toEqual([
      `template_8899aabbccddeeff.kv.${'cd'.repeat(8)}.0.tmp`,
    ]);
  });
});

describe('the explanation of a miss', () => {
  it('shows the first token that differs from the nearest entry, with the text around it', async () => {
    const agent = await startAgent({ cacheDir: await temporaryDirectory() });
    await agent.createSession();
    await agent.flush();
    expect(await agent.templateCache.explainMiss({})).toMatchObject({
      source: 'resident',
      reason: expect.stringMatching(/^the template is cached/),
    });
    const { cache, reason, difference } = await agent.templateCache.explainMiss({
      systemPrompt: agentOptions().systemPrompt?.replace('closes at six', 'closes at ten') as string,
    });
    expect(cache).toBe('miss');
    expect(reason).toMatch(/^token (\d+) differs from the nearest entry's; the first \1 of \d+ tokens are the same$/);
    expect(difference?.hereText).toContain('ten');
    expect(difference?.entryText).toContain('six');
  });

  it('names the component of the key that differs', async () => {
    const directory = await temporaryDirectory();
    await (await startAgent({ cacheDir: directory })).createSession({ tenant: 'a' });
    const explain = async (settings: Parameters<typeof startAgent>[0], tenant?: string) => {
      const agent = await startAgent({ ...settings, cacheDir: directory });
      const { components, reason, difference } = await agent.templateCache.explainMiss(
        tenant === undefined ? {} : { tenant },
      );
      await agent.close();
      expect(reason).toMatch(/^an entry with the same \d+ tokens was made with another /);
      expect(difference).toBeUndefined();
      return components;
    };
    await expect.poll(async () => (await entriesIn(directory)).length).toBe(1);
    expect(await explain({ keyType: 'q8_0' }, 'a')).toEqual([{ component: 'keyType', here: 'q8_0', entry: 'f16' }]);
    expect((await explain({ name: 'dense-other' }, 'a'))?.map(({ component }) => component)).toEqual(['fingerprint']);
    expect(await explain({})).toEqual([{ component: 'tenant', here: 'this tenant', entry: 'another tenant' }]);
  });

  it('shows the differing token and component if an entry of another configuration shares most tokens', async () => {
    const directory = await temporaryDirectory();
    const save = async (systemPrompt: string, settings: Parameters<typeof startAgent>[0] = {}, tenant?: string) => {
      const agent = await startAgent({ ...settings, cacheDir: directory });
      const { report } = await agent.createSession({ systemPrompt, ...(tenant !== undefined && { tenant }) });
      await agent.close();
      return report.templateTokens;
    };
    const prompt = agentOptions().systemPrompt as string;
    await save('You are a patient assistant in a large hotel.');
    const tokens = await save(prompt.replace('closes at six', 'closes at ten'), { keyType: 'q8_0' });
    const agent = await startAgent({ cacheDir: directory });
    const { reason, nearest, difference, components } = await agent.templateCache.explainMiss({});
    expect(nearest).toMatchObject({ tokens, sharedTokens: difference?.index });
    expect(components).toEqual([{ component: 'keyType', here: 'f16', entry: 'q8_0' }]);
    expect(difference?.hereText).toContain('six');
    expect(difference?.entryText).toContain('ten');
    expect(reason).toMatch(
      /^the nearest entry shares \d+ of \d+ tokens and was made with another keyType; entries of this configuration share at most \d+$/,
    );
    await save(`${prompt}\nAnd secret.`, {}, 'acme');
    const other = await agent.templateCache.explainMiss({ systemPrompt: `${prompt}\nAnd open.` });
    // A miss that merely shares a prefix with another tenant never mentions tenants. Otherwise a caller could guess the
    // prompts of other tenants piece by piece.
    expect(other.components ?? []).not.toContainEqual(expect.objectContaining({ component: 'tenant' }));
    const secret = await agent.templateCache.explainMiss({ systemPrompt: `${prompt}\nAnd secret.` });
    expect(secret).toMatchObject({ components: [{ component: 'tenant' }], reason: expect.stringContaining('tenant') });
  });

  it('says that no entry shares a token with the template, if that is the reason', async () => {
    const agent = await startAgent({ cacheDir: await temporaryDirectory() });
    expect(await agent.templateCache.explainMiss({})).toMatchObject({
      cache: 'miss',
      reason: expect.stringMatching(/^no entry/),
    });
  });
});

describe('two cache entries whose keys begin with the same 16 digits', () => {
  it('are both kept and both used', async () => {
    const directory = await temporaryDirectory();
    const first = await openLab({ directory });
    const [key, other] = [await save(first, 1), await save(first, 2)];
    await first.close();
    const path = (entryKey: string) => join(directory, `template_${entryKey.slice(0, 16)}.kv`);
    await rm(path(key));
    await rename(path(other), path(key)); // now the file name belongs to one key and the content to the other
    const second = await openLab({ directory });
    expect(await second.start(numberedTemplate(1))).toMatchObject({
      cache: 'miss',
      reason: expect.stringMatching(/^foreign/),
    });
    await second.cache.flush();
    expect((await entriesIn(directory)).sort()).toEqual(
      [`template_${key.slice(0, 16)}.kv`, `template_${key}.kv`].sort(),
    );
    const third = await openLab({ directory });
    expect((await third.start(numberedTemplate(1))).source).toBe('disk');
    expect(third.cache.stats().corruptions).toBe(0);
  });
});

describe('a read-only cache directory', () => {
  it('still serves its entries, and failed saves are counted', async ({ skip }) => {
    skip(process.getuid?.() === 0, 'root can write to a read-only directory');
    const directory = await temporaryDirectory();
    await save(await openLab({ directory }), 1);
    await chmod(directory, 0o500);
    onTestFinished(() => chmod(directory, 0o700));
    const lab = await openLab({ directory });
    expect((await lab.start(numberedTemplate(1))).source).toBe('disk');
    expect((await lab.start(numberedTemplate(2))).cache).toBe('miss');
    await lab.cache.flush();
    expect(lab.cache.stats()).toMatchObject({ failedSaves: 1 });
  });
});
