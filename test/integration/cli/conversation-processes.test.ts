// Tests `chat`, `run` and `launch` as processes of their own, in a pseudo-terminal and with closed pipes.
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { requireFreshDist } from '../../helpers/children.js';
import { CliProcess, hasPseudoTerminals } from '../../helpers/cli-process.js';
import { microModel } from '../../helpers/models.js';

let root: string;
let options: { cwd: string; env: NodeJS.ProcessEnv };

beforeAll(async () => {
  requireFreshDist();
  root = await mkdtemp(join(tmpdir(), 'llama-headstart cli '));
  options = { cwd: root, env: { XDG_CACHE_HOME: join(root, 'user cache') } };
});

afterAll(() => rm(root, { recursive: true, force: true }));

/** The words after the command: a micro model, and greedy replies. */
const model = () => [microModel('dense'), '--threads', '1', '--temperature', '0', '--context-size', '2048'];

describe.skipIf(!hasPseudoTerminals)('a conversation in a terminal of 40 columns', () => {
  it('shows Unicode, stops a reply at Ctrl-C, and leaves at the second one', async () => {
    const chat = CliProcess.inTerminal(['chat', ...model()], { ...options, columns: 40 });
    await chat.until('/help lists');
    await chat.until('> ');
    chat.type('Größe 日本語 🦙\r');
    await chat.until('日本語 🦙\r');
    const { length } = chat.stdout;
    await vi.waitFor(() => expect(chat.stdout.length).toBeGreaterThan(length + 100), { timeout: 60_000 });
    chat.type('\u0003');
    await chat.until('Stopped.');
    chat.type('\u0003');
    const { code, stdout } = await chat.result();
    expect(code, stdout).toBe(0);
    expect(stripVTControlCharacters(stdout)).toContain('The conversation contains the reply up to here.');
  });

  it('gives the terminal to a coding agent', async () => {
    const agent = join(root, 'opencode');
    await writeFile(agent, '#!/bin/sh\nif [ -t 0 ] && [ -t 1 ]; then echo agent in a terminal; fi\nexit 5\n');
    await chmod(agent, 0o755);
    const env = { ...options.env, PATH: `${root}${delimiter}${process.env.PATH}` };
    const argv = ['launch', 'opencode', '--model', microModel('dense'), '--context-size', '20000', '--port', '0'];
    const { code, stdout } = await CliProcess.inTerminal(argv, { ...options, env }).result();
    expect(stdout).toContain('agent in a terminal');
    expect(code).toBe(5);
  });
});

describe('a reply whose output is closed early', () => {
  it('ends quietly with code 0', async () => {
    const running = CliProcess.piped(['run', ...model(), 'Tell me everything', '--quiet'], options);
    running.child.stdin?.end();
    await running.until(' ');
    running.child.stdout?.destroy();
    const { code, stderr } = await running.result();
    expect([code, stderr]).toEqual([0, '']);
  });
});

describe.skipIf(process.platform === 'win32')('an interrupted server', () => {
  it('ends with the exit code of the signal, and prints no error', async () => {
    const argv = ['serve', microModel('dense'), '--threads', '1', '--port', '0', '--quiet'];
    const server = CliProcess.piped(argv, options);
    await server.until('Anthropic');
    server.child.kill('SIGINT');
    const { code, stderr } = await server.result();
    expect([code, stderr]).toEqual([130, '']);
  });
});
