// Tests the tools of MCP servers in the sessions of an agent.
import { join } from 'node:path';
import type { AgentServer, Session } from 'llama-headstart';
import { describe, expect, it, vi } from 'vitest';
import { startAgent, temporaryDirectory } from '../helpers/agents.js';
import { failsWith } from '../helpers/errors.js';
import { call, log, stdio } from '../helpers/mcp.js';
import { ended } from '../helpers/silent-mcp.js';

describe('the MCP servers of an agent', () => {
  const options = { toolChoice: { name: 'echo' }, maxSteps: 1, maxTokens: 200 } as const;

  it('give their tools to every session, and changed tools to new sessions', async () => {
    const agent = await startAgent({
      name: 'dense',
      mcpServers: [stdio('here', { allowedTools: ['echo', 'learn', 'learned'] })],
    });
    const session = await agent.createSession();
    const [schema] = (await agent.mcp.tools()).map(({ inputSchema }) => inputSchema);
    expect(schema).toMatchObject({ properties: { text: { type: 'string' } } });
    const { toolResults } = await session.send('Hello', { ...options, sampling: { seed: 1, temperature: 1 } });
    expect(toolResults.length).toBeGreaterThan(0);
    for (const { toolName, isError } of toolResults) {
      expect({ toolName, isError }).toEqual({ toolName: 'echo', isError: false });
    }
    await call(agent.mcp, 'learn');
    await vi.waitUntil(async () => (await agent.mcp.tools()).some(({ name }) => name === 'learned'), {
      timeout: 30_000,
    });
    const later = await agent.createSession();
    expect(later.report.templateTokens).toBeGreaterThan(session.report.templateTokens);
    expect((await agent.createSession()).report).toMatchObject({ source: 'resident', cache: 'hit' });
  });

  it('may die in a turn: the model gets an error, and the next call starts the server again', async () => {
    const agent = await startAgent({ mcpServers: [stdio('here', { allowedTools: ['die', 'pid'] })] });
    const session = await agent.createSession();
    const called = async (name: string) => {
      const { toolResults } = await session.send('Hello', { ...options, maxParallelTools: 1, toolChoice: { name } });
      expect(toolResults).toHaveLength(1);
      return toolResults[0];
    };
    const before = await called('pid');
    expect(before).toMatchObject({ isError: false, output: expect.stringMatching(/^\d+$/) });
    expect(await called('die')).toMatchObject({ isError: true, output: expect.stringContaining('"die" failed') });
    expect(session.messages.at(-1)).toMatchObject({ role: 'tool', content: expect.stringContaining('failed') });
    const after = await called('pid');
    expect(after).toMatchObject({ isError: false });
    expect(after?.output).not.toBe(before?.output);
  });

  it('may list invalid tools, which are left out with a warning, and tool names with unusual characters', async () => {
    const agent = await startAgent({
      contextSize: 4096,
      mcpServers: [stdio('odd')],
      logger: (_, line) => log.push(line),
    });
    const session = await agent.createSession();
    for (const name of ['no_schema', 'endless', 'nnn']) {
      expect(log.join('\n')).toMatch(new RegExp(`Left out the tool "${name}.*" of the MCP server "odd"`));
    }
    const { toolResults } = await session.send('Hello', { ...options, toolChoice: { name: 'gr__e_l_ngs' } });
    expect(toolResults[0]).toMatchObject({ toolName: 'gr__e_l_ngs', isError: false });
  });

  it("may have a tool with the name of one of the agent's own tools", async () => {
    const tools = [
      { name: 'echo', description: 'mine', inputSchema: { type: 'object', properties: {} }, execute: () => 'mine' },
    ];
    const agent = await startAgent({ tools, mcpServers: [stdio('here', { allowedTools: ['echo'] })] });
    const session = await agent.createSession();
    const { toolResults } = await session.send('Hello', { ...options, toolChoice: { name: 'echo' } });
    expect(toolResults.map(({ output }) => output)).toContain('mine');
    await expect(session.send('Hello', { toolChoice: { name: 'nothing' } })).rejects.toThrow(
      failsWith('INVALID_ARGUMENT', '"echo", "here__echo"'),
    );
  });

  it("run their tools in a restored session too, and never replace the session's own tools", async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const pid = { name: 'pid', description: 'mine', execute: () => 'mine' };
    const { execute: _, ...silent } = pid;
    const agent = await startAgent({ mcpServers: [stdio('here', { allowedTools: ['pid', 'echo'] })] });
    const session = await agent.createSession({ tools: [pid] });
    const { key } = session.report;
    await session.save(path);
    await session.close();
    const outputs = async (restored: Session, name: string) => {
      const request = { ...options, toolChoice: { name }, maxParallelTools: 1, sampling: { seed: 1, temperature: 1 } };
      return (await (await restored.fork()).send('Hello', request)).toolResults.map(({ output }) => output);
    };
    for (const [restoreOptions, ownOutputs] of [
      [{}, []],
      [{ tools: [pid] }, ['mine']],
      [{ tools: [silent] }, []],
    ] as const) {
      const restored = await agent.restoreSession(path, restoreOptions);
      expect(restored.report.key).toBe(key);
      expect(await outputs(restored, 'pid')).toEqual(ownOutputs);
      expect(await outputs(restored, 'here__pid')).toEqual([expect.stringMatching(/^\d+$/)]);
      await restored.close();
    }
    const without = await agent.restoreSession(path, { tools: [] });
    await expect(without.send('Hello', { toolChoice: { name: 'none' } })).rejects.toThrow(
      failsWith('INVALID_ARGUMENT', /\("echo", "here__pid"\)/),
    );
    await without.close();
    const own = { name: 'here__pid', execute: () => 'mine now' };
    expect(await outputs(await agent.restoreSession(path, { tools: [own] }), 'here__pid')).toEqual(['mine now']);
  });

  it('run the tools of a saved session even if the names of tools have changed since', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const here = stdio('here', { allowedTools: ['pid'] });
    const there = stdio('there', { allowedTools: ['pid'] });
    const openAndSave = async (agent: AgentServer) => {
      const session = await agent.createSession();
      await session.save(path);
    };
    for (const [before, now, name] of [
      [[here], [here, there], 'pid'],
      [[here, there], [here], 'here__pid'],
    ] as const) {
      await openAndSave(await startAgent({ mcpServers: before }));
      const agent = await startAgent({ mcpServers: now });
      const restored = await agent.restoreSession(path);
      const request = { ...options, toolChoice: { name }, maxParallelTools: 1, sampling: { seed: 1, temperature: 1 } };
      const { toolResults } = await restored.send('Hello', request);
      expect(toolResults).toMatchObject([{ toolName: name, output: expect.stringMatching(/^\d+$/) }]);
    }
  });

  it('end when the agent is closed, and when its start fails', async () => {
    const agent = await startAgent({ mcpServers: [stdio('here')] });
    const pid = Number(await call(agent.mcp, 'pid'));
    await agent.close();
    await ended(pid);
    await expect(startAgent({ mcpServers: [stdio('broken')] })).rejects.toThrow(failsWith('MCP_FAILED', 'broken'));
    await expect(startAgent({ mcpServers: [{ name: 'x' } as never] })).rejects.toThrow(
      failsWith('CONFIG_INVALID', '`command`'),
    );
  });
});
