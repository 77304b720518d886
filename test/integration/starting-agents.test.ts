// Tests the start of an agent: progress, errors, and aborts. A failed start leaves no process, lock or model.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Client } from '@modelcontextprotocol/client';
import { AgentServer } from 'llama-headstart';
import type { McpStdioServer, ModelProgress } from 'llama-headstart/internal';
import { Context, Model } from 'llama-headstart/native';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { agentOptions, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { compileHelper } from '../helpers/processes.js';
import { numberedPrompt } from '../helpers/prompts.js';
import { ended, type SilentMcp, silentMcp } from '../helpers/silent-mcp.js';
import { outcomeOf, withCode } from '../helpers/turns.js';

describe('starting an agent', () => {
  it.each([
    ['MODEL_NOT_FOUND', { source: '/nowhere/model.gguf' }],
    ['MODEL_NOT_FOUND', { source: import.meta.dirname }],
    ['MODEL_INVALID', { source: import.meta.filename }],
    ['CONFIG_INVALID', { kvCells: 512, contextSize: 1024 }],
    ['CONFIG_INVALID', { nSeqMax: 200, maxResidentTemplates: 57 }],
    ['ABORTED', { signal: AbortSignal.abort() }],
  ] as const)('fails with %s for %o', async (code, settings) => {
    await expect(startAgent(settings)).rejects.toThrow(withCode(code));
  });

  it('on a model without tokenizer and chat template succeeds, but opening a session fails', async () => {
    const agent = await startAgent({ source: microModel('no-tokenizer') });
    await expect(agent.createSession()).rejects.toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^NO_(CHAT_TEMPLATE|TOKENIZER)$/) }),
    );
  });

  it('reports the progress of the load in rising fractions, and reports 1 before the start resolves', async () => {
    const reports: ModelProgress[] = [];
    await startAgent({ onProgress: (progress) => reports.push(progress) });
    const fractions = reports.map(({ fraction }) => fraction);
    expect(new Set(reports.map(({ phase }) => phase))).toEqual(new Set(['load']));
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(fractions[0]).toBeGreaterThanOrEqual(0);
    expect(fractions.at(-1)).toBe(1);
  });
});

/** Returns an `onProgress` function that calls `action` when the model has been loaded. The start then continues. */
const onLoaded =
  (action: () => void) =>
  ({ phase, fraction }: ModelProgress): void => {
    if (phase === 'load' && fraction === 1) {
      action();
    }
  };

/** Calls `abort` when a method is called, or when the promise that the method returned settles. */
function abortAt(
  when: 'call' | 'result',
  prototype: Record<string, (...args: unknown[]) => Promise<unknown>>,
  method: string,
  abort: () => void,
): void {
  const original = prototype[method] as (...args: unknown[]) => Promise<unknown>;
  const spy = vi.spyOn(prototype, method).mockImplementation(function (this: unknown, ...args) {
    if (when === 'call') {
      abort();
    }
    const calling = original.apply(this, args);
    return when === 'call' ? calling : calling.finally(abort);
  });
  onTestFinished(() => spy.mockRestore());
}

/** Returns the ids of the processes whose command line contains `text`. */
function processesWith(text: string): number[] {
  const ids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return ids.map(Number).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text);
    } catch {
      return false; // the process has just ended
    }
  });
}

describe('a failed start', () => {
  const setUp = async () => ({ mcp: await silentMcp(), cacheDir: join(await temporaryDirectory(), 'cache') });

  async function expectNothingLeft(mcp: SilentMcp, cacheDir: string, pids: readonly number[] = []): Promise<void> {
    await ended(...pids);
    expect((await readdir(cacheDir).catch(() => [])).filter((name) => name.endsWith('.lock'))).toEqual([]);
    expect(existsSync(mcp.file)).toBe(false); // the server was never silenced, so it can end by itself
  }

  it.skipIf(process.platform !== 'linux')(
    'because of an adapter of another model ends the MCP servers and frees all locks',
    async () => {
      const { mcp, cacheDir } = await setUp();
      const source = await writeLora(await temporaryDirectory(), 'wrong', {}, 8);
      let pids: number[] = [];
      const starting = startAgent({
        cacheDir,
        mcpServers: [mcp.server],
        loras: [{ source }],
        onProgress: onLoaded(() => {
          pids = processesWith(mcp.file);
        }),
      });
      await expect(starting).rejects.toMatchObject({ code: 'LORA_INVALID' });
      expect(pids).toHaveLength(1);
      await expectNothingLeft(mcp, cacheDir, pids);
    },
  );

  it('by an abort when the model has been loaded throws ABORTED and frees all locks', async () => {
    const { mcp, cacheDir } = await setUp();
    const controller = new AbortController();
    const reason = new Error('not now');
    const onProgress = onLoaded(() => controller.abort(reason));
    const starting = startAgent({ cacheDir, mcpServers: [mcp.server], signal: controller.signal, onProgress });
    await expect(starting).rejects.toMatchObject({ code: 'ABORTED', cause: reason });
    await expectNothingLeft(mcp, cacheDir);
  });

  it.each<[string, 'call' | 'result', object, string]>([
    ['the context is being created', 'call', Model.prototype, 'createContext'],
    ['the context has been created', 'result', Model.prototype, 'createContext'],
    ['an MCP server is being connected', 'call', Client.prototype, 'connect'],
    ['an MCP server has been connected', 'result', Client.prototype, 'connect'],
    ['an MCP server is asked for its tools', 'call', Client.prototype, 'request'],
  ])('by an abort when %s throws ABORTED and frees all locks', async (_, when, prototype, method) => {
    const { mcp, cacheDir } = await setUp();
    const controller = new AbortController();
    const reason = new Error('not now');
    abortAt(when, prototype as never, method, () => controller.abort(reason));
    const starting = startAgent({ cacheDir, mcpServers: [mcp.server], signal: controller.signal });
    await expect(starting).rejects.toMatchObject({ code: 'ABORTED', cause: reason });
    await expectNothingLeft(mcp, cacheDir);
  });

  it('by an abort during the self-test for `reproducible` ends the self-test', async () => {
    const controller = new AbortController();
    const decode = vi.spyOn(Context.prototype, 'decode');
    onTestFinished(() => decode.mockRestore());
    decode.mockImplementationOnce(function (this: Context, batch) {
      controller.abort();
      return this.decode(batch); // the real method, because only the first call is mocked
    });
    await expect(startAgent({ reproducible: true, signal: controller.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    expect(decode).toHaveBeenCalledTimes(2);
  });

  it('by an abort while an MCP server does not answer ends that server', async () => {
    const mcp = await silentMcp();
    await mcp.silence();
    const controller = new AbortController();
    const starting = outcomeOf(startAgent({ mcpServers: [mcp.server], signal: controller.signal }));
    const pids = await mcp.silentPids();
    controller.abort();
    expect(await starting).toBe('ABORTED');
    await ended(...pids);
  });

  it('because of a broken MCP server does not wait for another server that does not answer', async () => {
    const mcp = await silentMcp();
    await mcp.silence();
    const args = [await compileHelper('mcp-server'), 'broken'];
    const broken: McpStdioServer = { name: 'broken', command: process.execPath, args };
    await expect(startAgent({ mcpServers: [mcp.server, broken] })).rejects.toMatchObject({
      code: 'MCP_FAILED',
      message: expect.stringContaining('"broken"'),
    });
    await ended(...processesIn(readFileSync(mcp.file, 'utf8')));
  });

  it('because of invalid options does not prevent a later start with valid options', async () => {
    for (let round = 0; round < 3; round++) {
      const failing = AgentServer.initialize(
        agentOptions({ source: microModel('dense'), nSeqMax: 200, batchSize: 64 }),
      );
      await expect(failing).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    }
    const agent = await startAgent({ systemPrompt: numberedPrompt(1) });
    const session = await agent.createSession();
    await replies(session, ['Hello', 'And now?'], 8);
    expect(session.messages).toHaveLength(4);
  });
});

/** Returns the process ids in the file of a silent server: none if the server ended before it wrote its id. */
function processesIn(text: string): number[] {
  return text.trim().split('\n').filter(Boolean).map(Number);
}
