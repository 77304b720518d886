// Every state outside the KV cache counts against one budget: `cache.maxMemoryBytes`.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import {
  type AgentHealth,
  type AgentServer,
  type StartReport,
  subscribeDiagnostics,
  TEMPLATE_CACHE_CHANNEL,
  type TemplateCacheEvent,
} from 'llama-headstart';
import { StateCopier } from 'llama-headstart/internal';
import { describe, expect, it, onTestFinished } from 'vitest';
import { agentOptions, startAgent, temporaryDirectory } from '../helpers/agents.js';
import type { MicroModelName } from '../helpers/models.js';
import { leaseBusy } from '../helpers/open-engine.js';
import { entriesIn, numberedTemplate, openLab } from '../helpers/open-lab.js';
import { inOtherProcess } from '../helpers/processes.js';

/** Returns the size of one template's state in bytes, and the length of the template in tokens. */
async function measureTemplate(name: MicroModelName) {
  const agent = await startAgent({ name, maxResidentTemplates: 0 });
  const session = await agent.createSession();
  const { bytes, count } = agent.health().states;
  expect(count).toBe(1);
  await agent.close();
  return { bytes, templateTokens: session.report.templateTokens };
}

/** Records `health().states` of an agent at each decode, prefill, turn and session event. Returns the records. */
function sampleStates(agent: AgentServer): AgentHealth['states'][] {
  const samples: AgentHealth['states'][] = [];
  for (const channel of ['decode', 'prefill', 'turn', 'session'] as const) {
    onTestFinished(subscribeDiagnostics(channel, () => samples.push(agent.health().states)));
  }
  return samples;
}

describe('a template of three times the budget', () => {
  it.each(['dense', 'sliding-window', 'recurrent'] as const)(
    'is saved, and then starts from disk in this process and in another one (%s model)',
    async (name) => {
      const { bytes, templateTokens } = await measureTemplate(name);
      const cacheDir = await temporaryDirectory();
      const settings = { name, cacheDir, maxResidentTemplates: 0, maxMemoryBytes: Math.floor(bytes / 3) };
      const first = await startAgent(settings);
      const { report } = await first.createSession();
      expect(report).toMatchObject({ source: 'prefill', cache: 'miss' });
      await first.flush();
      expect(report.notSaved).toBeUndefined();
      expect(await entriesIn(cacheDir)).toHaveLength(1);
      expect(first.health().states).toMatchObject({ bytes: 0, count: 0, transferBytes: 0 });
      const again = await first.createSession();
      expect(again.report).toMatchObject({ source: 'disk', cache: 'hit', cachedTokens: templateTokens, bytes });
      expect(first.health().states).toMatchObject({ bytes: 0, count: 0, transferBytes: 0 });
      await first.close();
      const other = await inOtherProcess('agent', { options: agentOptions(settings) });
      expect(other.report).toMatchObject({ source: 'disk', cache: 'hit', cachedTokens: templateTokens, bytes });
    },
  );

  it('displaces no state in memory, and its bytes are reported as a transfer until it is written', async () => {
    const lab = await openLab({ residents: 0 });
    await lab.start(numberedTemplate(1, 50));
    const small = lab.prefixCache.stores.states.status();
    expect(small.count).toBe(1);
    const bounded = await openLab({
      residents: 0,
      directory: await temporaryDirectory(),
      cache: { maxMemoryBytes: 2 * small.bytes },
    });
    const status = () => bounded.prefixCache.stores.states.status();
    await bounded.start(numberedTemplate(1, 50));
    await bounded.cache.flush();
    await bounded.start(numberedTemplate(2, 300));
    expect(status().bytes).toBe(small.bytes);
    expect(status().transferBytes).toBeGreaterThan(5 * small.bytes); // it is being written
    await bounded.cache.flush();
    expect(status()).toMatchObject({ bytes: small.bytes, count: 1, transferBytes: 0 });
    expect((await bounded.start(numberedTemplate(1, 50))).source).toBe('memory');
    expect((await bounded.start(numberedTemplate(2, 300))).source).toBe('disk');
    expect(bounded.cache.stats()).toMatchObject({ evictions: { memory: 0 }, bytesInMemory: small.bytes });
  });

  it('is saved even if several such templates start at the same time', async () => {
    const directory = await temporaryDirectory();
    const lab = await openLab({ residents: 0, sessions: 4, directory, cache: { maxMemoryBytes: 1 } });
    const seeds = [1, 2, 3, 4];
    const sources = async () =>
      (await Promise.all(seeds.map((seed) => lab.start(numberedTemplate(seed))))).map(({ source }) => source);
    expect(await sources()).toEqual(seeds.map(() => 'prefill'));
    await lab.cache.flush();
    expect(await entriesIn(directory)).toHaveLength(seeds.length);
    expect(await sources()).toEqual(seeds.map(() => 'disk'));
    expect(lab.prefixCache.stores.states.status()).toMatchObject({ bytes: 0, transferBytes: 0 });
  });
});

describe('a template in memory', () => {
  it('is evicted if other templates need its memory, and the eviction is counted and causes an event', async () => {
    const lab = await openLab({ residents: 0 });
    await lab.start(numberedTemplate(1));
    const { bytes } = lab.prefixCache.stores.states.status();
    const evictions: TemplateCacheEvent[] = [];
    const listen = (event: unknown) => {
      evictions.push(...[event as TemplateCacheEvent].filter(({ type }) => type === 'evict'));
    };
    subscribe(TEMPLATE_CACHE_CHANNEL, listen);
    onTestFinished(() => {
      unsubscribe(TEMPLATE_CACHE_CHANNEL, listen);
    });
    const bounded = await openLab({ residents: 0, cache: { maxMemoryBytes: 2.5 * bytes } });
    const keys: string[] = [];
    for (const seed of [1, 2, 3]) {
      keys.push((await bounded.start(numberedTemplate(seed))).key);
    }
    expect(evictions).toMatchObject([{ tier: 'memory', key: keys[0] }]);
    expect(bounded.cache.stats()).toMatchObject({ evictions: { memory: 1 }, entries: 2, bytesInMemory: 2 * bytes });
  });
});

describe('a start that captures a template larger than the budget', () => {
  it('does not wait for a restore that itself waits for KV cells', async () => {
    const directory = await temporaryDirectory();
    const settings = { residents: 0, directory, kvCells: 256, batchSize: 32, cache: { maxMemoryBytes: 1 } };
    const first = await openLab(settings);
    const [saved, unknown] = [numberedTemplate(1, 200), numberedTemplate(2, 200)];
    await first.start(saved);
    await first.cache.flush();
    const lab = await openLab(settings);
    let restoring: Promise<StartReport> | undefined;
    // The saved template is read from its file while the other template is prefilled. The restore of the saved template
    // then finds too few free cells.
    onTestFinished(subscribeDiagnostics('decode', () => (restoring ??= lab.start(saved))));
    expect((await lab.start(unknown)).source).toBe('prefill');
    expect((await restoring)?.source).toBe('disk');
    await lab.cache.flush();
    expect(lab.prefixCache.stores.states.status()).toMatchObject({ transferBytes: 0 });
  });
});

describe('a capture', () => {
  it('is given up if it waits too long for a state that exceeds the budget, and an abort ends the wait', async () => {
    const { engine, prefixCache } = await openLab({ cache: { maxMemoryBytes: 1 } });
    const { states } = prefixCache.stores;
    const sequence = await leaseBusy(engine);
    await engine.prefill(sequence, numberedTemplate(1));
    const [owner, abort] = [{ kind: 'template' } as const, new AbortController()];
    const request = { sequence, signal: abort.signal };
    const hanging = states.transfers.begin(owner, 1e9);
    const parts = { engine, states, logger: undefined };
    expect(await new StateCopier(parts, 1).capture(request, owner)).toBeUndefined();
    const copier = new StateCopier(parts);
    const waiting = copier.capture(request, owner);
    hanging?.end();
    const captured = await waiting;
    expect(captured?.state.tokens).toEqual(numberedTemplate(1));
    const aborted = copier.capture(request, owner);
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    captured?.transfer.end();
    expect(states.status().transferBytes).toBe(0);
  });
});

describe('the memory of many sessions', () => {
  it('stays within the budget at every moment, although 64 sessions keep checkpoints', async () => {
    const { bytes } = await measureTemplate('recurrent');
    const maxMemoryBytes = Math.floor(6.5 * bytes);
    const agent = await startAgent({ name: 'recurrent', nSeqMax: 4, contextSize: 512, maxMemoryBytes });
    const samples = sampleStates(agent);
    const sessions = await Promise.all(Array.from({ length: 64 }, () => agent.createSession()));
    await Promise.all(sessions.map((session, index) => session.send(`Hello ${index}`, { maxTokens: 2 })));
    expect(samples.length).toBeGreaterThan(64);
    for (const { bytes: kept, maxBytes } of samples) {
      expect(maxBytes).toBe(maxMemoryBytes);
      expect(kept).toBeLessThanOrEqual(maxBytes);
    }
    const largest = Math.max(...samples.map(({ bytes: kept, transferBytes }) => kept + transferBytes));
    expect(largest).toBeLessThanOrEqual(maxMemoryBytes + 1.1 * bytes); // one transfer may exceed the budget
    const { count, byKind } = agent.health().states;
    expect(count).toBe(6);
    expect(byKind.conversation.count + byKind.template.count).toBe(count);
    expect(agent.getTemplateCacheStats().bytesInMemory).toBe(byKind.template.bytes);
    await Promise.all(sessions.map((session) => session.close()));
    expect(agent.health().states.byKind.conversation).toEqual({ count: 0, bytes: 0 });
  });

  it('has a budget of at least 512 MiB by default', async () => {
    const agent = await startAgent();
    expect(agent.health().states.maxBytes).toBeGreaterThanOrEqual(512 * 1024 ** 2);
  });
});
