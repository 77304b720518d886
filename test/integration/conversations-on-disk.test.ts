// Conversations are saved in the cache directory. After a restart, the next turn continues from its file.
import { readFileSync } from 'node:fs';
import { readdir, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { AgentServer, ChatMessage } from 'llama-headstart';
import { defaultConversationBytes } from 'llama-headstart/internal';
import { SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { ALWAYS, ask, coldReply, conversationsIn, LONG, startSaving } from '../helpers/conversations.js';
import { vendoredTemplate } from '../helpers/lamp.js';
import { likelyCalls } from '../helpers/likely-text.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
const UNTRIMMABLE = ['sliding-window', 'recurrent', 'hybrid'] as const;

/** A chat template that opens each reply with a text that later prompts do not repeat. */
const REWRITING = vendoredTemplate('Qwen3.5-4B');

/** Starts an agent that saves conversations in `cacheDir`. */
describe.each(MEMORIES)('after a restart with the %s model', (name) => {
  it('the next turn reuses 95 % of the conversation, and gets the reply of a cold agent', async () => {
    const cacheDir = await temporaryDirectory();
    const messages: ChatMessage[] = [];
    const first = await startSaving(cacheDir, { name });
    await ask(first, messages, LONG);
    const { usage } = await ask(first, messages, 'What does a new one cost?');
    await first.close();
    const second = await startSaving(cacheDir, { name });
    expect(second.health().conversations).toMatchObject({ count: 1, maxBytes: ALWAYS.maxBytes });
    const next = await ask(second, [...messages], 'And the labor?');
    expect(next.usage.cachedInputTokens).toBeGreaterThanOrEqual(0.95 * (usage.inputTokens + usage.outputTokens));
    expect(next.cache).toMatchObject({ source: 'disk' });
    expect(next.text).toBe(await coldReply(second, { name }, messages, 'And the labor?'));
  });

  it('a new session that begins with the messages of an earlier session continues from its file', async () => {
    const cacheDir = await temporaryDirectory();
    const first = await startSaving(cacheDir, { name });
    const session = await first.createSession();
    await session.send(LONG, { maxTokens: 12 });
    const { messages } = session;
    await first.close();
    const second = await startSaving(cacheDir, { name });
    const { usage } = await (await second.createSession({ messages })).send('And now?', { maxTokens: 1 });
    expect(usage.cachedInputTokens).toBeGreaterThan(100);
  });
});

/** The reasons for a save. Each row: the test title, more settings, and the event that causes the save. */
const SAVES: [string, AgentSettings, (agent: AgentServer) => Promise<unknown>][] = [
  ['a close', {}, async () => undefined],
  ['an eviction', { nSeqMax: 1 }, (agent) => ask(agent, [], 'Something else')],
  [
    'an idle time',
    { conversations: { ...ALWAYS, idleMs: 1 } },
    (agent) => expect.poll(() => agent.health().conversations.count).toBe(1),
  ],
];

describe('with a chat template that rewrites the reply, the next turn continues from the last message', () => {
  const rows = UNTRIMMABLE.flatMap((name) =>
    (name === 'hybrid' ? SAVES : SAVES.slice(0, 1)).map((save) => [name, ...save] as const),
  );

  it.each(rows)('with the %s model, after %s and a restart', async (name, _, more, end) => {
    const settings: AgentSettings = { name, chatTemplate: REWRITING };
    const cacheDir = await temporaryDirectory();
    const first = await startSaving(cacheDir, { ...settings, ...more });
    const messages: ChatMessage[] = [];
    const { usage } = await ask(first, messages, LONG);
    await end(first);
    await first.close();
    const second = await startSaving(cacheDir, settings);
    const next = await ask(second, [...messages], 'And now?');
    expect(next.usage.cachedInputTokens).toBeGreaterThanOrEqual(0.95 * usage.inputTokens);
    expect(next.text).toBe(await coldReply(second, settings, messages, 'And now?'));
  });
});

it.each(['recurrent', 'hybrid'] as const)(
  'a client may leave out the calls that the agent ran, with the %s model',
  async (name) => {
    const cacheDir = await temporaryDirectory();
    const look = { name: 'look', description: 'Looks.', execute: () => 'The chain is oiled.' };
    const settings: AgentSettings = { name, chatTemplate: vendoredTemplate('Qwen-Qwen3-0.6B'), tools: [look] };
    const first = await startSaving(cacheDir, settings);
    const messages: ChatMessage[] = [];
    const request = {
      sampling: await likelyCalls(),
      reasoning: false,
      maxParallelTools: 1,
      maxSteps: 2,
      maxTokens: 60,
    };
    const { toolResults, usage } = await ask(first, messages, LONG, request);
    expect(toolResults).not.toEqual([]);
    await first.close();
    const second = await startSaving(cacheDir, settings);
    const next = await ask(second, messages, 'And now?', { reasoning: false });
    expect(next.usage.cachedInputTokens).toBeGreaterThan(300);
    expect(next.usage.cachedInputTokens).toBeLessThan(usage.inputTokens);
  },
);

describe('a conversation on disk', () => {
  it('contains its replies as they were sampled, so that the next prompt after a restart has the same tokens', async () => {
    const cacheDir = await temporaryDirectory();
    const settings: AgentSettings = {
      name: 'hybrid',
      sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 1 },
    };
    const messages: ChatMessage[] = [];
    const first = await startSaving(cacheDir, settings);
    const owner = { tenant: 'a', maxTokens: 40 };
    await ask(first, messages, LONG, owner);
    await first.close();
    const inputTokens: number[] = [];
    const cachedTokens: number[] = [];
    for (const directory of [cacheDir, await temporaryDirectory()]) {
      const agent = await startSaving(directory, settings);
      const { usage } = await ask(agent, [...messages], 'And now?', owner);
      inputTokens.push(usage.inputTokens);
      cachedTokens.push(usage.cachedInputTokens);
      await agent.close();
    }
    expect(inputTokens[0]).not.toBe(inputTokens[1]); // without the file, the reply has its rendered tokens
    expect(cachedTokens[0]).toBeGreaterThan((inputTokens[0] as number) - 20);
  });

  it('is replaced by its newer state, also after a restart, and by no other conversation', async () => {
    const cacheDir = await temporaryDirectory();
    const messages: ChatMessage[] = [];
    const names = new Set<string>();
    for (const content of [LONG, LONG, LONG]) {
      const agent = await startSaving(cacheDir);
      await ask(agent, messages, content);
      await agent.close();
      const [name, ...others] = await conversationsIn(cacheDir);
      expect(others).toEqual([]);
      names.add(name as string);
    }
    expect(names.size).toBe(3);
    const agent = await startSaving(cacheDir);
    await ask(agent, [], `Something else. ${LONG}`);
    await agent.close();
    expect(await conversationsIn(cacheDir)).toHaveLength(2);
  });

  it('is not saved again before it has grown by a quarter', async () => {
    const cacheDir = await temporaryDirectory();
    const messages: ChatMessage[] = [];
    const files: string[][] = [];
    for (const content of [LONG.repeat(2), 'A bit more.', LONG]) {
      const agent = await startSaving(cacheDir);
      await ask(agent, messages, content);
      await agent.close();
      files.push(await conversationsIn(cacheDir));
    }
    expect(files[1]).toEqual(files[0]);
    expect(files[2]).not.toEqual(files[1]);
  });

  it('is not saved if a prefill is faster than the write and the read, or beyond a budget', async () => {
    const limits = [
      { ...ALWAYS, minSpeedup: 1000 },
      { ...ALWAYS, maxBytes: 0 },
      { ...ALWAYS, maxBytes: 1000 },
      { ...ALWAYS, maxBytesPerHour: 1000 },
    ];
    for (const conversations of limits) {
      const cacheDir = await temporaryDirectory();
      const agent = await startSaving(cacheDir, { conversations });
      await ask(agent, [], LONG);
      await agent.close();
      expect(await conversationsIn(cacheDir)).toEqual([]);
    }
  });

  it('is off by default', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await startAgent({ cacheDir });
    await ask(agent, [], LONG);
    expect(agent.health().conversations).toEqual({ count: 0, bytes: 0, maxBytes: 0 });
    await agent.close();
    expect(await conversationsIn(cacheDir)).toEqual([]);
  });

  it('is deleted seven days after its last use, but a template is not', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await startSaving(cacheDir);
    await ask(agent, [], LONG);
    await agent.close();
    const weekAgo = new Date(Date.now() - 7 * 24 * 3_600_000 - 1000);
    const names = (await readdir(cacheDir)).filter((name) => name.endsWith('.kv'));
    expect(names).toHaveLength(2);
    for (const name of names) {
      await utimes(join(cacheDir, name), weekAgo, weekAgo);
    }
    await (await startSaving(cacheDir)).close();
    expect((await readdir(cacheDir)).filter((name) => name.endsWith('.kv'))).toEqual([
      expect.stringMatching(/^template_/),
    ]);
  });

  it('is deleted first if it was used least recently, and never counts as a template', async () => {
    const cacheDir = await temporaryDirectory();
    const conversations = [[], []] as ChatMessage[][];
    const first = await startSaving(cacheDir);
    for (const messages of conversations) {
      await ask(first, messages, `${conversations.indexOf(messages)} ${LONG}`);
    }
    await first.close();
    const { bytes } = (await startSaving(cacheDir)).health().conversations;
    const second = await startSaving(cacheDir, { conversations: { ...ALWAYS, maxBytes: Math.ceil(1.2 * bytes) } });
    await ask(second, conversations[0] as ChatMessage[], 'And now?', { maxTokens: 1 }); // a use
    const other: ChatMessage[] = [];
    await ask(second, other, `2 ${LONG}`);
    expect(second.getTemplateCacheStats()).toMatchObject({ entries: 1, saves: 0, evictions: { disk: 0 } });
    expect(await second.templateCache.list()).toHaveLength(1);
    await second.close();
    const third = await startSaving(cacheDir);
    expect(third.health().conversations.count).toBe(2);
    const reused = [];
    for (const messages of [...conversations, other]) {
      const { usage } = await ask(third, messages, 'Thanks', { maxTokens: 1 });
      reused.push(usage.cachedInputTokens / usage.inputTokens > 0.9);
    }
    expect(reused).toEqual([true, false, true]);
  });

  it('is never deleted to make space for a one-off request', async () => {
    const cacheDir = await temporaryDirectory();
    const messages: ChatMessage[] = [];
    const first = await startSaving(cacheDir);
    await ask(first, messages, LONG);
    await ask(first, messages, 'What does a new one cost?');
    await first.close();
    const names = await conversationsIn(cacheDir);
    const maxBytes = Math.ceil(1.5 * (await stat(join(cacheDir, names[0] as string))).size);
    const second = await startSaving(cacheDir, { conversations: { ...ALWAYS, maxBytes } });
    await ask(second, [], `Something else. ${LONG}`);
    await second.close();
    expect(await conversationsIn(cacheDir)).toEqual(names);
  });

  it('has the format and the permissions of a template, and no name of a tenant or affinity', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await startSaving(cacheDir);
    await ask(agent, [], LONG, { tenant: 'Tenant A', affinity: 'Affinity B' });
    await agent.close();
    const [name] = await conversationsIn(cacheDir);
    const path = join(cacheDir, name as string);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const state = await SequenceState.readFile(path);
    expect(state.metadata).toMatchObject({ format: 1, key: expect.any(String), components: expect.any(Object) });
    expect(JSON.stringify(state.metadata)).not.toMatch(/Tenant A|Affinity B/);
    state.close();
    for (const file of await readdir(cacheDir)) {
      expect(readFileSync(join(cacheDir, file), 'latin1')).not.toMatch(/Tenant A|Affinity B/);
    }
  });

  it('may take 8 GiB or a tenth of the free disk space by default', async () => {
    const bytes = await defaultConversationBytes(await temporaryDirectory(), 0);
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThanOrEqual(8 * 1024 ** 3);
    const agent = await startSaving(await temporaryDirectory(), { conversations: true });
    expect(agent.health().conversations.maxBytes).toBeGreaterThan(0.5 * bytes);
  });
});
