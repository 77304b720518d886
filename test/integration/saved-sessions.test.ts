// A session that was saved to a file and restored continues as if it had never been closed.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentServer, type MessageInput, type Schema, type Session } from 'llama-headstart';
import type { TurnInput } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { agentOptions, EXACT, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { TOOLS } from '../helpers/prompts.js';
import { NEXT, savedSession } from '../helpers/saved-session.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;

describe('a saved session', () => {
  it.each(MEMORIES.flatMap((name) => [true, false].map((state) => [name, state] as const)))(
    'gives the same replies after it was restored in another agent, with the %s model (with state: %s)',
    async (name, state) => {
      const { path, id, messages, texts } = await savedSession(state, name);
      const agent = await startAgent({ name, ...EXACT });
      const session = await agent.restoreSession(path);
      expect(session).toMatchObject({ id, messages });
      const first = await session.send(NEXT[0] as string, { maxTokens: 8 });
      expect([first.text, ...(await replies(session, NEXT.slice(1), 8))]).toEqual(texts);
      const { templateTokens } = session.report;
      if (state) {
        expect(first.usage.cachedInputTokens).toBeGreaterThan(templateTokens);
      } else {
        expect(first.usage.cachedInputTokens).toBe(templateTokens);
      }
    },
  );

  it.each(MEMORIES)(
    'has a state even if another session took its KV cells before the save, with the %s model',
    async (name) => {
      const path = join(await temporaryDirectory(), 'session.json');
      const agent = await AgentServer.initialize(agentOptions({ name, nSeqMax: 1, ...EXACT }));
      const session = await agent.createSession();
      await replies(session, ['Hello. The chain is oiled.'], 8);
      const other = await agent.createSession({ systemPrompt: 'Be brief.' }); // takes the only sequence
      await other.send('Hello', { maxTokens: 2 });
      await session.save(path, { state: true });
      const texts = await replies(session, NEXT, 8);
      await agent.close();
      const restored = await (await startAgent({ name, ...EXACT })).restoreSession(path);
      const first = await restored.send(NEXT[0] as string, { maxTokens: 8 });
      expect([first.text, ...(await replies(restored, NEXT.slice(1), 8))]).toEqual(texts);
      expect(first.usage.cachedInputTokens).toBeGreaterThan(restored.report.templateTokens + 8);
    },
  );

  it('has a state even if it had no turn yet, or if its tool calls have no results yet', async () => {
    const agent = await startAgent({ nSeqMax: 1, contextSize: 2048, ...EXACT });
    const calls = [{ toolCallId: 'call00000', toolName: 'find_part', input: { name: 'chain' } }];
    const waiting: MessageInput[] = [
      { role: 'user', content: 'A chain, please.' },
      { role: 'assistant', content: '', toolCalls: calls },
    ];
    for (const messages of [[], waiting]) {
      const path = join(await temporaryDirectory(), 'session.json');
      const session = await agent.createSession({ tools: TOOLS, messages });
      await session.save(path, { state: true });
      await session.close();
      const restored = await agent.restoreSession(path);
      const next: TurnInput = messages.length === 0 ? 'Hello' : { role: 'tool', toolCallId: 'call00000', content: '4' };
      const { usage } = await restored.send(next, { maxTokens: 2 });
      expect(usage.cachedInputTokens).toBeGreaterThanOrEqual(restored.report.templateTokens + (messages.length && 10));
      await restored.close();
    }
  });

  it('has no state if its prompts share no prefix, but can be restored', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const chatTemplate = '{% for m in messages | reverse %}{{ m.content }}{% endfor %}'; // the newest message first
    const agent = await startAgent({ chatTemplate, ...EXACT });
    const session = await agent.createSession();
    expect(session.report).toMatchObject({ cache: 'bypass', templateTokens: 0 });
    await replies(session, ['Hello'], 8);
    await session.save(path, { state: true });
    expect(await readdir(join(path, '..'))).toEqual(['session.json']);
    const texts = await replies(session, NEXT, 8);
    await session.close();
    expect(await replies(await agent.restoreSession(path), NEXT, 8)).toEqual(texts);
  });

  it('is not written if the save is aborted, and the session remains usable', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const agent = await startAgent({ nSeqMax: 1 });
    const session = await agent.createSession({ messages: [{ role: 'user', content: 'Hello' }] });
    await agent.createSession({ systemPrompt: 'Be brief.' });
    const signal = AbortSignal.abort();
    await expect(session.save(path, { state: true, signal })).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await readdir(join(path, '..'))).toEqual([]);
    expect((await session.send('And?', { maxTokens: 2 })).usage.outputTokens).toBe(2);
  });

  it('is restored with its options for sampling, tools and compaction, unless they are passed again', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const agent = await startAgent({ contextSize: 2048, ...EXACT });
    const first = (await (await agent.createSession()).send('Hello', { maxTokens: 1, logProbabilities: 0 }))
      .logProbabilities?.[0]?.token as number;
    const never = new Map([[first, Number.NEGATIVE_INFINITY]]);
    const session = await agent.createSession({
      tools: [{ name: 'look', execute: () => 'a lamp' }],
      sampling: { temperature: 1.2, seed: 7, logitBias: never },
      toolChoice: 'required',
      maxSteps: 1,
      maxParallelTools: 1,
      compaction: { threshold: 0.1, maxSummaryTokens: 8 },
    });
    await session.save(path);
    const send = { toolChoice: 'none', maxTokens: 12 } as const;
    const text = (await (await session.fork()).send('Hello', send)).text;
    await session.close();
    const restored = await agent.restoreSession(path, { tools: [{ name: 'look', execute: () => 'a lamp' }] });
    expect((await (await restored.fork()).send('Hello', send)).text).toBe(text);
    const called = await restored.send('Look', { maxTokens: 60 });
    expect(called).toMatchObject({ detail: 'max-steps', toolCalls: [{ toolName: 'look' }] });
    const types: string[] = [];
    for await (const { type } of restored.stream('word '.repeat(200), send)) {
      types.push(type);
    }
    expect(types).toContain('compaction');
    await restored.close();
    const greedy = await agent.restoreSession(path, { sampling: {}, toolChoice: 'none', tools: [] });
    expect((await greedy.send('Hello', send)).text).not.toBe(text);
  });

  it('without a system prompt is restored without one, even if the agent has one', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const options = agentOptions(EXACT);
    const bare = await AgentServer.initialize({ model: options.model });
    const session = await bare.createSession();
    const { templateTokens } = session.report;
    await session.save(path);
    await bare.close();
    const agent = await startAgent(EXACT);
    const restored = await agent.restoreSession(path);
    expect(restored.report.templateTokens).toBe(templateTokens);
    await restored.close();
    const { systemPrompt } = options;
    const withPrompt = await agent.restoreSession(path, { ...(systemPrompt && { systemPrompt }) });
    expect(withPrompt.report.key).toBe((await agent.createSession()).report.key);
    expect(withPrompt.report.templateTokens).toBeGreaterThan(templateTokens);
  });

  it('is restored with its own options if undefined is passed for them', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const agent = await startAgent(EXACT);
    const session = await agent.createSession({
      systemPrompt: 'Be brief.',
      tools: TOOLS,
      compaction: { threshold: 0.1 },
    });
    await session.save(path);
    await session.close();
    const unset = { systemPrompt: undefined, tools: undefined, compaction: undefined, tenant: undefined } as object;
    const restored = await agent.restoreSession(path, unset);
    expect(restored.report).toMatchObject({ source: 'resident', key: session.report.key });
    const compact = { preserveRecent: 0, maxSummaryTokens: 4 };
    await replies(restored, ['Hello'], 4);
    expect((await restored.compact({ ...compact, prompt: undefined } as object))?.replacedMessages).toBe(2);
  });

  it('is one file that only its owner can read, plus a second file for the state', async () => {
    for (const state of [true, false]) {
      const { path } = await savedSession(state);
      const names = (await readdir(join(path, '..'))).sort();
      expect(names).toEqual(state ? ['session.json', 'session.json.kv'] : ['session.json']);
      expect((await stat(path)).mode & 0o777).toBe(0o600);
    }
  });

  it('gives the same replies if its state is damaged or belongs to another save', async () => {
    const damages: ((path: string) => Promise<void>)[] = [
      async (path) => truncate(path, (await stat(path)).size >> 1),
      (path) => writeFile(path, 'junk'),
      async (path) => writeFile(path, await readFile(`${(await savedSession(true)).path}.kv`)),
    ];
    for (const damage of damages) {
      const { path, texts } = await savedSession(true);
      await damage(`${path}.kv`);
      const session = await (await startAgent({ ...EXACT })).restoreSession(path);
      expect(await replies(session, NEXT, 8)).toEqual(texts);
    }
  });

  it('does not use its state with another model', async () => {
    const { path } = await savedSession(true);
    const session = await (await startAgent({ name: 'dense-other', ...EXACT })).restoreSession(path);
    const { usage } = await session.send('And now?', { maxTokens: 4 });
    expect(usage.cachedInputTokens).toBeLessThanOrEqual(session.report.templateTokens);
  });

  it.each<[string, (path: string) => Promise<void>, string]>([
    ['missing', async () => undefined, 'ENTRY_MISSING'],
    [
      'truncated',
      async (path) => writeFile(path, (await readFile((await savedSession(false)).path)).subarray(0, 200)),
      'ENTRY_CORRUPT',
    ],
    [
      'altered',
      async (path) =>
        writeFile(path, (await readFile((await savedSession(false)).path, 'utf8')).replace('Hello', 'Jello')),
      'ENTRY_CORRUPT',
    ],
    ['empty', (path) => writeFile(path, ''), 'ENTRY_FOREIGN'],
    ['another JSON file', (path) => writeFile(path, '{"messages": []}'), 'ENTRY_FOREIGN'],
    ['a directory', async (path) => void (await mkdir(path)), 'READ_FAILED'],
    ['a pipe', async (path) => void execFileSync('mkfifo', [path]), 'READ_FAILED'],
    ['a device', (path) => symlink('/dev/zero', path), 'READ_FAILED'],
  ])('fails to restore with an error code if its file is %s', async (_, make, code) => {
    const path = join(await temporaryDirectory(), 'session.json');
    await make(path);
    const agent = await startAgent();
    await expect(agent.restoreSession(path)).rejects.toMatchObject({ code });
    expect(agent.health().openSessions).toBe(0);
  });

  it('cannot be restored without a path', async () => {
    const agent = await startAgent();
    for (const path of [undefined, '', 7, null]) {
      await expect(agent.restoreSession(path as string)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  });

  it.each([
    '"text"',
    '{"id": "x", "tools": []}',
    '{"id": "x", "tools": [], "messages": [{"role": "wizard", "content": ""}]}',
    '{"id": "x", "tools": [null], "messages": []}',
    '{"id": "x", "tools": [], "messages": [], "history": {"key": "", "tokens": []}}',
    '{"id": "x", "tools": [], "messages": [], "history": {"key": "", "tokens": [], "pieces": [7]}}',
  ])('with a valid checksum and the content %s fails to restore with ENTRY_CORRUPT', async (session) => {
    const path = join(await temporaryDirectory(), 'session.json');
    const sha256 = createHash('sha256').update(session).digest('hex');
    await writeFile(path, JSON.stringify({ format: 'llama-headstart-session-1', sha256, session }));
    await expect((await startAgent()).restoreSession(path)).rejects.toMatchObject({ code: 'ENTRY_CORRUPT' });
  });

  it.skipIf(process.platform === 'win32')(
    'replaces only regular files, never a directory, pipe, link or device',
    async () => {
      const directory = await temporaryDirectory();
      const session = await (await startAgent()).createSession();
      const at = (name: string) => join(directory, name);
      await mkdir(at('directory'));
      execFileSync('mkfifo', [at('pipe'), at('state.kv')]);
      await writeFile(at('file'), 'kept');
      await symlink(at('file'), at('link'));
      await symlink(at('nowhere'), at('dangling'));
      const others = ['directory', 'directory/', 'pipe', 'state', 'link', 'dangling'];
      if (spawnSync('mknod', [at('device'), 'c', '1', '3']).status === 0) {
        others.push('device'); // only root can create one
      }
      const before = await readdir(directory, { withFileTypes: true });
      for (const path of others.map(at)) {
        for (const state of [false, true]) {
          await expect(session.save(path, { state }), path).rejects.toMatchObject({
            code: 'WRITE_FAILED',
            message: expect.stringContaining('Expected a new path or a regular file'),
          });
        }
      }
      expect(await readdir(directory, { withFileTypes: true })).toEqual(before);
      expect(await readFile(at('file'), 'utf8')).toBe('kept');
      await session.save(at('file'));
      expect(await readFile(at('file'), 'utf8')).toContain(session.id);
    },
  );

  it('cannot be restored while it is open, nor saved to a path that cannot be written', async () => {
    const { path } = await savedSession(false);
    const agent = await startAgent();
    const refused = { code: 'INVALID_ARGUMENT', message: expect.stringMatching(/is open already/) };
    const nameless = agent.restoreSession(path, { tools: [{ name: '' }] });
    // A failed restore releases the session id.
    await expect(nameless).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    const both = await Promise.allSettled([agent.restoreSession(path), agent.restoreSession(path)]);
    const [session] = both.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : [])) as [Session];
    expect(both.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))).toMatchObject([refused]);
    expect(agent.health().openSessions).toBe(1);
    await expect(agent.restoreSession(path)).rejects.toMatchObject(refused);
    await expect(session.save(join(path, 'no', 'such'))).rejects.toMatchObject({ code: 'WRITE_FAILED' });
    await expect(session.save('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await session.save(path);
    await session.close();
    expect((await agent.restoreSession(path)).id).toBe(session.id);
  });

  it("runs the agent's tools with arguments that their schemas transformed, and with the tool as `this`", async () => {
    class Lamp {
      name = 'lamp';
      description = 'Switches the lamp.';
      parameters: Schema = z.object({ on: z.boolean().transform((on) => (on ? 'lit' : 'dark')) });
      owner = 'me';
      execute({ on }: { on: unknown }) {
        return `${on} by ${this.owner}`;
      }
    }
    const path = join(await temporaryDirectory(), 'session.json');
    const lamp = new Lamp();
    const agent = await startAgent({ tools: [lamp], ...EXACT });
    const session = await agent.createSession();
    const { key } = session.report;
    await session.save(path);
    await session.close();
    const changed = Object.assign(new Lamp(), { parameters: z.object({ off: z.boolean() }) });
    const other = await startAgent({ tools: [changed], ...EXACT });
    for (const [restoringAgent, output] of [
      [agent, /^(lit|dark) by me$/],
      [other, /^(true|false) by me$/],
    ] as const) {
      const restored = await restoringAgent.restoreSession(path);
      expect(restored.report.key).toBe(key);
      const options = { toolChoice: { name: 'lamp' }, maxSteps: 1, maxParallelTools: 1, maxTokens: 80 } as const;
      const { toolResults } = await restored.send('Light, please', {
        ...options,
        sampling: { seed: 1, temperature: 1 },
      });
      expect(toolResults).toMatchObject([{ output: expect.stringMatching(output), isError: false }]);
    }
  });

  it("runs the agent's tools that have the names of the saved tools", async () => {
    const { path } = await savedSession(false);
    const tools = TOOLS.map((tool) => ({ ...tool, execute: () => `${tool.name} ran` }));
    const session = await (await startAgent({ tools, contextSize: 4096, ...EXACT })).restoreSession(path);
    const options = { toolChoice: { name: 'find_part' }, maxSteps: 1, maxParallelTools: 1, maxTokens: 400 };
    const { toolResults } = await session.send('A chain', { ...options, sampling: { logitBias: {} } });
    expect(toolResults).toMatchObject([{ output: 'find_part ran' }]);
  });
});
