// Tests `close()` while calls of all kinds are in progress. Each call succeeds or fails with CLOSED, and no call hangs.
// No incomplete file remains, and the processes of MCP servers have ended.
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Client } from '@modelcontextprotocol/client';
import { AgentServer, type Session, type StreamPart, type Tool } from 'llama-headstart';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { agentOptions, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { CLEAN, runChild } from '../helpers/children.js';
import { afterDecodes, deferred, loopTurns } from '../helpers/event-loop.js';
import { FakeHub } from '../helpers/hub.js';
import { microModel } from '../helpers/models.js';
import { compileHelper } from '../helpers/processes.js';
import { callTool, ended, isAlive, silentMcp } from '../helpers/silent-mcp.js';
import { iterate, outcomeOf } from '../helpers/turns.js';

const CLOSERS = [
  ['the session', (_: AgentServer, session: Session) => session.close()],
  ['the agent', (agent: AgentServer) => agent.close()],
] as const;

/** Tests call `close()` after each of these numbers of event-loop turns, to meet different states of the other call. */
const LOOP_TURNS = [0, 1, 5, 30];

async function sessionWithTurns(agent: AgentServer): Promise<Session> {
  const session = await agent.createSession();
  await replies(session, ['Hello', 'And now?'], 8);
  return session;
}

describe.each(CLOSERS)('closing %s', (_, close) => {
  it.each([true, false])('during a save (with state: %s) leaves a complete file or none', async (state) => {
    for (const turns of LOOP_TURNS) {
      const directory = await temporaryDirectory();
      const path = join(directory, 'session.json');
      const agent = await startAgent();
      const session = await sessionWithTurns(agent);
      const { messages } = session;
      const saving = outcomeOf(session.save(path, { state }));
      await loopTurns(turns);
      await close(agent, session);
      const outcome = await saving;
      expect(['done', 'CLOSED']).toContain(outcome);
      const names = await readdir(directory);
      expect(names.filter((name) => name.endsWith('.tmp'))).toEqual([]);
      expect(existsSync(path)).toBe(outcome === 'done');
      if (outcome === 'done') {
        const other = await startAgent();
        expect((await other.restoreSession(path)).messages).toEqual(messages);
      }
    }
  });

  it.each([0, 1, 10, 100])(
    'after %i decodes of a compaction ends the compaction, and keeps the conversation',
    async (decodes) => {
      const agent = await startAgent();
      const session = await sessionWithTurns(agent);
      const { messages } = session;
      const compacting = outcomeOf(session.compact({ preserveRecent: 0, maxSummaryTokens: 400 }));
      await new Promise<void>((resolve) => afterDecodes(decodes, resolve));
      await close(agent, session);
      expect(await compacting).toBe('CLOSED');
      expect(session.messages).toBe(messages);
      expect(agent.health()).toMatchObject({ openSessions: 0, activeSessions: 0, heldSequences: 0, savedBytes: 0 });
    },
  );

  it('while a tool runs ends the turn with CLOSED, and aborts the signal of the tool', async () => {
    const agent = await startAgent({ contextSize: 4096 });
    const { promise: called, resolve: onCalled } = deferred<AbortSignal>();
    const lamp: Tool = {
      name: 'lamp',
      execute: (_args, { signal }) => {
        onCalled(signal);
        return new Promise(() => undefined);
      },
    };
    const session = await agent.createSession({ tools: [lamp] });
    const parts: StreamPart[] = [];
    const read = async () => {
      const options = { toolChoice: 'required', maxParallelTools: 1, maxTokens: 200 } as const;
      for await (const part of session.stream('Light', options)) {
        parts.push(part);
      }
    };
    const reading = read();
    const turn = outcomeOf(reading);
    const signal = await called;
    await close(agent, session);
    expect(await turn).toBe('CLOSED');
    await expect(reading).rejects.toMatchObject({ usage: { steps: 1 } });
    expect(parts.some(({ type }) => type === 'finish')).toBe(false);
    expect(signal.aborted).toBe(true);
    expect(agent.health()).toMatchObject({ openSessions: 0, activeSessions: 0, heldSequences: 0 });
  });

  it.each([
    ['hangs in a call', 'hang'],
    ['is being reconnected', 'pid'],
  ])('while an MCP server %s ends the turn with CLOSED, and ends the processes of the server', async (_, name) => {
    const mcp = await silentMcp();
    const agent = await startAgent({ contextSize: 4096, mcpServers: [mcp.server] });
    const pid = Number(await callTool(agent, 'pid'));
    const session = await agent.createSession();
    if (name === 'pid') {
      await mcp.silence();
      // The next call starts the server again, but the new server stays silent.
      await callTool(agent, 'die').catch(() => undefined);
    }
    const { promise: called, resolve: onCalled } = deferred();
    const onToolCall = () => {
      onCalled();
      return true;
    };
    const options = { toolChoice: { name }, maxParallelTools: 1, maxTokens: 200, onToolCall } as const;
    const turn = outcomeOf(session.send('Hello', options));
    await called;
    const silent = name === 'pid' ? await mcp.silentPids() : [];
    await close(agent, session);
    expect(await turn).toBe('CLOSED');
    await agent.close();
    await ended(pid, ...silent);
  });
});

describe('closing an agent', () => {
  it('while it restores a session leaves no session open and keeps no state', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    await (await sessionWithTurns(await startAgent())).save(path, { state: true });
    for (const turns of LOOP_TURNS) {
      const agent = await startAgent();
      const restoring = agent.restoreSession(path);
      const outcome = outcomeOf(restoring);
      await loopTurns(turns);
      await agent.close();
      expect(['done', 'CLOSED']).toContain(await outcome);
      expect((await restoring.catch(() => undefined))?.closed ?? true).toBe(true);
      expect(agent.health()).toMatchObject({ openSessions: 0, heldSequences: 0, savedBytes: 0 });
    }
  });

  it('while it reconnects an MCP server rejects the waiting calls, and ends the server', async () => {
    const mcp = await silentMcp();
    const agent = await startAgent({ mcpServers: [mcp.server] });
    await mcp.silence();
    await callTool(agent, 'die').catch(() => undefined);
    const waiting = [
      agent.createSession(),
      agent.mcp.prompts(),
      agent.mcp.getPrompt({ server: 'here', name: 'greet' }),
    ];
    const outcomes = Promise.all(waiting.map(outcomeOf));
    const silent = await mcp.silentPids();
    await agent.close();
    expect(await outcomes).toEqual(['CLOSED', 'CLOSED', 'CLOSED']);
    await ended(...silent);
  });

  it('waits until the process of an MCP server that no longer answers has ended', async () => {
    const mcp = await silentMcp({ callTimeoutMs: 50 });
    const agent = await startAgent({ mcpServers: [mcp.server] });
    const pid = Number(await callTool(agent, 'pid'));
    const { promise: isEnding, resolve: onEnding } = deferred();
    const closeClient = Client.prototype.close;
    const spy = vi.spyOn(Client.prototype, 'close').mockImplementation(function (this: Client) {
      onEnding();
      return closeClient.call(this);
    });
    onTestFinished(() => spy.mockRestore());
    const frozen = outcomeOf(callTool(agent, 'freeze'));
    await isEnding; // the call and a ping have timed out
    await agent.close();
    expect(isAlive(pid)).toBe(false);
    expect(['MCP_FAILED', 'CLOSED']).toContain(await frozen);
  });

  it('closes all other parts of the agent if one part fails to close, and throws the error of that part', async () => {
    const mcp = await silentMcp();
    const cacheDir = await temporaryDirectory();
    const agent = await AgentServer.initialize(agentOptions({ cacheDir, mcpServers: [mcp.server] }));
    const pid = Number(await callTool(agent, 'pid'));
    const session = await agent.createSession();
    const turn = outcomeOf(session.send('Hello', { maxTokens: 500 }));
    const close = agent.mcp.close.bind(agent.mcp);
    agent.mcp.close = async () => {
      await close();
      throw new Error('the server would not end');
    };
    await expect(agent.close()).rejects.toThrow('the server would not end');
    agent.mcp.close = close;
    expect(await turn).toBe('CLOSED');
    await ended(pid);
    await expect(agent.model.tokenize('Hello')).rejects.toMatchObject({ code: 'CLOSED' });
    expect((await readdir(cacheDir)).filter((name) => /\.(lock|tmp)$/.test(name))).toEqual([]);
    await expect(agent.close()).rejects.toThrow('the server would not end'); // a repeated close has the same result
  });

  it('rejects a change of adapters that waits for a completion, and the calls that wait for the change', async () => {
    const agent = await startAgent({ contextSize: 8192 });
    const completion = agent.complete('Hello', { sampling: { ignoreEos: true } });
    await vi.waitUntil(() => agent.health().decodes > 0, { timeout: 60_000 });
    const calls = [completion, agent.setLoras([]), agent.createSession(), agent.complete('Hi')].map(outcomeOf);
    await loopTurns(5);
    await agent.close();
    expect(await Promise.all(calls)).toEqual(['CLOSED', 'CLOSED', 'CLOSED', 'CLOSED']);
  });

  it('ends a stream whose reader has paused', async () => {
    const agent = await startAgent();
    const parts = iterate(agent.streamComplete('Hello', { maxTokens: 200, sampling: { ignoreEos: true } }));
    await parts.next();
    await loopTurns(5);
    await agent.close();
    const readOn = async () => {
      while (!(await parts.next()).done);
    };
    await expect(readOn()).rejects.toMatchObject({ code: 'CLOSED' });
  });

  it('ends the download of an adapter', async () => {
    const hub = await FakeHub.start();
    hub.add('me/adapters', { 'a.gguf': Buffer.alloc(100_000) });
    hub.faults.push({ stallAfter: 1000 });
    const agent = await startAgent({ modelsDir: await temporaryDirectory() });
    const source = { type: 'huggingface', repo: 'me/adapters', filename: 'a.gguf', endpoint: hub.endpoint } as const;
    const setting = outcomeOf(agent.setLoras([{ source }]));
    await vi.waitUntil(() => hub.downloads.length > 0, { timeout: 60_000 });
    await agent.close();
    expect(await setting).toBe('CLOSED');
  });

  it('lets the process end by itself, whichever calls were in progress, and leaves no incomplete file', async () => {
    const directory = await temporaryDirectory();
    const { stdout, ...rest } = await runChild('integration/children/closing.mjs', [
      microModel('dense'),
      await compileHelper('mcp-server'),
      directory,
    ]);
    expect({ ...rest, stdout: '' }).toEqual(CLEAN);
    const { outcomes, failing } = JSON.parse(stdout) as { outcomes: string[]; failing: string };
    expect(outcomes.filter((outcome) => outcome !== 'done' && outcome !== 'CLOSED')).toEqual([]);
    expect(outcomes.slice(0, 2)).toEqual(['CLOSED', 'CLOSED']);
    expect(failing).toBe('LORA_INVALID');
    const names = (await readdir(directory, { recursive: true })).filter((name) => /\.(tmp|lock)$/.test(name));
    expect(names).toEqual([]);
  });
});
