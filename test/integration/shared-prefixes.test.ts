// A session reuses the prefix that its conversation shares with the conversation of another session. It never reuses
// tokens of another tenant, or tokens that were computed with other adapters. Its replies are those of a session that
// prefills everything.
import {
  AgentServer,
  type ChatMessage,
  type MessageInput,
  type SessionOptions,
  subscribeDiagnostics,
} from 'llama-headstart';
import { PromptsInProgress } from 'llama-headstart/internal';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type AgentSettings, agentOptions, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { someTokens } from '../helpers/lab.js';
import { writeLora } from '../helpers/loras.js';
import type { MicroModelName } from '../helpers/models.js';
import { openEngine } from '../helpers/open-engine.js';
import { variants } from '../helpers/soak.js';
import { iterate, outcomeOf } from '../helpers/turns.js';

const SETTINGS = { ...EXACT, batchSize: 128 } as const;
const HISTORY: MessageInput[] = [
  { role: 'user', content: `My chain broke. ${'It was old and worn. '.repeat(20)}` },
  { role: 'assistant', content: 'A new one costs twenty euros.' },
];
/** A lower bound of the tokens in {@link HISTORY}. */
const HISTORY_TOKENS = 120;
/** An upper bound of the tokens of a reply, a short message and the markup around them. */
const NEW_TOKENS = 60;
const SHORT = { maxTokens: 8 };

/** Opens a session that continues from `messages`, and sends a message. */
async function sendAfter(
  agent: AgentServer,
  messages: readonly (MessageInput | ChatMessage)[],
  content: string,
  options: SessionOptions = {},
) {
  const session = await agent.createSession({ messages: messages as MessageInput[], ...options });
  const { text, usage } = await session.send(content, SHORT);
  const { inputTokens, cachedInputTokens: cached } = usage;
  return { session, text, cached, prefilled: inputTokens - cached };
}

/** Runs turns of other sessions, so that the sequences of earlier sessions are evicted. */
async function runOthers(agent: AgentServer, count: number): Promise<void> {
  for (let number = 0; number < count; number++) {
    await sendAfter(agent, [], `${number}. ${'Something else. '.repeat(20)}`, { systemPrompt: `Number ${number}.` });
  }
}

/**
 * Starts an agent for all tests of a `describe`. Returns a function that opens a session and returns the session's
 * reply. The session reuses no tokens of other sessions.
 */
function coldAgent(settings: AgentSettings) {
  let agent: AgentServer;
  beforeAll(async () => {
    agent = await AgentServer.initialize(agentOptions({ ...SETTINGS, ...settings }));
  });
  afterAll(() => agent.close());
  return async (messages: readonly (MessageInput | ChatMessage)[], content: string) => {
    const { session, text, cached } = await sendAfter(agent, messages, content, { templateCache: false });
    await session.close();
    expect(cached).toBe(session.report.templateTokens);
    return text;
  };
}

/** Each row: the state of the first session, and how many other sessions run before the second one starts. */
const STATES: [title: string, settings: AgentSettings, others: number][] = [
  ['is idle', { nSeqMax: 4 }, 0],
  ['has the only sequence', { nSeqMax: 1 }, 0],
  ['was evicted', { nSeqMax: 2 }, 2],
];

describe.each(['unified', 'split'] as const)('in the %s layout', (kvLayout) => {
  const coldText = coldAgent({ kvLayout });

  it.each(STATES)('a session reuses a prefix that it shares with a session that %s', async (_, state, others) => {
    const agent = await startAgent({ ...SETTINGS, kvLayout, ...state });
    const first = await sendAfter(agent, HISTORY, 'And a brake?');
    expect(first.prefilled).toBeGreaterThan(HISTORY_TOKENS);
    await runOthers(agent, others);
    const second = await sendAfter(agent, HISTORY, 'What is a hub?');
    expect(second.prefilled).toBeLessThan(NEW_TOKENS);
    expect(second.text).toBe(await coldText(HISTORY, 'What is a hub?'));
    const before = first.session.messages;
    const { text, usage } = await first.session.send('Thank you!', SHORT);
    expect(usage.inputTokens - usage.cachedInputTokens).toBeLessThan(NEW_TOKENS);
    expect(text).toBe(await coldText(before, 'Thank you!'));
  });

  it.each([4, 2, 1])('a session uses no tokens of other tenants (%i sequences)', async (nSeqMax) => {
    const agent = await startAgent({ ...SETTINGS, kvLayout, nSeqMax });
    for (const [index, tenant] of ['one', 'two', undefined].entries()) {
      const { session, prefilled } = await sendAfter(agent, HISTORY, `Number ${index}`, { ...(tenant && { tenant }) });
      expect(session.report.cache).toBe('miss');
      expect(prefilled).toBeGreaterThan(HISTORY_TOKENS);
    }
  });

  it('a session uses no tokens that were computed with other adapters', async () => {
    const agent = await startAgent({ ...SETTINGS, kvLayout, nSeqMax: 2 });
    const lora = await writeLora(await temporaryDirectory(), 'one', { seed: 1 }, agent.model.info.embeddingSize);
    const { session } = await sendAfter(agent, HISTORY, 'And a brake?');
    await runOthers(agent, 1); // one session stays idle, and one is evicted
    await agent.setLoras([{ source: lora, scale: 4 }]);
    const second = await sendAfter(agent, HISTORY, 'And a brake?');
    expect(second.prefilled).toBeGreaterThan(HISTORY_TOKENS);
    const adapted = await startAgent({ ...SETTINGS, kvLayout, loras: [{ source: lora, scale: 4 }] });
    expect(second.text).toBe((await sendAfter(adapted, HISTORY, 'And a brake?')).text);
    await agent.setLoras([]);
    const before = session.messages;
    expect((await session.send('Thank you!', SHORT)).text).toBe(await coldText(before, 'Thank you!'));
  });
});

describe.each<MicroModelName>(['hybrid', 'sliding-window', 'recurrent'])(
  'with the %s model, whose memory cannot be trimmed',
  (name) => {
    const coldText = coldAgent({ name });

    const states = variants(STATES, ([title]) => name === 'hybrid' || title === 'was evicted');
    it.each(states)('a session continues from a checkpoint of a session that %s', async (_, state, others) => {
      const agent = await startAgent({ ...SETTINGS, name, ...state });
      const first = await sendAfter(agent, [], HISTORY[0]?.content as string);
      const before = first.session.messages;
      await runOthers(agent, others);
      const second = await sendAfter(agent, before, 'What is a hub?');
      expect(second.prefilled).toBeLessThan(NEW_TOKENS);
      expect(second.text).toBe(await coldText(before, 'What is a hub?'));
      const { text, usage } = await first.session.send('Thank you!', SHORT);
      expect(usage.inputTokens - usage.cachedInputTokens).toBeLessThan(NEW_TOKENS);
      expect(text).toBe(await coldText(before, 'Thank you!'));
    });
  },
);

describe('with a unified KV cache', () => {
  const coldText = coldAgent({});

  it('a session reuses the cells of another session that is replying', async () => {
    const agent = await startAgent({ ...SETTINGS, nSeqMax: 2 });
    const first = await agent.createSession({ messages: HISTORY });
    const stream = iterate(first.stream('And a brake?', { maxTokens: 200 }));
    await stream.next();
    const second = await sendAfter(agent, HISTORY, 'What is a hub?');
    expect(second.prefilled).toBeLessThan(NEW_TOKENS);
    expect(second.text).toBe(await coldText(HISTORY, 'What is a hub?'));
    await stream.return?.();
  });

  it('sessions that start at the same time with the same conversation prefill it only once', async () => {
    const agent = await startAgent({ ...SETTINGS, nSeqMax: 5, contextSize: 1024 });
    const contents = ['And a brake?', 'What is a hub?', 'Thank you!', 'Hello'];
    const turns = await Promise.all(contents.map((content) => sendAfter(agent, HISTORY, content)));
    const prefilled = turns.map((turn) => turn.prefilled).sort((a, b) => a - b);
    expect(prefilled.pop()).toBeGreaterThan(HISTORY_TOKENS);
    expect(Math.max(...prefilled)).toBeLessThan(NEW_TOKENS);
    for (const [index, { text }] of turns.entries()) {
      expect(text).toBe(await coldText(HISTORY, contents[index] as string));
    }
  });

  it('sessions that wait for the prefill of an aborted session reuse the tokens that it computed', async () => {
    const agent = await startAgent({ ...SETTINGS, nSeqMax: 4, batchSize: 64 });
    const controller = new AbortController();
    const session = await agent.createSession({ messages: HISTORY });
    const aborted = outcomeOf(session.send('And a brake?', { ...SHORT, signal: controller.signal }));
    const stop = subscribeDiagnostics('decode', ({ promptTokens }) => promptTokens > 1 && controller.abort());
    onTestFinished(stop);
    const contents = ['What is a hub?', 'Thank you!'];
    const turns = await Promise.all(contents.map((content) => sendAfter(agent, HISTORY, content)));
    expect(await aborted).toBe('ABORTED');
    expect(turns.reduce((sum, { prefilled }) => sum + prefilled, 0)).toBeLessThan(2 * HISTORY_TOKENS + 2 * NEW_TOKENS);
    for (const [index, { text }] of turns.entries()) {
      expect(text).toBe(await coldText(HISTORY, contents[index] as string));
    }
    expect(agent.health()).toMatchObject({ activeSessions: 0, queueLength: 0 });
  });

  it('a session that shares only a few tokens more than the template starts from the template', async () => {
    const agent = await startAgent({ ...SETTINGS, nSeqMax: 4 });
    await sendAfter(agent, [], 'My chain broke. What does a new one cost?');
    const { session, cached } = await sendAfter(agent, [], 'My chain broke. Help me!');
    expect(cached).toBe(session.report.templateTokens);
  });

  it('a session with `templateCache: false` prefills everything', async () => {
    const agent = await startAgent({ ...SETTINGS, nSeqMax: 1 });
    await sendAfter(agent, HISTORY, 'And a brake?');
    const { prefilled } = await sendAfter(agent, HISTORY, 'And a brake?', { templateCache: false });
    expect(prefilled).toBeGreaterThan(HISTORY_TOKENS);
  });
});

describe('a prompt', () => {
  /** Returns whether a prompt waits for an earlier prompt with which it shares `shared` tokens. */
  const waits = async ({ shared = 200, available = 0, decoded = 0, group = 'a' }) => {
    const { engine } = await openEngine({ maxSequences: 1 });
    const prompts = new PromptsInProgress();
    const terms = { available, minimumGain: 16, needsCut: false };
    const sequence = engine.createSequence();
    sequence.group = 'a';
    const earlier = someTokens(2000, 1);
    prompts.begin(sequence, earlier, 0);
    sequence.append(earlier, 0, decoded);
    const tokens = Int32Array.of(...someTokens(shared, 1), 1, 1, 1);
    const waiting = prompts.worthWaitingFor({ group, tokens, canTrim: true }, terms);
    sequence.append(earlier, decoded, Math.max(decoded, shared)); // the wait ends when the shared tokens are decoded
    await waiting;
    expect(prompts.worthWaitingFor({ group, tokens, canTrim: true }, terms)).toBeUndefined();
    return waiting !== undefined;
  };

  it('waits until an earlier prompt has decoded their common beginning', async () => {
    expect(await waits({ shared: 200 })).toBe(true);
    expect(await waits({ shared: 1000, decoded: 900, available: 900 })).toBe(true);
    expect(await waits({ shared: 1000, decoded: 990, available: 990 })).toBe(false);
    expect(await waits({ shared: 200, group: 'b' })).toBe(false);
  });

  it('does not wait if it already has most of the common beginning, or if the common beginning is decoded', async () => {
    expect(await waits({ shared: 300, available: 150 })).toBe(true);
    expect(await waits({ shared: 300, available: 151 })).toBe(false);
    expect(await waits({ shared: 300, decoded: 300 })).toBe(false);
  });
});
