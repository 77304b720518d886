// Faults around requests: clients that leave at any stage, histories that become shorter, budgets of zero, and files that
// change while they are read. The next reply is always that of a cold agent, and nothing leaks.
import { cp, readdir, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import type { AgentServer, ChatMessage, ChatRequest, Reply } from 'llama-headstart';
import { describe, expect, it, vi } from 'vitest';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { ALWAYS, ask, coldReply, conversationsIn, LONG, startSaving } from '../helpers/conversations.js';
import { lamp } from '../helpers/lamp.js';
import { user } from '../helpers/messages.js';
import { codeOf } from '../helpers/native.js';
import { variants } from '../helpers/soak.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
const REPRESENTATIVE = variants(MEMORIES, (name) => name === 'dense' || name === 'hybrid');

/** Runs a request whose client leaves at one stage. */
type Leave = (agent: AgentServer, request: ChatRequest) => Promise<unknown>;

/** Aborts a request when `abortAt` calls its argument. */
const aborted =
  (abortAt: (abort: () => void, agent: AgentServer) => Partial<ChatRequest>): Leave =>
  async (agent, request) => {
    const controller = new AbortController();
    const more = abortAt(() => controller.abort(), agent);
    expect(await codeOf(() => agent.chat({ ...request, ...more, signal: controller.signal }).result)).toBe('ABORTED');
  };

/** Leaves the stream at the first part for which `isLast` is true. */
const leaving =
  (isLast: (part: { type: string }, agent: AgentServer) => boolean, more: Partial<ChatRequest> = {}): Leave =>
  async (agent, request) => {
    for await (const part of agent.chat({ ...request, ...more })) {
      if (isLast(part, agent)) {
        break;
      }
    }
  };

const LAMP = { toolChoice: 'required', maxParallelTools: 1, maxSteps: 2, maxTokens: 80 } as const;

const STAGES: Record<string, Leave> = {
  'while its prompt is rendered': aborted((abort) => {
    queueMicrotask(abort);
    return {};
  }),
  'when its prompt is known': aborted((abort) => ({ onPrompt: abort })),
  'while it waits for a sequence': async (agent, request) => {
    const controllers = [new AbortController(), new AbortController()];
    const [running, waiting] = controllers.map(({ signal }, index) => {
      const messages = [user(`${index} ${LONG.repeat(4)}`)];
      return codeOf(() => agent.chat({ ...(index === 0 ? { messages } : request), signal }).result);
    });
    await vi.waitUntil(() => agent.health().queueLength > 0, { interval: 1 });
    controllers[1]?.abort();
    expect(await waiting).toBe('ABORTED');
    controllers[0]?.abort();
    await running;
  },
  'during the prefill': aborted((abort) => ({ onPrefill: abort })),
  'at the first part': leaving(() => true),
  'while its tool runs': aborted((abort) => ({ ...LAMP, tools: [lamp(abort)] })),
  'while the turn waits for its reader': leaving(
    (_, agent) => agent.health().activeSessions === 0, // 64 parts wait to be read
    { maxTokens: 150 },
  ),
  'before the last part': leaving(({ type }) => type === 'finish'),
};

describe.each(variants(MEMORIES, (name) => name === 'hybrid'))('a client that leaves, with the %s model', (name) => {
  it.each(Object.keys(STAGES))('%s leaves nothing behind', async (stage) => {
    const cacheDir = await temporaryDirectory();
    const settings: AgentSettings = { name, nSeqMax: 1, batchSize: 64 };
    const agent = await startSaving(cacheDir, settings);
    const messages: ChatMessage[] = [];
    await ask(agent, messages, LONG);
    await STAGES[stage]?.(agent, { messages: [...messages, user(`Go on. ${LONG}`)] });
    await agent.flush(); // the eviction of the first conversation saves it
    expect(agent.health()).toMatchObject({ activeSessions: 0, queueLength: 0, states: { transferBytes: 0 } });
    const { text } = await ask(agent, [...messages], 'And now?');
    expect(text).toBe(await coldReply(agent, { name }, messages, 'And now?'));
    await agent.close();
    expect((await readdir(cacheDir)).filter((file) => file.endsWith('.tmp'))).toEqual([]);
  });
});

describe.each(REPRESENTATIVE)('with the %s model', (name) => {
  it('a history that becomes shorter gets the reply of a cold agent, also after a restart', async () => {
    const cacheDir = await temporaryDirectory();
    const first = await startSaving(cacheDir, { name });
    const messages: ChatMessage[] = [];
    for (const content of [LONG, 'What does it cost?', 'And the labor?']) {
      await ask(first, messages, content);
    }
    const shorter = messages.slice(0, 2);
    const expected = await coldReply(first, { name }, shorter, 'Hello');
    expect((await ask(first, [...shorter], 'Hello')).text).toBe(expected);
    await first.close();
    const second = await startSaving(cacheDir, { name });
    expect((await ask(second, [...shorter], 'Hello')).text).toBe(expected);
    expect((await ask(second, [], 'Hello')).text).toBe(await coldReply(second, { name }, [], 'Hello'));
  });

  it('budgets of zero cost only the reuse', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await startAgent({
      ...EXACT,
      name,
      cacheDir,
      nSeqMax: 1,
      contextSize: 2048,
      maxMemoryBytes: 0,
      maxResidentTemplates: 0,
      maxResidentCells: 0,
      maxDiskBytes: 0,
      maxEntries: 0,
      maxAgeMs: 0,
      conversations: { ...ALWAYS, maxBytes: 0, maxBytesPerHour: 0, maxAgeMs: 0, idleMs: 0 },
    });
    const conversations: ChatMessage[][] = [[], []];
    for (const content of [LONG, 'And now?']) {
      for (const messages of conversations) {
        const expected = await coldReply(agent, { name }, messages, content);
        expect((await ask(agent, messages, content)).text).toBe(expected);
      }
    }
    expect(agent.health()).toMatchObject({ states: { bytes: 0, transferBytes: 0 }, conversations: { bytes: 0 } });
    await agent.close();
    expect(await conversationsIn(cacheDir)).toEqual([]);
  });
});

it.each<[string, (path: string) => Promise<unknown>]>([
  ['deleted', (path) => rm(path)],
  ['truncated', (path) => truncate(path, 4000)],
  ['replaced by the file of another conversation', (path) => cp(`${path}.other`, path)],
])('a file of a conversation that is %s while it is read costs only the reuse', async (_, change) => {
  const saved = await temporaryDirectory();
  const messages: ChatMessage[] = [];
  const agent = await startSaving(saved);
  await ask(agent, messages, LONG);
  const expected = await coldReply(agent, {}, messages, 'And now?');
  await agent.close();
  const other = await temporaryDirectory();
  const second = await startSaving(other);
  await ask(second, [], `Something else. ${LONG}`);
  await second.close();
  const [[name], [otherName]] = [await conversationsIn(saved), await conversationsIn(other)];
  const replies: Reply[] = [];
  for (const ticks of [0, 3, 6]) {
    const cacheDir = await temporaryDirectory();
    await cp(saved, cacheDir, { recursive: true });
    const path = join(cacheDir, name as string);
    await cp(join(other, otherName as string), `${path}.other`);
    const reading = await startSaving(cacheDir);
    const reply = ask(reading, [...messages], 'And now?');
    for (let tick = 0; tick < ticks; tick++) {
      await nextTick();
    }
    await change(path);
    replies.push(await reply);
    await reading.close();
  }
  expect(replies.map(({ text }) => text)).toEqual(replies.map(() => expected));
});
