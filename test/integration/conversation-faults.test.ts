// A fault of a conversation's file, or of its directory, costs a prefill and nothing else.
import { chmod, copyFile, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { AgentServer, ChatMessage, Reply } from 'llama-headstart';
import { SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, temporaryDirectory } from '../helpers/agents.js';
import { runChild } from '../helpers/children.js';
import { ALWAYS, ask, coldReply, conversationsIn, LONG, startSaving } from '../helpers/conversations.js';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { makeReadOnly, smallDisk } from '../helpers/small-disk.js';

/** Saves one conversation in a new directory. Returns the conversation and its file. */
async function saved(settings: AgentSettings = {}) {
  const directory = await temporaryDirectory();
  const messages: ChatMessage[] = [];
  const agent = await startSaving(directory, settings);
  await ask(agent, messages, LONG);
  await agent.close();
  const [name] = await conversationsIn(directory);
  return { directory, messages, path: join(directory, name as string) };
}

const isReused = ({ usage }: Reply) => usage.cachedInputTokens > 0.8 * usage.inputTokens;

/** Continues the conversation in a new agent. Expects the reply of a cold agent, and no reuse of the conversation. */
async function expectMiss(
  { directory, messages }: Awaited<ReturnType<typeof saved>>,
  between: (agent: AgentServer) => Promise<unknown> = async () => undefined,
): Promise<void> {
  const agent = await startSaving(directory);
  await between(agent);
  const reply = await ask(agent, [...messages], 'And now?');
  expect(reply.text).toBe(await coldReply(agent, {}, messages, 'And now?'));
  expect(isReused(reply)).toBe(false);
  await agent.close();
  expect((await readdir(directory)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
}

describe('a file of a conversation', () => {
  it.each([
    [
      'damaged',
      async (path: string) => {
        const bytes = await readFile(path);
        bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 0x40;
        await writeFile(path, bytes);
      },
    ],
    ['truncated', (path: string) => truncate(path, 5000)],
  ])('that is %s is set aside, and a new one is saved', async (_, damage) => {
    const conversation = await saved();
    await damage(conversation.path);
    await expectMiss(conversation);
    expect(await readdir(conversation.directory)).toContainEqual(expect.stringMatching(/^conversation_.*\.corrupt$/));
    const agent = await startSaving(conversation.directory);
    expect(isReused(await ask(agent, [...conversation.messages], 'And now?'))).toBe(true);
  });

  it('that belongs to another conversation or another format is not used', async () => {
    const conversation = await saved();
    const other = await saved({ systemPrompt: 'You are somebody else.' });
    await copyFile(other.path, conversation.path);
    await expectMiss(conversation);
    const newer = await saved();
    const state = await SequenceState.readFile(newer.path);
    await state.writeFile(`${newer.path}.new`, { ...state.metadata, format: 2 });
    state.close();
    await rename(`${newer.path}.new`, newer.path);
    await expectMiss(newer);
  });

  it('that is deleted while an agent knows it costs only a prefill', async () => {
    const conversation = await saved();
    await expectMiss(conversation, async (agent) => {
      expect(agent.health().conversations.count).toBe(1);
      await rm(conversation.path);
    });
  });

  it.each([1e15, -5])('whose line in the index says that it has %d tokens costs no error', async (tokens) => {
    const conversation = await saved();
    const index = join(conversation.directory, 'conversations-1.jsonl');
    const entry = JSON.parse(await readFile(index, 'utf8'));
    await writeFile(index, `${JSON.stringify({ ...entry, tokens })}\n`);
    const agent = await startSaving(conversation.directory);
    const reply = await ask(agent, [...conversation.messages], 'And now?');
    expect(reply.text).toBe(await coldReply(agent, {}, conversation.messages, 'And now?'));
  });

  it('of another tenant is never read', async () => {
    const { directory, messages } = await saved();
    const agent = await startSaving(directory);
    const reply = await ask(agent, [...messages], 'And now?', { tenant: 'other' });
    expect(reply.cache).toMatchObject({ source: 'prefill', cachedTokens: 0 });
  });

  it('is not used after a change of the adapters, and is used again without them', async () => {
    const { directory, messages } = await saved();
    const agent = await startSaving(directory);
    const embedding = agent.model.info.embeddingSize;
    const source = await writeLora(await temporaryDirectory(), 'adapter', { value: 0.5 }, embedding);
    await agent.setLoras([{ source }]);
    expect(isReused(await ask(agent, [...messages], 'And now?'))).toBe(false);
    await agent.setLoras([]);
    const reply = await ask(agent, [...messages], 'And now?');
    expect(isReused(reply)).toBe(true);
    expect(reply.text).toBe(await coldReply(agent, {}, messages, 'And now?'));
  });

  it('that another process saves is found', async () => {
    const directory = await temporaryDirectory();
    const second = await startSaving(directory);
    const first = await startSaving(directory);
    const messages: ChatMessage[] = [];
    await ask(first, messages, LONG);
    await first.close();
    await expect.poll(() => second.health().conversations.count, { timeout: 20_000 }).toBe(1);
    expect(isReused(await ask(second, messages, 'And now?'))).toBe(true);
    await second.close();
    expect(await conversationsIn(directory)).toHaveLength(1);
  });
});

describe('a directory', () => {
  it('that is read-only, or whose disk is full, costs only the save', async ({ skip }) => {
    const disk = smallDisk(join(await temporaryDirectory(), 'disk'), '300k');
    if (disk === undefined) {
      skip('the user may not mount a file system');
      return;
    }
    await chmod(disk, 0o700);
    const warnings: string[] = [];
    const logger = (_: string, message: string) => warnings.push(message);
    const full = await startSaving(disk, { logger });
    const messages: ChatMessage[] = [];
    await ask(full, messages, LONG.repeat(2));
    await full.close();
    expect(await readdir(disk)).not.toContainEqual(expect.stringMatching(/conversation_|\.tmp$/));
    expect(warnings).toContainEqual(expect.stringMatching(/^conversation cache: not saved, .* free disk space/));
    makeReadOnly(disk);
    const readOnly = await startSaving(disk, { logger });
    await ask(readOnly, messages, 'And now?');
    await readOnly.close();
  });

  it('that is read-only keeps a conversation to forget, and `forget` says so', async ({ skip }) => {
    const disk = smallDisk(join(await temporaryDirectory(), 'disk'), '32m');
    if (disk === undefined) {
      skip('the user may not mount a file system');
      return;
    }
    await chmod(disk, 0o700);
    const first = await startSaving(disk, { minFreeDiskBytes: 0 });
    await ask(first, [], LONG, { tenant: 'a' });
    await first.close();
    makeReadOnly(disk);
    const warnings: string[] = [];
    const agent = await startSaving(disk, { logger: (_, message) => warnings.push(message) });
    expect(await agent.forget({ tenant: 'a' })).toMatchObject({ files: 0 });
    expect(warnings).toContain('conversation cache: files that `forget` could not delete: 1');
    expect(agent.health().conversations.count).toBe(1);
  });

  it('gets no file that would leave too little disk space', async () => {
    const directory = await temporaryDirectory();
    const agent = await startSaving(directory, { minFreeDiskBytes: Number.MAX_SAFE_INTEGER });
    await ask(agent, [], LONG);
    await agent.close();
    expect(await conversationsIn(directory)).toEqual([]);
  });

  it('has no incomplete conversation after SIGKILL in the middle of a save', async () => {
    const directory = await temporaryDirectory();
    const { signal } = await runChild('integration/children/killed-save.mjs', [microModel('dense'), directory]);
    expect(signal).toBe('SIGKILL');
    expect(await readdir(directory)).toContainEqual(expect.stringMatching(/^conversation_.*\.tmp$/));
    const agent = await startSaving(directory);
    expect(agent.health().conversations.count).toBe(0);
    expect(await readdir(directory)).not.toContainEqual(expect.stringMatching(/^conversation_/));
  });

  it('holds 200 conversations of 8 sequences within small budgets, and nothing leaks', async () => {
    const directory = await temporaryDirectory();
    const maxBytes = 2 ** 21;
    const conversations = { ...ALWAYS, maxBytes };
    const agent = await startSaving(directory, {
      nSeqMax: 8,
      contextSize: 512,
      maxMemoryBytes: 2 ** 20,
      conversations,
    });
    const all = Array.from({ length: 200 }, (_, index) => index);
    await Promise.all(all.map((index) => ask(agent, [], `${index}. My chain broke.`, { maxTokens: 1 })));
    await agent.flush();
    const { conversations: onDisk, states, kvCells, heldSequences } = agent.health();
    expect(onDisk.count).toBeGreaterThan(1);
    expect(onDisk.bytes).toBeLessThanOrEqual(maxBytes);
    expect(states.bytes).toBeLessThanOrEqual(states.maxBytes);
    expect(states).toMatchObject({ transferBytes: 0, byKind: { request: { count: 0 } } });
    expect(kvCells.used).toBeLessThanOrEqual(kvCells.total);
    expect(heldSequences).toBeLessThanOrEqual(8);
    await agent.close();
    expect((await readdir(directory)).filter((name) => /\.(tmp|lock)$/.test(name))).toEqual([]);
    expect(await conversationsIn(directory)).not.toEqual([]);
  });
});
