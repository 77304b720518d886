// `agent.forget` deletes conversations at once: idle sequences, states in memory, and files.
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import type { AgentServer, ChatMessage, ForgetOptions } from 'llama-headstart';
import { describe, expect, it, vi } from 'vitest';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { ALWAYS, ask, conversationsIn, LONG } from '../helpers/conversations.js';
import { codeOf } from '../helpers/native.js';

function start(cacheDir: string, settings: AgentSettings = {}): Promise<AgentServer> {
  return startAgent({ ...EXACT, cacheDir, conversations: ALWAYS, ...settings });
}

/** The owners of three conversations. */
const OWNERS = [
  { tenant: 'a', affinity: '1' },
  { tenant: 'a', affinity: '2' },
  { tenant: 'b', affinity: '1' },
] as const;

const KINDS: [string, ForgetOptions, number[]][] = [
  ['of a tenant', { tenant: 'a' }, [0, 1]],
  ['with an affinity', { affinity: '1' }, [0, 2]],
  ['of a tenant with an affinity', { tenant: 'a', affinity: '1' }, [0]],
  ['of nobody', { tenant: 'c' }, []],
];

/** Returns the indexes of the conversations whose next request must prefill all their messages. */
async function lost(agent: AgentServer, conversations: readonly ChatMessage[][]): Promise<number[]> {
  const indexes: number[] = [];
  for (const [index, owner] of OWNERS.entries()) {
    const messages = [...(conversations[index] as ChatMessage[])];
    const { usage } = await ask(agent, messages, 'And now?', { maxTokens: 1, ...owner });
    if (usage.cachedInputTokens < 0.8 * usage.inputTokens) {
      indexes.push(index);
    }
  }
  return indexes;
}

describe('conversations to forget', () => {
  it.each(KINDS)('%s leave the KV cache, memory and the disk', async (_, options, expected) => {
    const cacheDir = await temporaryDirectory();
    const conversations: ChatMessage[][] = [[], [], []];
    const agent = await start(cacheDir, { nSeqMax: 2, contextSize: 2048 }); // one of the three conversations is evicted
    for (const [index, owner] of OWNERS.entries()) {
      await ask(agent, conversations[index] as ChatMessage[], `${index} ${LONG}`, owner);
      await ask(agent, conversations[index] as ChatMessage[], `${index} ${LONG}`, owner);
    }
    await agent.flush();
    const { sequences, states, files } = await agent.forget(options);
    expect(sequences + states > 0).toBe(expected.length > 0);
    expect(files).toBe(expected.includes(0) ? 1 : 0);
    expect(await lost(agent, conversations)).toEqual(expected);
    await agent.close();
  });

  it('are deleted from a directory whose agent keeps no conversations', async () => {
    const cacheDir = await temporaryDirectory();
    const first = await start(cacheDir);
    await ask(first, [], LONG, OWNERS[0]);
    await ask(first, [], `Hello. ${LONG}`, OWNERS[2]);
    await first.close();
    const [name] = await conversationsIn(cacheDir);
    await writeFile(join(cacheDir, `${name}.corrupt`), 'damaged');
    const second = await start(cacheDir, { conversations: false });
    expect(await second.forget({ tenant: 'a' })).toEqual({ sequences: 0, states: 0, files: 1 });
    expect(await conversationsIn(cacheDir)).toHaveLength(1);
    const lines = (await readFile(join(cacheDir, 'conversations-1.jsonl'), 'utf8')).trim().split('\n');
    expect(lines).toHaveLength(1);
    expect(await readdir(cacheDir)).not.toContainEqual(expect.stringMatching(/\.corrupt$/));
  });

  it('do not come back from a save in progress', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await start(cacheDir, { nSeqMax: 1 });
    for (let ticks = 0; ticks < 12; ticks++) {
      await ask(agent, [], `${ticks} ${LONG}`, OWNERS[0]);
      const other = ask(agent, [], `${ticks} Hello`, { maxTokens: 1 }); // evicts the conversation, which is then saved
      for (let tick = 0; tick < ticks; tick++) {
        await nextTick();
      }
      await Promise.all([other, agent.forget({ tenant: 'a' })]);
      await agent.forget({ tenant: 'a' }); // the eviction may have been later than the first call
      await agent.flush();
      expect(agent.health().states.byKind).toMatchObject({ request: { count: 0 }, conversation: { count: 0 } });
      const files = await Promise.all((await conversationsIn(cacheDir)).map((name) => readFile(join(cacheDir, name))));
      expect(files.filter((bytes) => bytes.includes('"affinity":"'))).toEqual([]);
    }
  });

  it('are dropped after a request in progress', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await start(cacheDir);
    const messages: ChatMessage[] = [{ role: 'user', content: LONG }];
    let forgotten = false;
    for await (const part of agent.chat({ messages, maxTokens: 8, ...OWNERS[0] })) {
      if (!forgotten && part.type === 'text-delta') {
        forgotten = true;
        await agent.forget({ tenant: 'a' });
      }
    }
    expect(forgotten).toBe(true);
    expect(agent.health().heldSequences).toBe(0);
    await agent.close();
    expect(await conversationsIn(cacheDir)).toEqual([]);
  });

  it('are dropped after a request that waits for a sequence', async () => {
    const agent = await startAgent({ nSeqMax: 1, contextSize: 8192, batchSize: 64 });
    const controller = new AbortController();
    const { signal } = controller;
    const running = codeOf(() => ask(agent, [], LONG.repeat(20), { signal }));
    await vi.waitUntil(() => agent.health().activeSessions > 0, { interval: 1 });
    const waiting = ask(agent, [], LONG, OWNERS[0]);
    await vi.waitUntil(() => agent.health().queueLength > 0, { interval: 1 });
    await agent.forget({ tenant: 'a' });
    controller.abort();
    expect(await running).toBe('ABORTED');
    await waiting;
    expect(agent.health().heldSequences).toBe(0);
  });

  it('need a tenant or an affinity', async () => {
    const agent = await startAgent();
    for (const options of [{}, { tenant: '' }, { affinity: 7 }, { user: 'a' }, undefined]) {
      await expect(agent.forget(options as ForgetOptions)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    await agent.close();
    await expect(agent.forget({ tenant: 'a' })).rejects.toMatchObject({ code: 'CLOSED' });
  });
});
