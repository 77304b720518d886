// Requests share prefills that are in progress or were aborted, on every kind of memory. Each reply equals the reply of
// an agent that prefills everything.
import { type AgentServer, type Reply, type SessionOptions, subscribeDiagnostics } from 'llama-headstart';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { expectSameFirstToken } from '../helpers/first-token.js';
import { prefilledBy, user } from '../helpers/messages.js';
import type { MicroModelName } from '../helpers/models.js';
import { codeOf } from '../helpers/native.js';
import { variants } from '../helpers/soak.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
/** An upper bound of the tokens of a short message and the markup around it. */
const NEW_TOKENS = 60;
const HEAD = 'My chain broke. It was old and worn. '.repeat(12);
/** A lower bound of the tokens in {@link HEAD}. */
const HEAD_TOKENS = 256;

const CASES: [MicroModelName, 'unified' | 'split'][] = MEMORIES.flatMap((name) => [
  [name, 'unified'],
  [name, 'split'],
]);
const REPRESENTATIVES = variants(
  CASES,
  ([name, layout]) => layout === 'unified' || name === 'dense' || name === 'hybrid',
);

const OPTIONS = { maxTokens: 6, logProbabilities: 3 } as const;

function open(name: MicroModelName, kvLayout: 'unified' | 'split', settings: AgentSettings = {}) {
  return startAgent({ name, kvLayout, contextSize: 2048, batchSize: 64, nSeqMax: 6, ...EXACT, ...settings });
}

const ask = (agent: AgentServer, content: string, signal?: AbortSignal) =>
  agent.chat({ messages: [user(content)], ...OPTIONS, ...(signal && { signal }) }).result;

/** Expects that each reply begins as in an agent that prefills everything. */
async function expectAsCold(
  name: MicroModelName,
  kvLayout: 'unified' | 'split',
  replies: Record<string, Reply[]>,
  settings: AgentSettings = {},
) {
  const agent = await open(name, kvLayout, { nSeqMax: 1, maxMemoryBytes: 0, ...settings });
  for (const [content, all] of Object.entries(replies)) {
    const cold = await askCold(agent, content);
    for (const reply of all) {
      expectSameFirstToken(reply, cold);
    }
  }
}

async function askCold(agent: AgentServer, content: string, options: SessionOptions = {}): Promise<Reply> {
  const session = await agent.createSession({ ...options, templateCache: false });
  const reply = await session.send(content, OPTIONS);
  await session.close();
  return reply;
}

/** Resolves when `count` chunks of prompts were decoded. */
function chunks(count: number): Promise<void> {
  return new Promise((resolve) => {
    let seen = 0;
    const stop = subscribeDiagnostics('decode', ({ promptTokens }) => {
      seen += promptTokens > 1 ? 1 : 0;
      if (seen === count) {
        resolve();
      }
    });
    onTestFinished(stop);
  });
}

describe.each(REPRESENTATIVES)('with the %s model in the %s layout', (name, kvLayout) => {
  it('a request that comes again during its prefill shares this prefill, and gets its own reply', async () => {
    const agent = await open(name, kvLayout);
    await ask(agent, 'Hello'); // loads the template
    const begun = chunks(2);
    const first = ask(agent, HEAD);
    await begun;
    const again = await Promise.all([ask(agent, HEAD), ask(agent, HEAD)]);
    await expectAsCold(name, kvLayout, { [HEAD]: [await first, ...again] });
    expect(prefilledBy(await first)).toBeGreaterThan(HEAD_TOKENS);
    expect(Math.max(...again.map(prefilledBy))).toBeLessThan(NEW_TOKENS);
    expect(agent.health()).toMatchObject({ activeSessions: 0, queueLength: 0 });
  });

  it('requests that arrive together prefill their common head once', async () => {
    const agent = await open(name, kvLayout);
    const contents = ['And a brake?', 'What is a hub?', 'Thank you!', 'Hello'].map((end) => HEAD + end);
    const replies = await Promise.all(contents.map((content) => ask(agent, content)));
    const prefilled = replies.map(prefilledBy).sort((a, b) => a - b);
    expect(prefilled.pop()).toBeGreaterThan(HEAD_TOKENS);
    expect(Math.max(...prefilled)).toBeLessThan(NEW_TOKENS);
    await expectAsCold(
      name,
      kvLayout,
      Object.fromEntries(contents.map((content, at) => [content, [replies[at] as Reply]])),
    );
  });

  it('a request waits for its common head with a longer prompt, but not for the rest of that prompt', async () => {
    const agent = await open(name, kvLayout);
    const contents = [`${HEAD}And a brake? ${'It squeals. '.repeat(100)}`, `${HEAD}What is a hub?`];
    const ended: string[] = [];
    const send = async (content: string) => {
      const reply = await ask(agent, content);
      ended.push(content);
      return reply;
    };
    const [long, short] = (await Promise.all(contents.map(send))) as [Reply, Reply];
    expect(ended).toEqual([...contents].reverse());
    expect(prefilledBy(long) + prefilledBy(short)).toBeLessThan(long.usage.inputTokens + NEW_TOKENS);
    await expectAsCold(name, kvLayout, { [contents[1] as string]: [short] });
  });

  const starts = ['requests', 'sessions'] as const;
  it.each(variants(starts, (start) => start === 'requests' || kvLayout === 'split'))(
    '%s that arrive together with different templates prefill the common head of the templates once',
    async (start) => {
      const agent = await open(name, kvLayout, { reuse: 'nearest', cacheDir: await temporaryDirectory() });
      const prompts = ['chains', 'brakes', 'hubs'].map((part) => `${HEAD}You know all about ${part}.`);
      const askIn = async (content: string) => {
        if (start === 'requests') {
          return agent.chat({ messages: [{ role: 'system', content }, user('Hello')], ...OPTIONS }).result;
        }
        const session = await agent.createSession({ systemPrompt: content });
        return session.send('Hello', OPTIONS);
      };
      const replies = await Promise.all(prompts.map(askIn));
      const { decodedTokens } = agent.health();
      const own = replies.reduce(
        (sum, { usage }) => sum + usage.inputTokens + usage.outputTokens - HEAD_TOKENS,
        HEAD_TOKENS,
      );
      expect(decodedTokens).toBeLessThan(own + NEW_TOKENS);
      expect(agent.health()).toMatchObject({ activeSessions: 0, queueLength: 0 });
      const cold = await open(name, kvLayout, { nSeqMax: 1, maxMemoryBytes: 0 });
      for (const [index, systemPrompt] of prompts.entries()) {
        expectSameFirstToken(replies[index] as Reply, await askCold(cold, 'Hello', { systemPrompt }));
      }
    },
  );

  it('a request continues at a place where earlier requests branched off', async () => {
    const agent = await open(name, kvLayout);
    const contents = ['And a brake?', 'What is a hub?', 'Thank you!'].map((end) => HEAD + end.repeat(8));
    const replies: Reply[] = [];
    for (const content of contents) {
      replies.push(await ask(agent, content));
    }
    const cached = replies.map(({ usage }) => usage.cachedInputTokens);
    expect(cached[2]).toBeGreaterThan(HEAD_TOKENS);
    await expectAsCold(
      name,
      kvLayout,
      Object.fromEntries(contents.map((content, at) => [content, [replies[at] as Reply]])),
    );
  });

  it('the repeat of an aborted request continues where the prefill stopped', async () => {
    const count = 3;
    const agent = await open(name, kvLayout);
    await ask(agent, 'Hello');
    const controller = new AbortController();
    const aborted = codeOf(() => ask(agent, HEAD, controller.signal));
    await chunks(count);
    controller.abort();
    expect(await aborted).toBe('ABORTED');
    const { decodedTokens: before } = agent.health();
    const reply = await ask(agent, HEAD);
    expect(reply.usage.cachedInputTokens).toBeGreaterThanOrEqual(count * 64 - 1);
    expect(agent.health().decodedTokens - before).toBe(prefilledBy(reply) + reply.usage.outputTokens - 1);
    await expectAsCold(name, kvLayout, { [HEAD]: [reply] });
  });

  it('the repeat of a request that was aborted during the prefill of its template continues there', async () => {
    const agent = await open(name, kvLayout, { systemPrompt: HEAD, reuse: 'nearest' });
    const controller = new AbortController();
    const aborted = codeOf(() => ask(agent, 'Hello', controller.signal));
    await chunks(4);
    controller.abort();
    expect(await aborted).toBe('ABORTED');
    const reply = await ask(agent, 'Hello');
    expect(reply.usage.cachedInputTokens).toBeGreaterThanOrEqual(3 * 64);
    await expectAsCold(name, kvLayout, { Hello: [reply] }, { systemPrompt: HEAD });
  });
});

describe.each(['hybrid', 'recurrent', 'sliding-window'] as const)('with the %s model', (name) => {
  it('an evicted conversation whose last reply was rewritten prefills only this reply and the new message', async () => {
    const agent = await open(name, 'unified', { nSeqMax: 1 });
    const messages = [user(HEAD)];
    await agent.chat({ messages, ...OPTIONS }).result;
    messages.push({ role: 'assistant', content: 'Buy a new one.' }, user('Where?'));
    await agent.chat({ messages, ...OPTIONS }).result;
    await ask(agent, 'Something else. '.repeat(30)); // takes the only sequence
    messages.push({ role: 'assistant', content: 'In a shop.' }, user('Thank you'));
    const reply = await agent.chat({ messages, ...OPTIONS }).result;
    expect(prefilledBy(reply)).toBeLessThan(NEW_TOKENS);
    const cold = await open(name, 'unified', { nSeqMax: 1 });
    expectSameFirstToken(reply, await cold.chat({ messages, ...OPTIONS }).result);
  });
});

it('requests never wait for the prompt of a session that waits for a sequence', async () => {
  const agent = await open('hybrid', 'unified', { nSeqMax: 1, contextSize: 8192 });
  const controller = new AbortController();
  const running = codeOf(() => ask(agent, HEAD.repeat(20), controller.signal));
  await vi.waitUntil(() => agent.health().activeSessions > 0, { interval: 1 });
  const request = ask(agent, HEAD);
  await vi.waitUntil(() => agent.health().queueLength > 0, { interval: 1 });
  const session = agent.createSession();
  await vi.waitUntil(() => agent.health().queueLength > 1, { interval: 1 });
  controller.abort();
  expect(await running).toBe('ABORTED');
  await Promise.all([request, session]);
  expect(agent.health()).toMatchObject({ activeSessions: 0, queueLength: 0 });
});
