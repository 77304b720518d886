// `agent.explain` tells what a request would reuse now, or where the prompts of two requests part.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type AgentServer, type ChatMessage, type ChatRequest, tool } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { ALWAYS, ask, LONG } from '../helpers/conversations.js';
import { assistant, user } from '../helpers/messages.js';
import { iterate, outcomeOf } from '../helpers/turns.js';

const FIRST = 'My chain broke on the way to work. What should I do about it now?';
const SECOND = 'What does a new one cost, and how long does the repair take?';

const find = (name: string) =>
  tool({ name, description: `Finds a ${name}.`, inputSchema: { type: 'object', properties: { city: {} } } });

async function restarted(agent: AgentServer, settings: AgentSettings): Promise<AgentServer> {
  await agent.close();
  return startAgent(settings);
}

/** What `explain` must not change: the counts of the agent, and the states and sequences that it holds. */
function countsOf(agent: AgentServer) {
  const { uptimeMs: _, ...health } = agent.health();
  return health;
}

/** Explains a request, then runs it, and expects that the explanation was right. */
async function explainAndRun(agent: AgentServer, request: ChatRequest) {
  const before = countsOf(agent);
  const explained = await agent.explain(request);
  expect(countsOf(agent)).toEqual(before);
  const { text, cache, usage } = await agent.chat({ maxTokens: 6, ...request }).result;
  const { ms: _, difference, ...rest } = cache;
  expect(explained).toMatchObject(rest);
  expect(explained.promptTokens).toBe(usage.inputTokens);
  expect(explained.difference?.index).toBe(difference?.index);
  return { text, explained };
}

describe.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)('with the %s model', (name) => {
  it.each([4, 1])('an explanation says what the request then reuses (%i sequences)', async (nSeqMax) => {
    const agent = await startAgent({ name, ...EXACT, nSeqMax });
    const first = await explainAndRun(agent, { messages: [user(FIRST)] });
    const history = [user(FIRST), assistant(first.text)];
    expect(
      (await explainAndRun(agent, { messages: [...history, user(SECOND)] })).explained.cachedTokens,
    ).toBeGreaterThan(0);
    await explainAndRun(agent, { messages: [...history, user('Is it far?')] });
    await explainAndRun(agent, { messages: [user('Write a title.')], tenant: 'other' });
    await explainAndRun(agent, { messages: [user('Write a title.')] });
    await explainAndRun(agent, { messages: [...history, user(SECOND)] });
    await explainAndRun(agent, { messages: [user('A new system prompt.')], tools: [find('chain')] });
  });

  it('an explanation finds a conversation on disk after a restart', async () => {
    const settings = { name, ...EXACT, cacheDir: await temporaryDirectory(), conversations: ALWAYS };
    const messages: ChatMessage[] = [];
    const first = await startAgent(settings);
    await ask(first, messages, LONG);
    await first.close();
    const second = await startAgent(settings);
    const { explained } = await explainAndRun(second, { messages: [...messages, user(SECOND)] });
    expect(explained.source).toBe('disk');
    const { explained: changed } = await explainAndRun(await restarted(second, settings), {
      messages: [user(LONG), assistant('It is worn.'), user(SECOND)],
    });
    expect(changed.difference?.index).toBeGreaterThanOrEqual(changed.cachedTokens);
  });
});

describe('an explanation', () => {
  it('has the text on both sides of the difference, but no text of another tenant', async () => {
    const agent = await startAgent();
    const request = (content: string) => ({ messages: [user(content)], maxTokens: 4 });
    await agent.chat({ ...request('The code of the alarm is swordfish and no other word.'), tenant: 'a' }).result;
    const other = request('The code of the alarm is unknown to me.');
    const { difference } = await agent.explain({ ...other, tenant: 'a' });
    expect(difference).toMatchObject({
      message: 0,
      before: expect.stringMatching(/the alarm is$/),
      text: expect.stringMatching(/^ unknown/),
      storedText: expect.stringMatching(/^ sword/),
    });
    for (const tenant of [undefined, 'b']) {
      const foreign = await agent.explain({ ...other, ...(tenant !== undefined && { tenant }) });
      expect(foreign).toMatchObject({ source: 'prefill', difference: { index: 0, before: '', storedText: '' } });
    }
  });

  it('does not count as a use: the explained conversation is still the first to be evicted', async () => {
    const agent = await startAgent({ ...EXACT, nSeqMax: 2, maxMemoryBytes: 0 });
    const about = (topic: string): ChatRequest => ({
      messages: [user(`Tell me about ${topic}. ${'It was long ago. '.repeat(10)}`)],
      maxTokens: 4,
    });
    const [old, recent] = [about('an old conversation'), about('a recent conversation')];
    await agent.chat(old).result;
    await agent.chat(recent).result;
    await agent.explain(old);
    await agent.chat({ messages: [user('Something else, please.')], maxTokens: 4 }).result;
    const [ofOld, ofRecent] = [await agent.explain(old), await agent.explain(recent)];
    expect(ofOld.cachedTokens).toBeLessThan(ofOld.promptTokens - 1);
    expect(ofRecent.prefilledTokens).toBe(1);
  });

  it('comes while the only sequence is busy', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const stream = iterate(agent.chat({ messages: [user(FIRST)], maxTokens: 500 }));
    await stream.next();
    const { prefilledTokens } = await agent.explain({ messages: [user(FIRST)] });
    expect(prefilledTokens).toBe(1);
    expect(await agent.explain({ messages: [user(FIRST)] }, { messages: [user(FIRST)] })).toMatchObject({
      reason: 'the prompts are equal',
    });
    await stream.return?.();
  });

  it('names the message even if the chat template rewrites the messages around it', async () => {
    const file = '../../vendor/llama.cpp/models/templates/Qwen-Qwen3-0.6B.jinja';
    const chatTemplate = readFileSync(fileURLToPath(new URL(file, import.meta.url)), 'utf8');
    const agent = await startAgent({ chatTemplate });
    const history = (reply: string) => [
      user('Hi'),
      { ...assistant('  Hello  '), reasoning: 'They greet.' } as ChatMessage,
      user('ok'),
      assistant(reply),
      user(SECOND),
    ];
    const { difference } = await agent.explain({ messages: history('ok') }, { messages: history('no') });
    expect(difference).toMatchObject({ first: { message: 3, text: /^ok/ }, second: { message: 3, text: /^no/ } });
  });
});

describe('a comparison of two requests', () => {
  const system = { role: 'system', content: 'You repair bicycles.' } as const;
  const request: ChatRequest = { messages: [system, user(FIRST), assistant('Walk.'), user(SECOND)] };

  it('names the message, the tool or the system prompt in which their prompts part', async () => {
    const agent = await startAgent();
    const compare = async (one: ChatRequest, other: ChatRequest) => {
      const { difference, sharedTokens, promptTokens, reason } = await agent.explain(one, other);
      expect(difference?.first.index).toBe(sharedTokens);
      expect(promptTokens[0]).toBeGreaterThan(sharedTokens);
      expect(reason).toContain(`differ at token ${sharedTokens}`);
      return difference;
    };
    const edited: ChatRequest = { messages: [system, user(FIRST), assistant('Ride.'), user(SECOND)] };
    expect(await compare(request, edited)).toMatchObject({
      first: { message: 2, text: expect.stringMatching(/^Walk/) },
      second: { message: 2, text: expect.stringMatching(/^Ride/) },
    });
    const tools = [find('chain'), find('wheel')];
    const others = [find('chain'), find('brake')];
    expect(await compare({ ...request, tools }, { ...request, tools: others })).toMatchObject({
      before: expect.stringContaining('"name": "'),
      first: { part: 'tool', tool: 'wheel' },
      second: { part: 'tool', tool: 'brake' },
    });
    const boats: ChatRequest = { messages: [{ ...system, content: 'You sell boats.' }, ...request.messages.slice(1)] };
    expect(await compare(request, boats)).toMatchObject({ first: { part: 'system', message: 0 } });
    const reasoning = await agent.explain(request, { ...request, tenant: 'other' });
    expect(reasoning.reason).toContain('tenants differ');
  });
});

describe('explain fails', () => {
  it('with a code if a request is wrong or aborted, or if the agent is closed', async () => {
    const agent = await startAgent();
    const request: ChatRequest = { messages: [user(FIRST)] };
    const aborted = { ...request, signal: AbortSignal.abort() };
    const wrong = { messages: [assistant('Hello')] };
    expect(await outcomeOf(agent.explain(wrong))).toBe('INVALID_ARGUMENT');
    expect(await outcomeOf(agent.explain(undefined as unknown as ChatRequest))).toBe('INVALID_ARGUMENT');
    expect(await outcomeOf(agent.explain({ ...request, tenat: 'a' } as ChatRequest))).toBe('INVALID_ARGUMENT');
    expect(await outcomeOf(agent.explain(request, wrong))).toBe('INVALID_ARGUMENT');
    expect(await outcomeOf(agent.explain(aborted))).toBe('ABORTED');
    expect(await outcomeOf(agent.explain(request, aborted))).toBe('ABORTED');
    const controller = new AbortController();
    const abortedLater = outcomeOf(agent.explain({ ...request, signal: controller.signal }));
    controller.abort();
    expect(await abortedLater).toBe('ABORTED');
    const closedLater = outcomeOf(agent.explain(request));
    await agent.close();
    expect(await closedLater).toBe('CLOSED');
    expect(await outcomeOf(agent.explain(request))).toBe('CLOSED');
  });
});
