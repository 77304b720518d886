// `close()` in the middle of everything, and starts that fail late: what was asked for is done or CLOSED, nothing hangs, no
// half-written file stays, and processes that were started are gone.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentServer, type McpStdioServer, type Session, type StreamPart, type Tool } from 'llama-headstart';
import { Context } from 'llama-headstart/native';
import { beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { agentOptions, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { CLEAN, runChild } from '../helpers/children.js';
import { FakeHub } from '../helpers/hub.js';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { compileHelper } from '../helpers/processes.js';
import { numberedPrompt } from '../helpers/prompts.js';

let program = '';
beforeAll(async () => {
  program = await compileHelper('mcp-server');
});

/** A server that says nothing once its file `silence` is there. */
const stdio = (silence: string, more: Partial<McpStdioServer> = {}): McpStdioServer => ({
  name: 'here',
  command: process.execPath,
  args: [program, 'here', silence],
  allowedTools: ['hang', 'die', 'pid', 'freeze'],
  connectTimeoutMs: 600_000, // who waits for that has hung
  ...more,
});

const { signal } = new AbortController();

async function callOf(agent: AgentServer, name: string): Promise<string> {
  const tool = (await agent.mcp.tools()).find((each) => each.name === name);
  return (await tool?.execute({}, { signal })) as string;
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const isGone = (pid: number) => vi.waitUntil(() => !isAlive(pid), { timeout: 30_000 });

/** `done`, or the code of its error. */
const outcomeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'done',
    (error: { code?: string }) => error.code ?? String(error),
  );

/** Whose session is closed: itself, or its agent. */
const CLOSERS = [
  ['the session', (_: AgentServer, session: Session) => session.close()],
  ['the agent', (agent: AgentServer) => agent.close()],
] as const;

const AFTER = [0, 1, 3, 10]; // ms: somewhere in the middle

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function talked(agent: AgentServer): Promise<Session> {
  const session = await agent.createSession();
  await replies(session, ['Hello', 'And now?'], 8);
  return session;
}

describe.each(CLOSERS)('closing %s', (_, close) => {
  it.each([true, false])('in the middle of a save (with state: %s) leaves a whole file or none', async (state) => {
    for (const ms of AFTER) {
      const directory = await temporaryDirectory();
      const path = join(directory, 'session.json');
      const agent = await startAgent();
      const session = await talked(agent);
      const { messages } = session;
      const saving = outcomeOf(session.save(path, { state }));
      await wait(ms);
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

  it('in the middle of a compaction ends it, and the conversation is what it was', async () => {
    for (const ms of AFTER) {
      const agent = await startAgent();
      const session = await talked(agent);
      const { messages } = session;
      const compacting = outcomeOf(session.compact({ preserveRecent: 0, maxSummaryTokens: 400 }));
      await wait(ms);
      await close(agent, session);
      expect(await compacting).toBe('CLOSED');
      expect(session.messages).toBe(messages);
      expect(agent.health()).toMatchObject({ openSessions: 0, activeSessions: 0, heldSequences: 0, savedBytes: 0 });
    }
  });

  it('while a tool runs ends the turn with CLOSED, and the tool is told', async () => {
    const agent = await startAgent({ contextSize: 4096 });
    let told: AbortSignal | undefined;
    let onCalled = () => {};
    const called = new Promise<void>((resolve) => {
      onCalled = resolve;
    });
    const lamp: Tool = {
      name: 'lamp',
      execute: (_args, context) => {
        told = context.signal;
        onCalled();
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
    const turn = outcomeOf(read());
    await called;
    await close(agent, session);
    expect(await turn).toBe('CLOSED');
    expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason: 'error', usage: { steps: 1 } });
    expect(told?.aborted).toBe(true);
    expect(agent.health()).toMatchObject({ openSessions: 0, activeSessions: 0, heldSequences: 0 });
  });

  it('while a server of its tools hangs in a call, or is connected again, ends the turn with CLOSED', async () => {
    for (const name of ['hang', 'pid']) {
      const silence = join(await temporaryDirectory(), 'silence');
      const agent = await startAgent({ contextSize: 4096, mcpServers: [stdio(silence)] });
      const pid = Number(await callOf(agent, 'pid'));
      const session = await agent.createSession();
      if (name === 'pid') {
        await writeFile(silence, '');
        await callOf(agent, 'die').catch(() => undefined); // and the next call starts it again, in vain
      }
      let onCalled = () => {};
      const called = new Promise<void>((resolve) => {
        onCalled = resolve;
      });
      const options = {
        toolChoice: { name },
        maxParallelTools: 1,
        maxTokens: 200,
        onToolCall: () => {
          onCalled();
          return true;
        },
      } as const;
      const turn = outcomeOf(session.send('Hello', options));
      await called;
      if (name === 'pid') {
        await vi.waitUntil(async () => (await readFile(silence, 'utf8')) !== '', { timeout: 30_000 });
      }
      await close(agent, session);
      expect(await turn).toBe('CLOSED');
      await agent.close();
      await isGone(pid);
      const again = name === 'pid' ? (await readFile(silence, 'utf8')).trim().split('\n').map(Number) : [];
      await Promise.all(again.map(isGone));
    }
  });
});

describe('closing an agent', () => {
  it('in the middle of restoring a session leaves none open, and nothing of its state', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    await (await talked(await startAgent())).save(path, { state: true });
    for (const ms of AFTER) {
      const agent = await startAgent();
      const restoring = agent.restoreSession(path);
      const outcome = outcomeOf(restoring);
      await wait(ms);
      await agent.close();
      expect(['done', 'CLOSED']).toContain(await outcome);
      expect((await restoring.catch(() => undefined))?.closed ?? true).toBe(true);
      expect(agent.health()).toMatchObject({ openSessions: 0, heldSequences: 0, savedBytes: 0 });
    }
  });

  it('while a server is connected again sends away who waits for it, and ends it', async () => {
    const silence = join(await temporaryDirectory(), 'silence');
    const agent = await startAgent({ mcpServers: [stdio(silence)] });
    await writeFile(silence, '');
    await callOf(agent, 'die').catch(() => undefined);
    const waiting = [
      agent.createSession(),
      agent.mcp.prompts(),
      agent.mcp.getPrompt({ server: 'here', name: 'greet' }),
    ];
    const outcomes = Promise.all(waiting.map(outcomeOf));
    await vi.waitUntil(async () => (await readFile(silence, 'utf8')) !== '', { timeout: 30_000 });
    await agent.close();
    expect(await outcomes).toEqual(['CLOSED', 'CLOSED', 'CLOSED']);
    await Promise.all((await readFile(silence, 'utf8')).trim().split('\n').map(Number).map(isGone));
  });

  it('while a server that no longer answers is being ended waits for that', async () => {
    const silence = join(await temporaryDirectory(), 'silence');
    const agent = await startAgent({ mcpServers: [stdio(silence, { callTimeoutMs: 50 })] });
    const pid = Number(await callOf(agent, 'pid'));
    const frozen = outcomeOf(callOf(agent, 'freeze'));
    await wait(200); // its time and that of the ping are over
    await agent.close();
    expect(isAlive(pid)).toBe(false);
    expect(['MCP_FAILED', 'CLOSED']).toContain(await frozen);
  });

  it('of which one part fails to close closes all others, and says what failed', async () => {
    const silence = join(await temporaryDirectory(), 'silence');
    const cacheDir = await temporaryDirectory();
    const agent = await AgentServer.initialize(agentOptions({ cacheDir, mcpServers: [stdio(silence)] }));
    const pid = Number(await callOf(agent, 'pid'));
    const session = await agent.createSession();
    const turn = outcomeOf(session.send('Hello', { maxTokens: 500 }));
    const { mcp } = agent;
    const close = mcp.close.bind(mcp);
    mcp.close = async () => {
      await close();
      throw new Error('the server would not end');
    };
    await expect(agent.close()).rejects.toThrow('the server would not end');
    mcp.close = close;
    expect(await turn).toBe('CLOSED');
    await isGone(pid);
    await expect(agent.model.tokenize('Hello')).rejects.toMatchObject({ code: 'CLOSED' });
    expect((await readdir(cacheDir)).filter((name) => /\.(lock|tmp)$/.test(name))).toEqual([]);
    await expect(agent.close()).rejects.toThrow('the server would not end'); // the same answer again
  });

  it('sends away who waits to change adapters, behind a completion that nobody reads on', async () => {
    const agent = await startAgent();
    const stream = agent.streamComplete('Hello', { maxTokens: 50 });
    await stream.next();
    const waiting = [agent.setLoras([]), agent.createSession(), agent.complete('Hi')].map(outcomeOf);
    await wait(5);
    await agent.close();
    expect(await Promise.all(waiting)).toEqual(['CLOSED', 'CLOSED', 'CLOSED']);
    await expect(stream.next()).resolves.toMatchObject({ value: { type: 'finish', finishReason: 'error' } });
    await expect(stream.next()).rejects.toMatchObject({ code: 'CLOSED' });
  });

  it('ends the download of an adapter', async () => {
    const hub = await FakeHub.start();
    hub.add('me/adapters', { 'a.gguf': Buffer.alloc(100_000) });
    hub.faults.push({ stallAfter: 1000 });
    const agent = await startAgent({ modelsDir: await temporaryDirectory() });
    const source = { type: 'huggingface', repo: 'me/adapters', filename: 'a.gguf', endpoint: hub.endpoint } as const;
    const setting = outcomeOf(agent.setLoras([{ source }]));
    await vi.waitUntil(() => hub.downloads.length > 0, { timeout: 30_000 });
    await agent.close();
    expect(await setting).toBe('CLOSED');
  });
});

it('lets the process end by itself, whatever was under way, and leaves no file that is not whole', async () => {
  const directory = await temporaryDirectory();
  const { stdout, ...rest } = await runChild('integration/children/closing.mjs', [
    microModel('dense'),
    program,
    directory,
  ]);
  expect({ ...rest, stdout: '' }).toEqual(CLEAN);
  const { outcomes, failing } = JSON.parse(stdout) as { outcomes: string[]; failing: string };
  expect(outcomes.filter((each) => each !== 'done' && each !== 'CLOSED')).toEqual([]);
  expect(outcomes.slice(0, 2)).toEqual(['CLOSED', 'CLOSED']);
  expect(failing).toBe('LORA_INVALID');
  const names = (await readdir(directory, { recursive: true })).filter((name) => /\.(tmp|lock)$/.test(name));
  expect(names).toEqual([]);
});

describe('a start that fails late', () => {
  /** What a failed start may not leave: its server's process, locks in the cache directory. */
  async function expectNothingLeft(silence: string, cacheDir: string, pids: readonly number[]): Promise<void> {
    await Promise.all(pids.map(isGone));
    expect((await readdir(cacheDir).catch(() => [])).filter((name) => name.endsWith('.lock'))).toEqual([]);
    expect(existsSync(silence)).toBe(false);
  }

  async function late() {
    const directory = await temporaryDirectory();
    const [silence, cacheDir] = [join(directory, 'silence'), join(directory, 'cache')];
    const pids: number[] = [];
    const server = stdio(silence);
    // At once: the start goes on meanwhile, and fails.
    const list = () => {
      for (const name of readdirSync('/proc').filter((each) => /^\d+$/.test(each))) {
        try {
          if (readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(silence)) {
            pids.push(Number(name));
          }
        } catch {} // it ended just now
      }
    };
    return { directory, silence, cacheDir, pids, server, list };
  }

  it.skipIf(process.platform !== 'linux')('for an adapter of another model closes all that was opened', async () => {
    const { directory, silence, cacheDir, pids, server, list } = await late();
    const wrong = await writeLora(directory, 'wrong', {}, 8);
    const starting = startAgent({
      cacheDir,
      mcpServers: [server],
      loras: [{ source: wrong }],
      onProgress: ({ phase, fraction }) => {
        if (phase === 'load' && fraction === 1) {
          list();
        }
      },
    });
    await expect(starting).rejects.toMatchObject({ code: 'LORA_INVALID' });
    expect(pids).toHaveLength(1);
    await expectNothingLeft(silence, cacheDir, pids);
  });

  it('for a signal that was aborted in any phase closes all that was opened, and says ABORTED', async () => {
    const outcomes = new Set<string>();
    for (const ms of [0, 1, 2, 4, 8, 16, 32]) {
      const { silence, cacheDir, server } = await late();
      const controller = new AbortController();
      const why = new Error('not now');
      const options = agentOptions({
        cacheDir,
        mcpServers: [server],
        signal: controller.signal,
        onProgress: ({ phase, fraction }) => {
          if (phase === 'load' && fraction === 1) {
            setTimeout(() => controller.abort(why), ms);
          }
        },
      });
      const starting = AgentServer.initialize(options);
      const outcome = await outcomeOf(starting);
      outcomes.add(outcome);
      if (outcome === 'done') {
        await (await starting).close();
      } else {
        await expect(starting).rejects.toMatchObject({ code: 'ABORTED', cause: why });
      }
      await expectNothingLeft(silence, cacheDir, []);
    }
    expect([...outcomes].every((each) => each === 'done' || each === 'ABORTED')).toBe(true);
    expect(outcomes).toContain('ABORTED');
  });

  it('for a signal that was aborted while the model is tested for `reproducible` does not go on testing', async () => {
    const controller = new AbortController();
    const decode = vi.spyOn(Context.prototype, 'decode');
    onTestFinished(() => decode.mockRestore());
    decode.mockImplementationOnce(function (this: Context, batch) {
      controller.abort();
      return this.decode(batch); // the real one, from the second call on
    });
    await expect(startAgent({ reproducible: true, signal: controller.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    expect(decode).toHaveBeenCalledTimes(2);
  });

  it('for a signal, while a server says nothing, ends that server', async () => {
    const silence = join(await temporaryDirectory(), 'silence');
    await writeFile(silence, '');
    const controller = new AbortController();
    const starting = outcomeOf(startAgent({ mcpServers: [stdio(silence)], signal: controller.signal }));
    await vi.waitUntil(async () => (await readFile(silence, 'utf8')) !== '', { timeout: 30_000 });
    controller.abort();
    expect(await starting).toBe('ABORTED');
    await isGone(Number(await readFile(silence, 'utf8')));
  });

  it('for one server does not wait for another that says nothing', async () => {
    const silence = join(await temporaryDirectory(), 'silence');
    await writeFile(silence, '');
    const broken: McpStdioServer = { name: 'broken', command: process.execPath, args: [program, 'broken'] };
    await expect(startAgent({ mcpServers: [stdio(silence), broken] })).rejects.toMatchObject({
      code: 'MCP_FAILED',
      message: expect.stringContaining('"broken"'),
    });
    const pids = (await readFile(silence, 'utf8')).trim().split('\n').filter(Boolean).map(Number);
    await Promise.all(pids.map(isGone));
  });

  it('for a model with room for no session frees the model: it can be loaded again and again', async () => {
    for (let round = 0; round < 3; round++) {
      const failing = AgentServer.initialize(
        agentOptions({ source: microModel('dense'), nSeqMax: 200, batchSize: 64 }),
      );
      await expect(failing).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    }
    const agent = await startAgent({ systemPrompt: numberedPrompt(1) });
    onTestFinished(() => agent.close());
    expect((await talked(agent)).messages).toHaveLength(4);
  });
});
