// Tests `llama-headstart models list`, `pull` and `rm`, with a Hub on this machine.
import { access, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Model } from 'llama-headstart/native';
import { describe, expect, it, vi } from 'vitest';
import { temporaryDirectory } from '../../helpers/agents.js';
import { runCli, startCli } from '../../helpers/cli.js';
import { sha256 } from '../../helpers/hub.js';
import { hashOf, model, other, REPO, startHub, useEmptyEnvironment } from '../../helpers/model-hub.js';
import { microModel } from '../../helpers/models.js';

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

describe('`llama-headstart models inspect`', () => {
  const inspect = async (...argv: string[]) =>
    JSON.parse((await runCli(['models', 'inspect', ...argv, '--json'])).stdout);

  it('describes a file without its weights: context, memory, chat template and tools', async () => {
    expect(await inspect(microModel('dense'))).toMatchObject({
      path: microModel('dense'),
      architecture: 'qwen2',
      quantization: 'F16',
      trainContextSize: 8192,
      recurrent: false,
      slidingWindow: null,
      memory: expect.arrayContaining([{ contextSize: 8192, bytes: expect.any(Number) }]),
      chatTemplate: { describesTools: true, toolsFormat: expect.any(String), reasoning: false, usesClock: false },
      problem: null,
    });
    const { stdout } = await runCli(['models', 'inspect', microModel('dense')]);
    expect(stdout).toContain('trained with 8,192 tokens');
    expect(stdout).toMatch(/^ {2}tools +described by the chat template, replies in the format /m);
  });

  it('computes the bytes of the KV cache that a token really needs', async () => {
    const { kvBytesPerToken } = await inspect(microModel('dense'));
    const tokens = 1024;
    const lab = await Model.load({ path: microModel('dense') });
    const context = await lab.createContext({ kvCells: 2 * tokens });
    const ids = new Int32Array(tokens).fill(5);
    const half = tokens / 2;
    const sizes: number[] = [];
    for (const from of [0, half]) {
      await context.decode({
        tokens: ids.slice(0, half),
        positions: Int32Array.from({ length: half }, (_, index) => from + index),
        sequences: new Int32Array(half),
        outputs: new Uint8Array(half),
      });
      sizes.push(await context.stateBytes(0));
    }
    await lab.close();
    const [first = 0, second = 0] = sizes;
    const measured = (second - first) / half; // a state has some more bytes for the position of each token
    expect(measured).toBeGreaterThanOrEqual(kvBytesPerToken);
    expect(measured).toBeLessThan(kvBytesPerToken + 64);
  });

  it('recognizes recurrent, hybrid and sliding-window models, and models without a tokenizer', async () => {
    expect(await inspect(microModel('wide-q4_k'))).toMatchObject({ quantization: expect.stringMatching(/^Q4_K/) });
    expect(await inspect(microModel('recurrent'))).toMatchObject({ recurrent: true });
    expect(await inspect(microModel('hybrid'))).toMatchObject({ recurrent: true });
    expect(await inspect(microModel('sliding-window'))).toMatchObject({ recurrent: false, slidingWindow: 64 });
    expect(await inspect(microModel('no-tokenizer'))).toMatchObject({ chatTemplate: null });
  });

  it('describes a downloaded model by its name, and downloads nothing', async () => {
    const { hub, run, directory } = await startModels();
    await run('pull', `hf:${REPO}`);
    const requests = hub.requests.length;
    const description = await inspect(`hf:${REPO}`, '--models-dir', directory);
    expect(description.path).toContain('tiny.Q4_K_M.gguf');
    const other = await run('inspect', 'hf:makers/unknown');
    expect([other.code, other.stderr]).toEqual([1, expect.stringContaining('No downloaded model in')]);
    expect(hub.requests).toHaveLength(requests);
  });

  it('reports files that are not models', async () => {
    const path = join(await temporaryDirectory(), 'no.gguf');
    await writeFile(path, 'GGUF but not really');
    const { code, stderr } = await runCli(['models', 'inspect', path]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^✗ /)]);
    expect(stderr).not.toContain('models inspect FILE'); // the command itself is no advice here
  });
});
