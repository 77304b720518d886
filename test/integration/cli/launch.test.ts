// Tests `llama-headstart serve`, and `launch` with stand-ins for the coding agents.
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CODING_AGENTS } from 'llama-headstart/internal';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { temporaryDirectory } from '../../helpers/agents.js';
import { type CliResult, type RunningCli, runCli, startCli } from '../../helpers/cli.js';
import { microModel } from '../../helpers/models.js';

const standIn = fileURLToPath(new URL('../../helpers/stand-in-agent.mjs', import.meta.url));

let directory: string;

beforeEach(async () => {
  directory = join(await temporaryDirectory(), 'a folder with spaces');
  await mkdir(join(directory, 'tmp'), { recursive: true });
  vi.stubEnv('XDG_CACHE_HOME', join(directory, 'user cache'));
  vi.stubEnv('TMPDIR', join(directory, 'tmp'));
});

afterEach(() => {
  vi.unstubAllEnvs();
});

/** Installs a stand-in for an agent, and returns a `PATH` with it. */
async function installed(name: string): Promise<string> {
  const bin = join(directory, 'bin of user');
  await mkdir(bin, { recursive: true });
  await writeFile(join(bin, name), `#!/bin/sh\nexec "${process.execPath}" "${standIn}" ${name} "$@"\n`);
  await chmod(join(bin, name), 0o755);
  return `${bin}${delimiter}${process.env.PATH}`;
}

/** What a stand-in has seen. */
async function seen() {
  return JSON.parse(await readFile(join(directory, 'stand-in.json'), 'utf8'));
}

/** The options of a new server on a micro model. The longest head of an agent needs a context of 29,500 tokens. */
const serverOptions = (contextSize = 30_000) => [
  ...['--model', microModel('dense'), '--port', '0', '--threads', '1', '--context-size', String(contextSize)],
];

async function launch(argv: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<CliResult> {
  return runCli(['launch', ...argv], { cwd: directory, env });
}

describe('llama-headstart serve', () => {
  /** Starts a server, and waits for its addresses. */
  async function serve(...flags: string[]): Promise<RunningCli & { details: Record<string, unknown>; url: string }> {
    const argv = ['serve', microModel('dense'), '--port', '0', '--threads', '1', '--json', ...flags];
    const running = startCli(argv, { cwd: directory });
    await vi.waitFor(() => expect(running.stdout()).toContain('\n'), { timeout: 60_000 });
    const details = JSON.parse(running.stdout());
    return { ...running, details, url: details.url };
  }

  it('chooses the training length as context, answers requests, and ends cleanly at SIGTERM', async () => {
    const { url, details, kill, result } = await serve();
    expect(details).toMatchObject({ contextSize: 8192, trainContextSize: 8192, kvCells: 16_384 });
    const properties = await (await fetch(`${url}/props`)).json();
    expect(properties).toMatchObject({ default_generation_settings: { n_ctx: 8192 } });
    kill('SIGTERM');
    expect((await result).code).toBe(143);
    await expect(fetch(`${url}/props`)).rejects.toThrow();
  });

  it('accepts only clients with a key from the file', async () => {
    await writeFile(join(directory, 'keys.txt'), '# my keys\nsecret-1 tenant=me\n\nsecret-2 admin\n');
    const { url, kill, result } = await serve('--api-key-file', 'keys.txt');
    const status = async (key: string) =>
      (await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).status;
    expect([await status('secret-1'), await status('secret-2'), await status('secret-3')]).toEqual([200, 200, 401]);
    kill('SIGINT');
    expect((await result).code).toBe(130);
  });

  it.each<[string, string, string]>([
    ['an empty key file', '# none\n', 'Expected an API key'],
    ['an unknown word after a key', 'secret-1 root\n', 'in line 1 of'],
  ])('refuses %s without quoting a key', async (_, text, message) => {
    await writeFile(join(directory, 'keys.txt'), text);
    const { code, stderr } = await runCli(['serve', microModel('dense'), '--api-key-file', 'keys.txt'], {
      cwd: directory,
    });
    expect(code).toBe(2);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain('secret');
  });

  it('says what to do if the port is in use, and if other machines could reach a server without keys', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => other.once('listening', resolve));
    const { port } = other.address() as { port: number };
    const argv = ['serve', microModel('dense'), '--threads', '1'];
    const used = await runCli([...argv, '--port', String(port)], { cwd: directory });
    other.close();
    expect([used.code, used.stderr]).toEqual([1, expect.stringContaining('Choose another one with --port')]);
    const open = await runCli([...argv, '--host', '0.0.0.0'], { cwd: directory });
    expect([open.code, open.stderr]).toEqual([2, expect.stringContaining('Expected API keys to listen on 0.0.0.0')]);
  });

  it('refuses a context that memory cannot hold, and says which one fits', async () => {
    const argv = ['serve', microModel('dense'), '--context-size', String(2 ** 28), '--port', '0'];
    const { code, stderr } = await runCli(argv, { cwd: directory });
    expect(code).toBe(1);
    expect(stderr).toMatch(/The largest context that fits has \d+ tokens/);
  });
});

describe('llama-headstart launch', () => {
  it.each(Object.keys(CODING_AGENTS))('starts %s with a server, its context and its arguments', async (name) => {
    const PATH = await installed(name);
    const { code, stderr } = await launch([name, ...serverOptions(), '--', 'do it', '--json'], { PATH });
    expect(code, stderr).toBe(7); // the exit code of the agent
    const { status, contextSize, args, reply } = await seen();
    expect([status, contextSize], JSON.stringify(reply)).toEqual([200, 30_000]);
    expect(args.slice(-2)).toEqual(['do it', '--json']);
    expect(await readdir(join(directory, 'tmp'))).toEqual([]); // no temporary configuration is left
  });

  it('brings the template of the last run into the KV cache while the agent starts', async () => {
    const PATH = await installed('opencode');
    // Each run has its own cache directory, so the second run can know the template only from the first one.
    const run = async (cache: string) => {
      await launch(['opencode', ...serverOptions(), '--cache-dir', join(directory, cache)], { PATH });
      return (await seen()).reply.headstart.cache;
    };
    expect((await run('first')).cachedTokens).toBe(0);
    const { source, cachedTokens, prefilledTokens } = await run('second');
    expect(source).toBe('resident');
    expect(cachedTokens).toBeGreaterThan(prefilledTokens);
  });

  it('uses a server that is already running, with the key from its file', async () => {
    await writeFile(join(directory, 'keys.txt'), 'secret-1\n');
    const server = startCli(['serve', ...serverOptions(), '--json', '--api-key-file', 'keys.txt'], { cwd: directory });
    await vi.waitFor(() => expect(server.stdout()).toContain('\n'), { timeout: 60_000 });
    const port = new URL(JSON.parse(server.stdout()).url).port;
    const PATH = await installed('codex');
    const withKey = await launch(['codex', '--port', port, '--api-key-file', 'keys.txt'], { PATH });
    expect(withKey.code, withKey.stderr).toBe(7);
    expect(await seen()).toMatchObject({ status: 200, key: 'secret-1' });
    const without = await launch(['codex', '--port', port], { PATH });
    expect([without.code, without.stderr]).toEqual([2, expect.stringContaining('Expected an API key of the server')]);
    server.kill('SIGTERM');
    await server.result;
  });

  it('refuses an agent whose prompt does not fit the context', async () => {
    const PATH = await installed('qwen');
    const { code, stderr } = await launch(['qwen', ...serverOptions(29_000)], { PATH });
    expect(code).toBe(2);
    expect(stderr).toContain('Qwen Code needs a context of at least 29,500 tokens');
  });

  it('says how to install a missing agent, and which agents there are', async () => {
    const missing = await launch(['qwen', ...serverOptions()], { PATH: directory });
    expect(missing.code).toBe(127);
    expect(missing.stderr).toContain('Install it with `npm install --global @qwen-code/qwen-code`');
    const unknown = await launch(['claud']);
    expect(unknown.code).toBe(2);
    expect(unknown.stderr).toContain('Did you mean claude?');
  });

  it('ends the agent and the server at SIGTERM, and leaves Ctrl-C to the agent', async () => {
    const PATH = await installed('claude');
    const running = startCli(['launch', 'claude', ...serverOptions(), '--', 'wait'], { cwd: directory, env: { PATH } });
    await vi.waitFor(() => seen(), { timeout: 60_000 });
    running.kill('SIGINT');
    running.kill('SIGINT');
    const { key } = await seen();
    expect(key).toBe('none');
    running.kill('SIGTERM');
    expect((await running.result).code).toBe(143);
    expect(await readdir(join(directory, 'tmp'))).toEqual([]);
  });
});
