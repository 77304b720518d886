// Cache hints name places up to which later requests probably have the same prompt. The agent keeps states there.
import { readdir } from 'node:fs/promises';
import type { AgentServer, CacheHint, ChatMessage, ChatRequest, Reply, Tool } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { assistant, user } from '../helpers/messages.js';
import { numberedPrompt } from '../helpers/prompts.js';
import { variants } from '../helpers/soak.js';

/** About 330 tokens. */
const SYSTEM = Array.from({ length: 4 }, (_, index) => numberedPrompt(index)).join('\n');
const toolNamed = (name: string): Tool => ({ name, description: `Does ${name}.` });
const toolsNamed = (names: string): Tool[] => [...names].map(toolNamed);

/** Settings of agents that also reuse the beginning of another template. */
const NEAREST: AgentSettings = { systemPrompt: SYSTEM, reuse: 'nearest', ...EXACT };

const ask = (agent: AgentServer, more: Partial<ChatRequest>): Promise<Reply> =>
  agent.chat({ messages: [user('Hello')], maxTokens: 2, ...more }).result;
const cached = async (reply: Promise<Reply>) => (await reply).usage.cachedInputTokens;

/** The kinds of memory that cannot be trimmed. */
const NOT_TRIMMABLE = ['sliding-window', 'recurrent', 'hybrid'] as const;
/** In `npm test`, one model with partial checkpoints, and one whose checkpoints are whole states. */
const REPRESENTATIVE = variants(NOT_TRIMMABLE, (name) => name !== 'sliding-window');

describe.each(REPRESENTATIVE)('with the %s model', (name) => {
  it('hints in the template let requests with other tools reuse the tokens up to there', async () => {
    const agent = await startAgent({ name, ...NEAREST });
    const hints: CacheHint[] = [{ tool: 1 }, { system: true }];
    await ask(agent, { tools: toolsNamed('abc'), cacheHints: hints });
    const ofSystem = await cached(ask(agent, { tools: toolsNamed('x') }));
    const later = await ask(agent, { tools: toolsNamed('abd') });
    expect(ofSystem).toBeGreaterThan(300);
    expect(later.usage.cachedInputTokens).toBeGreaterThan(ofSystem + 20);
    const cold = await startAgent({ name, ...NEAREST });
    expect((await ask(cold, { tools: toolsNamed('abd') })).text).toBe(later.text);
    expect(await cached(ask(cold, { tools: toolsNamed('x') }))).toBe(0);
  });
});

describe('a hint in the template', () => {
  const entries = async (directory: string) => (await readdir(directory)).filter((file) => file.endsWith('.kv'));

  it('costs one file, not one for each request, even if it moves', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await startAgent({ name: 'recurrent', cacheDir, ...NEAREST });
    const tools = toolsNamed('abc');
    for (const tool of [0, 1, 2, 0]) {
      await ask(agent, { tools, cacheHints: [{ tool }], messages: [user(`Turn ${tool}`)] });
    }
    await agent.close();
    expect(await entries(cacheDir)).toHaveLength(2); // the template, and its beginning at the first hint
  });

  it.each(['dense', 'recurrent'] as const)(
    'costs no file before a second request uses it, with the %s model',
    async (name) => {
      const cacheDir = await temporaryDirectory();
      const agent = await startAgent({ name, cacheDir, ...NEAREST });
      const request = (number: number) => ({
        messages: [{ role: 'system', content: `${number}. ${SYSTEM}` } as const, user('Hello')],
        tools: toolsNamed('a'),
        cacheHints: [{ system: true } as const],
      });
      for (let number = 0; number < 3; number++) {
        await ask(agent, request(number));
      }
      await agent.flush();
      expect(await entries(cacheDir)).toEqual([]);
      await ask(agent, request(1));
      await agent.close();
      const keys = (await entries(cacheDir)).length;
      expect(keys).toBe(name === 'dense' ? 1 : 2); // the template, and its beginning up to the tools
      const again = await startAgent({ name, cacheDir, ...NEAREST });
      expect((await ask(again, request(1))).cache.source).toBe('disk');
    },
  );

  it('costs a file as soon as a session uses the template', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await startAgent({ cacheDir, ...NEAREST });
    await ask(agent, { cacheHints: [{ system: true }] });
    await agent.createSession();
    await agent.flush();
    expect(await entries(cacheDir)).toHaveLength(1);
  });

  it('costs a file when a second request must prefill the template again', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await startAgent({ cacheDir, maxMemoryBytes: 0, maxResidentTemplates: 0, nSeqMax: 1, ...NEAREST });
    const cacheHints = [{ system: true } as const];
    await ask(agent, { cacheHints });
    await ask(agent, { messages: [{ role: 'system', content: 'Another one.' } as const, user('Hello')] });
    await agent.flush();
    expect(await entries(cacheDir)).toHaveLength(1);
    await ask(agent, { cacheHints });
    await agent.flush();
    expect(await entries(cacheDir)).toHaveLength(2);
  });

  it('pins the templates of one tenant only within a quarter of the memory', async () => {
    const systemPrompt = (number: number) => `${number}. ${SYSTEM}`;
    const hinted = (number: number) => ({
      messages: [{ role: 'system', content: systemPrompt(number) } as const, user('Hello')],
      tenant: 'a',
      cacheHints: [{ system: true } as const],
    });
    const first = await startAgent(NEAREST);
    await ask(first, hinted(0));
    const { bytesInMemory } = first.getTemplateCacheStats();
    const agent = await startAgent({ ...NEAREST, maxMemoryBytes: 6 * bytesInMemory, maxResidentTemplates: 0 });
    await ask(agent, hinted(0));
    await ask(agent, hinted(1)); // the two pins exceed a quarter, so the first one ends
    await agent.templateCache.warm([2, 3, 4, 5, 6, 7].map((number) => ({ systemPrompt: systemPrompt(number) })));
    const sources = [0, 1, 7].map(async (number) => {
      const tenant = number < 2 ? { tenant: 'a' } : {};
      return (await agent.templateCache.explainMiss({ systemPrompt: systemPrompt(number), ...tenant })).source;
    });
    expect(await Promise.all(sources)).toEqual(['prefill', 'memory', 'memory']);
  });

  it('saves no additional entry on memory that can be trimmed, and none with `reproducible`', async () => {
    for (const settings of [
      { name: 'dense' },
      { name: 'recurrent', reproducible: true, reuse: 'exact' },
    ] as AgentSettings[]) {
      const cacheDir = await temporaryDirectory();
      const agent = await startAgent({ ...NEAREST, cacheDir, ...settings });
      for (let request = 0; request < 2; request++) {
        await ask(agent, { tools: toolsNamed('a'), cacheHints: [{ system: true }] });
      }
      await agent.close();
      expect(await entries(cacheDir)).toHaveLength(1);
    }
  });

  it('pins the template: another template does not displace it from the directory', async () => {
    for (const cacheHints of [undefined, [{ system: true, ttlMs: 60_000 } as const]]) {
      const cacheDir = await temporaryDirectory();
      const agent = await startAgent({ cacheDir, maxEntries: 1, ...NEAREST });
      const [{ key } = { key: '' }] = await agent.templateCache.warm([{ systemPrompt: SYSTEM }]);
      await ask(agent, { ...(cacheHints && { cacheHints }) });
      await agent.templateCache.warm([{ systemPrompt: 'Another one.' }]);
      await agent.close();
      const again = await startAgent({ cacheDir, ...NEAREST });
      const keys = (await again.templateCache.list()).map((entry) => entry.key);
      expect(keys.includes(key)).toBe(cacheHints !== undefined);
    }
  });

  it('has no effect if its place does not exist', async () => {
    const agent = await startAgent();
    const cacheHints = [{ message: 7 }, { tool: 9 }, { message: 0 }];
    expect((await ask(agent, { cacheHints })).text).toBe((await ask(await startAgent(), {})).text);
  });

  it.each<[string, unknown]>([
    ['no list', { message: 0 }],
    ['more than eight', Array.from({ length: 9 }, (_, message) => ({ message }))],
    ['no place', [{ ttlMs: 1000 }]],
    ['two places', [{ message: 0, tool: 0 }]],
    ['a place that is no index', [{ message: -1 }]],
    ['a system prompt that is not true', [{ system: false }]],
    ['a time that is too long', [{ system: true, ttlMs: 1e9 }]],
    ['an unknown field', [{ system: true, ttl: '5m' }]],
  ])('fails with INVALID_ARGUMENT if there are wrong hints: %s', async (_, cacheHints) => {
    const agent = await startAgent();
    const request = { cacheHints } as Partial<ChatRequest>;
    const message = expect.stringContaining('Expected `cacheHints` in the options to be an array of');
    await expect(ask(agent, request)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message });
  });
});

describe.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)('with the %s model', (name) => {
  const shared = [user('Tell me about chains. '.repeat(12)), assistant('Yes.'), user('And about brakes? '.repeat(6))];
  const first = [...shared, assistant('Fine.'), user('Thanks.')];
  const other = [...shared, assistant('Hm, well.'), user('Go on.')];

  it('a hint on a message lets a request that differs after it reuse the tokens up to there', async () => {
    const agent = await startAgent({ name, ...EXACT });
    await ask(agent, { messages: first, cacheHints: [{ message: 2 }] });
    const { text, usage } = await ask(agent, { messages: other });
    expect(usage.cachedInputTokens).toBeGreaterThan((await agent.countTokens({ messages: shared })) - 10);
    const cold = await startAgent({ name, ...EXACT });
    await ask(cold, { messages: first });
    const unhinted = await ask(cold, { messages: other });
    expect(unhinted.text).toBe(text);
    if (name !== 'dense') {
      expect(unhinted.usage.cachedInputTokens).toBeLessThan(usage.cachedInputTokens - 50);
    }
  });
});

describe.each(REPRESENTATIVE)('with the %s model', (name) => {
  it('a hint that moves in every request replaces its predecessor', async () => {
    const statesAfter = async (hasHints: boolean) => {
      const agent = await startAgent({ name, ...EXACT });
      const messages: ChatMessage[] = [];
      for (let turn = 0; turn < 4; turn++) {
        const hinted = messages.push(user(`Turn ${turn}: ${'the chain is oiled. '.repeat(3)}`)) - 1;
        messages.push(assistant('Yes.'), user('And now?'));
        const { text } = await ask(agent, { messages, ...(hasHints && { cacheHints: [{ message: hinted }] }) });
        messages.push(assistant(text));
      }
      return agent.health().states.count;
    };
    expect(await statesAfter(true)).toBe((await statesAfter(false)) + 1);
  });
});
