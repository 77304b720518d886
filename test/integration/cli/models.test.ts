// Tests `llama-headstart models list`, `pull` and `rm`, with a Hub on this machine.
import { access, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { temporaryDirectory } from '../../helpers/agents.js';
import { runCli, startCli } from '../../helpers/cli.js';
import { sha256 } from '../../helpers/hub.js';
import { hashOf, model, other, REPO, startHub, useEmptyEnvironment } from '../../helpers/model-hub.js';

useEmptyEnvironment();

const FILES = { 'tiny.Q8_0.gguf': model, 'big/tiny.Q4_K_M.gguf': other };
const NAMES = { q4: `hf:${REPO}/big/tiny.Q4_K_M.gguf`, q8: `hf:${REPO}/tiny.Q8_0.gguf` };

/** A Hub with two models, and a function that runs a command with a models directory of its own. */
async function startModels() {
  const { hub } = await startHub(FILES);
  vi.stubEnv('HF_ENDPOINT', hub.endpoint);
  const directory = join(await temporaryDirectory(), 'my models');
  const run = (...argv: string[]) => runCli(['models', ...argv, '--models-dir', directory]);
  const listed = async () =>
    JSON.parse((await run('list', '--json')).stdout) as {
      models: { name: string; path: string }[];
      unfinished: object[];
    };
  return { hub, directory, run, listed };
}

describe('`llama-headstart models`', () => {
  it('downloads a model, lists it by the name that commands accept, and deletes it', async () => {
    const { run, listed, directory } = await startModels();
    expect((await run('list')).stdout).toMatch(/^No models in .*my models\. `llama-headstart models pull/);
    const pulled = await run('pull', `hf:${REPO}`);
    expect(pulled.code, pulled.stderr).toBe(0);
    const path = pulled.stdout.trim();
    expect(await hashOf(path)).toBe(sha256(other)); // the Q4_K_M file is the default
    await run('pull', `hf:${REPO}:Q8_0`);
    expect((await listed()).models.map(({ name }) => name)).toEqual([NAMES.q4, NAMES.q8]);
    expect((await run('list')).stdout).toContain(NAMES.q8);
    const removed = await run('rm', NAMES.q4, '--yes', '--json');
    expect(JSON.parse(removed.stdout)).toMatchObject({ removed: [{ name: NAMES.q4, path }], bytes: other.length });
    await expect(access(path)).rejects.toThrow();
    expect((await listed()).models.map(({ name }) => name)).toEqual([NAMES.q8]);
    await run('rm', `hf:${REPO}`, '--yes');
    expect((await listed()).models).toEqual([]);
    expect(await readdir(directory)).toEqual([]);
  });

  it('names models by their quantization, file name and path', async () => {
    const { run, listed } = await startModels();
    await run('pull', `hf:${REPO}`);
    await run('pull', `hf:${REPO}:Q8_0`);
    for (const wanted of [`hf:${REPO}:q8_0`, 'tiny.Q4_K_M.gguf']) {
      expect((await run('rm', wanted, '--yes')).code).toBe(0);
    }
    expect((await listed()).models).toEqual([]);
  });

  it('refuses to delete an unknown model or without an answer, and suggests a name', async () => {
    const { run, listed, directory } = await startModels();
    await run('pull', `hf:${REPO}`);
    const unknown = await run('rm', 'tiny.Q4_K_S.gguf', '--yes');
    expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining('Did you mean "tiny.Q4_K_M.gguf"?')]);
    const outside = join(await temporaryDirectory(), 'outside.gguf');
    await writeFile(outside, model);
    expect((await run('rm', outside, '--yes')).code).toBe(1);
    expect((await run('rm', join(directory, '..', 'outside.gguf'), '--yes')).code).toBe(1);
    const unanswered = await run('rm', NAMES.q4);
    expect([unanswered.code, unanswered.stderr]).toEqual([2, expect.stringContaining('pass --yes')]);
    expect((await listed()).models).toHaveLength(1);
    await access(outside);
  });

  it('lists models that somebody put there, without projectors, and unfinished downloads', async () => {
    const { listed, directory } = await startModels();
    await mkdir(join(directory, 'mine'), { recursive: true });
    for (const name of ['own model.gguf', 'mmproj-own.gguf', 'notes.txt', 'half.gguf.part']) {
      await writeFile(join(directory, 'mine', name), model);
    }
    const { models, unfinished } = await listed();
    const path = join(directory, 'mine', 'own model.gguf');
    expect(models).toEqual([expect.objectContaining({ name: path, path, bytes: model.length, isComplete: true })]);
    expect(unfinished).toEqual([{ path: join(directory, 'mine', 'half.gguf.part'), bytes: model.length }]);
  });

  it('keeps the received bytes if Ctrl-C stops a download, and continues after them', async () => {
    const { hub, run, directory, listed } = await startModels();
    hub.faults.push({ stallAfter: 100_000 });
    const pulling = startCli(['models', 'pull', NAMES.q8, '--models-dir', directory]);
    const isReceived = async () =>
      (await listed()).unfinished.some((part) => (part as { bytes: number }).bytes >= 100_000);
    while (!(await isReceived())) await new Promise((resolve) => setTimeout(resolve, 20));
    pulling.kill('SIGINT');
    expect(await pulling.result).toMatchObject({ code: 130, stdout: '' });
    const { code, stdout } = await run('pull', NAMES.q8);
    expect(code).toBe(0);
    expect(await hashOf(stdout.trim())).toBe(sha256(model));
    expect(hub.requests.at(-1)?.headers.range).toMatch(/^bytes=\d{5,}-/);
  });

  it('reports a repository that does not exist, with what to do', async () => {
    const { run } = await startModels();
    const { code, stderr } = await run('pull', 'hf:nobody/nothing');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^✗ /m);
    expect(stderr).toContain('nobody/nothing');
  });
});
