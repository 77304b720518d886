// `agent.forget` deletes conversations at once: idle sequences, states in memory, and files.
import fs, { cp, readdir, readFile, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import type { AgentServer, ChatMessage, ForgetOptions } from 'llama-headstart';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
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

/** Stops the first rename of a file whose path matches. `entered` resolves when the rename is reached. */
function stopBeforeRename(pattern: RegExp) {
  const { rename } = fs;
  let enter = () => {};
  let leave = () => {};
  const entered = new Promise<void>((resolve) => {
    enter = resolve;
  });
  const leaving = new Promise<void>((resolve) => {
    leave = resolve;
  });
  const replace = (next: typeof rename) => {
    fs.rename = next;
    syncBuiltinESMExports();
  };
  onTestFinished(() => replace(rename));
  replace(async (from, to) => {
    if (pattern.test(String(to))) {
      replace(rename);
      enter();
      await leaving;
    }
    return rename(from, to);
  });
  return { entered, leave };
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
      await agent.flush();
      expect(agent.health().states.byKind).toMatchObject({ request: { count: 0 }, conversation: { count: 0 } });
      const files = await Promise.all((await conversationsIn(cacheDir)).map((name) => readFile(join(cacheDir, name))));
      expect(files.filter((bytes) => bytes.includes('"affinity":"'))).toEqual([]);
    }
  });

  it('do not come back from another process that holds them or is writing them', async () => {
    const cacheDir = await temporaryDirectory();
    const [holding, writing, forgetting] = [await start(cacheDir), await start(cacheDir), await start(cacheDir)];
    await ask(holding, [], LONG, OWNERS[0]);
    await ask(writing, [], LONG, OWNERS[0]);
    const { entered, leave } = stopBeforeRename(/conversation_/);
    const closed = writing.close();
    await entered;
    await forgetting.forget({ tenant: 'a' });
    leave();
    await Promise.all([closed, holding.close()]);
    expect((await readdir(cacheDir)).filter((name) => name.startsWith('conversation_'))).toEqual([]);
    await ask(forgetting, [], LONG, OWNERS[0]); // a new conversation of the same owner is kept
    await forgetting.close();
    expect(await conversationsIn(cacheDir)).toHaveLength(1);
  });

  it('leave the memory of other processes soon, and the replies that these processes read from files', async () => {
    const cacheDir = await temporaryDirectory();
    const [holding, forgetting] = [await start(cacheDir), await start(cacheDir)];
    await ask(holding, [], LONG, OWNERS[0]);
    await forgetting.forget({ affinity: '1' });
    await expect.poll(() => holding.health().heldSequences, { timeout: 20_000 }).toBe(0);
    expect(holding.sampledReplies.all()).toEqual([]);
  });

  it('leave no temporary file of a process that was killed during its write', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await start(cacheDir);
    await writeFile(join(cacheDir, `conversation_${'a'.repeat(16)}.kv.${'b'.repeat(16)}.0.tmp`), 'text');
    await agent.forget({ tenant: 'a' });
    expect(await readdir(cacheDir)).not.toContainEqual(expect.stringMatching(/tmp$/));
  });

  it('are found by the contents of their files, even if the index is wrong', async () => {
    const cacheDir = await temporaryDirectory();
    const first = await start(cacheDir);
    await ask(first, [], LONG, OWNERS[0]);
    await ask(first, [], `Hello. ${LONG}`, OWNERS[2]);
    await first.close();
    const index = join(cacheDir, 'conversations-1.jsonl');
    const lines = (await readFile(index, 'utf8')).trim().split('\n');
    const [one, two] = lines.map((line) => JSON.parse(line));
    const swapped = [
      { ...one, group: two.group, conversation: two.conversation },
      { ...two, group: one.group, conversation: one.conversation },
    ];
    await writeFile(index, swapped.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const second = await start(cacheDir);
    await second.countTokens({ messages: [{ role: 'user', content: 'Hello' }], tenant: 'a' }); // reads replies
    expect(second.sampledReplies.all()).toEqual([]);
    expect(await second.forget({ tenant: 'a' })).toMatchObject({ files: 1 });
    expect(await conversationsIn(cacheDir)).toEqual([two.name]);
  });

  it('leave no replies that were being read from files', async () => {
    const saved = await temporaryDirectory();
    const first = await start(saved);
    await ask(first, [], LONG, OWNERS[0]);
    await first.close();
    for (let ticks = 0; ticks < 6; ticks++) {
      const cacheDir = await temporaryDirectory();
      await cp(saved, cacheDir, { recursive: true });
      const agent = await start(cacheDir);
      const reading = agent.countTokens({ messages: [{ role: 'user', content: 'Hello' }], tenant: 'a' });
      for (let tick = 0; tick < ticks; tick++) {
        await nextTick();
      }
      await Promise.all([reading, agent.forget({ tenant: 'a' })]);
      expect(agent.sampledReplies.all()).toEqual([]);
    }
  });

  it.each([
    ['that was just called', (agent: AgentServer) => agent.forget({ tenant: 'a' }), () => undefined],
    ['whose prompt is known', () => undefined, (agent: AgentServer) => agent.forget({ tenant: 'a' })],
  ])('are dropped after a request %s', async (_, afterCall, onPrompt) => {
    const cacheDir = await temporaryDirectory();
    const agent = await start(cacheDir);
    let forgetting: Promise<unknown> | undefined;
    const asked = ask(agent, [], LONG, {
      ...OWNERS[0],
      onPrompt: () => {
        forgetting ??= onPrompt(agent);
      },
    });
    forgetting = afterCall(agent);
    await asked;
    await forgetting;
    expect(agent.health().heldSequences).toBe(0);
    expect(agent.sampledReplies.all()).toEqual([]);
    await agent.close();
    expect(await conversationsIn(cacheDir)).toEqual([]);
  });

  it('are kept again after the next turn of a session that was forgotten during a turn', async () => {
    const cacheDir = await temporaryDirectory();
    const agent = await start(cacheDir);
    const session = await agent.createSession({ tenant: 'a' });
    let forgotten = false;
    for await (const part of session.stream(LONG, { maxTokens: 8 })) {
      if (!forgotten && part.type === 'text-delta') {
        forgotten = true;
        await agent.forget({ tenant: 'a' });
      }
    }
    expect(agent.health().heldSequences).toBe(0);
    const { usage } = await session.send('And now?', { maxTokens: 4 });
    expect(usage.cachedInputTokens).toBe(session.report.templateTokens);
    const next = await session.send('Thanks', { maxTokens: 4 });
    expect(next.usage.cachedInputTokens).toBeGreaterThan(usage.inputTokens);
    await agent.close();
    expect(await conversationsIn(cacheDir)).toHaveLength(1);
  });

  it('leave a sequence that an aborted request has taken over', async () => {
    const agent = await startAgent({ ...EXACT, nSeqMax: 2, batchSize: 64, contextSize: 2048 });
    const secret: ChatMessage[] = [];
    await ask(agent, secret, `${LONG} ${'The code is 1234. '.repeat(20)}`, { affinity: '1' });
    const other = `${LONG} ${'Something else. '.repeat(60)}`;
    const controller = new AbortController();
    let takingOver: Promise<unknown> | undefined;
    let isKnown = false;
    const onPrompt = () => {
      isKnown = true;
    };
    const onPrefill = () => {
      takingOver ??= codeOf(() => ask(agent, [], `${other} 2`, { onPrompt, signal: controller.signal }));
      if (isKnown) {
        setImmediate(() => controller.abort()); // the request waits for the prefill of `other`
      }
    };
    await ask(agent, [], `${other} 1`, { onPrefill });
    expect(await takingOver).toBe('ABORTED');
    await agent.forget({ affinity: '1' });
    const { usage } = await ask(agent, secret, 'And now?', { affinity: '1', maxTokens: 1 });
    expect(usage.cachedInputTokens).toBeLessThan(
      await agent.countTokens({ messages: [{ role: 'user', content: LONG }] }),
    );
  });

  it('leave the states that a request of another client has continued without a name', async () => {
    const agent = await startAgent({ name: 'recurrent', ...EXACT });
    const messages: ChatMessage[] = [];
    await ask(agent, messages, LONG);
    await ask(agent, messages, 'And now?', { affinity: '1' });
    await agent.forget({ affinity: '1' });
    expect(agent.health().states.byKind).toMatchObject({ request: { count: 0 }, conversation: { count: 0 } });
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
