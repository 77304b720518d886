// Tests models on the Hugging Face Hub: the choice of files, revisions, and access.
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { AgentServer, resolveModel } from 'llama-headstart';
import type { ModelProgress } from 'llama-headstart/internal';
import { describe, expect, it, vi } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { failsWith } from '../helpers/errors.js';
import { sha256 } from '../helpers/hub.js';
import { filesBelow, hashOf, model, other, REPO, startHub, useEmptyEnvironment } from '../helpers/model-hub.js';

useEmptyEnvironment();

describe('a model on the Hub', () => {
  it('is downloaded, verified, loaded, and replies', async () => {
    const { hub, directory } = await startHub();
    const phases: ModelProgress[] = [];
    const agent = await AgentServer.initialize({
      model: {
        source: { type: 'huggingface', repo: REPO, endpoint: hub.endpoint },
        modelsDir: directory,
        cacheDir: null,
        contextSize: 512,
        nThreads: 1,
      },
      onProgress: (progress) => phases.push(progress),
    });
    const session = await agent.createSession();
    expect((await session.send('Hello', { maxTokens: 4 })).usage.outputTokens).toBeGreaterThan(0);
    await agent.close();
    expect(new Set(phases.map(({ phase }) => phase))).toEqual(new Set(['resolve', 'download', 'load']));
    const last = phases.findLast(({ phase }) => phase === 'download');
    expect(last).toEqual({
      phase: 'download',
      fraction: 1,
      bytes: model.length,
      total: model.length,
      file: 'tiny.Q8_0.gguf',
    });
    expect(await filesBelow(directory)).toEqual(['main.json', 'tiny.Q8_0.gguf']);
  });

  it('is downloaded once, and then used without a network', async () => {
    const { hub, download } = await startHub();
    const { path } = await download();
    expect((await download()).path).toBe(path);
    expect(hub.downloads).toHaveLength(1);
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    const requests = hub.requests.length;
    expect((await download()).path).toBe(path);
    expect(hub.requests).toHaveLength(requests);
    vi.stubEnv('HF_HUB_OFFLINE', '');
    await hub.stop();
    expect((await download()).path).toBe(path);
    await expect(download({ revision: 'other' })).rejects.toThrow(failsWith('DOWNLOAD_FAILED'));
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    await expect(download({ revision: 'other' })).rejects.toThrow(failsWith('MODEL_NOT_FOUND', 'HF_HUB_OFFLINE'));
  });

  it('is not downloaded if HF_HUB_OFFLINE is set, even if the file list of the repository is known', async () => {
    const config = Buffer.from('{"temperature":0.7}');
    const { hub, download } = await startHub({
      'tiny-Q4_K_M.gguf': model,
      'tiny-Q8_0.gguf': other,
      'generation_config.json': config,
    });
    const { path } = await download();
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    const requests = hub.requests.length;
    await expect(download({ quantization: 'Q8_0' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', 'tiny-Q8_0.gguf of makers/tiny-GGUF to be on this machine, because HF_HUB_OFFLINE'),
    );
    expect(await download({}, { generationConfig: true })).toEqual({ path, generationConfig: undefined });
    expect(hub.requests).toHaveLength(requests);
  });

  it('comes from the requested revision; each call checks branches and tags again, but not commits', async () => {
    const { hub, download, directory } = await startHub();
    await download({ revision: 'v2/beta' });
    expect(hub.requests.map(({ url }) => url).slice(0, 2)).toEqual([
      `/api/models/${REPO}/revision/v2%2Fbeta`,
      `/api/models/${REPO}/tree/${hub.commit}?recursive=true`,
    ]);
    expect(await filesBelow(directory)).toContain('v2%2Fbeta.json');
    await download({ revision: hub.commit });
    const requests = hub.requests.length;
    await download({ revision: hub.commit });
    expect(hub.requests).toHaveLength(requests);
    await download({ revision: 'v2/beta' });
    expect(hub.requests.length).toBeGreaterThan(requests);
    expect(hub.downloads).toHaveLength(1);
  });

  it('is not downloaded again for a commit that does not change it', async () => {
    const { hub, download } = await startHub({ 'tiny.gguf': model, 'README.md': Buffer.from('old') });
    const { path } = await download();
    hub.commit = 'beef'.padEnd(40, '0');
    hub.add(REPO, { 'tiny.gguf': model, 'README.md': Buffer.from('new') });
    expect((await download()).path).toBe(path);
    hub.add(REPO, { 'tiny.gguf': other });
    const changed = (await download()).path;
    expect(changed).not.toBe(path);
    expect(await hashOf(changed)).toBe(sha256(other));
    expect(await hashOf(path)).toBe(sha256(model));
  });

  it('is chosen by file name, quantization or folder; by default it is the Q4_K_M file or the only one', async () => {
    const { hub, download } = await startHub({
      'tiny-Q4_K_M.gguf': model,
      'tiny-Q4_K_S.gguf': other,
      'tiny-IQ4_K_M.gguf': other,
      'mmproj-tiny-Q4_K_M.gguf': other,
      'big/tiny-Q8_0.gguf': other,
      'README.md': Buffer.from('# Tiny'),
    });
    const nameOf = async (source: object) => basename((await download(source)).path);
    expect(await nameOf({})).toBe('tiny-Q4_K_M.gguf');
    expect(await nameOf({ quantization: 'q4_k_s' })).toBe('tiny-Q4_K_S.gguf');
    expect(await nameOf({ filename: 'big/tiny-Q8_0.gguf' })).toBe('tiny-Q8_0.gguf');
    expect(await nameOf({ folder: 'big' })).toBe('tiny-Q8_0.gguf');
    expect(await nameOf({ folder: 'big', filename: 'tiny-Q8_0.gguf' })).toBe('tiny-Q8_0.gguf');
    await expect(download({ quantization: 'Q2_K' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', /"Q2_K".*tiny-Q4_K_M/),
    );
    await expect(download({ filename: 'tiny-Q4_KM.gguf' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', 'did you mean "tiny-Q4_K_M.gguf"'),
    );
    hub.add(REPO, { 'a-F16.gguf': model, 'b-F16.gguf': model });
    await expect(download({ quantization: 'F16' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', /a-F16.*b-F16.*filename/),
    );
    await expect(download()).rejects.toThrow(failsWith('MODEL_NOT_FOUND', 'Q4_K_M'));
  });

  it('is downloaded with all its parts into one directory, whichever part is requested', async () => {
    const parts = [1, 2, 3].map((index) => `q/tiny-0000${index}-of-00003.gguf`);
    const contents = parts.map((name) => Buffer.concat([Buffer.from('GGUF'), Buffer.from(name), randomBytes(1000)]));
    const { hub, download } = await startHub(
      Object.fromEntries(parts.map((name, index) => [name, contents[index] as Buffer])),
    );
    hub.pageSize = 2; // the list of files has several pages
    const seen: ModelProgress[] = [];
    const { path } = await download(
      { filename: parts[1] as string },
      { onProgress: (progress) => seen.push(progress) },
    );
    expect(basename(path)).toBe('tiny-00001-of-00003.gguf');
    for (const [index, name] of parts.entries()) {
      expect(await hashOf(join(dirname(path), basename(name)))).toBe(sha256(contents[index] as Buffer));
    }
    const total = contents.reduce((sum, { length }) => sum + length, 0);
    expect(seen.at(-1)).toMatchObject({ bytes: total, total, fraction: 1 });
    hub.add(REPO, { [parts[0] as string]: model, [parts[2] as string]: model });
    await expect(download()).rejects.toThrow(failsWith('MODEL_NOT_FOUND', /3 parts.*00002-of-00003/));
  });

  it('is never written outside of its directory, whatever paths the Hub lists', async () => {
    const { download } = await startHub({
      '../../evil.gguf': model,
      '/etc/evil.gguf': model,
      'a\\..\\evil.gguf': model,
    });
    await expect(download()).rejects.toThrow(failsWith('MODEL_NOT_FOUND', 'found none'));
    await expect(download({ filename: '../../evil.gguf' })).rejects.toThrow(failsWith('CONFIG_INVALID', 'filename'));
  });
});

describe('access to the Hub', () => {
  it('sends the token to the Hub, and not to the server to which the Hub redirects', async () => {
    const { hub, download } = await startHub();
    hub.token = 'hf_secret';
    await expect(download()).rejects.toThrow(failsWith('UNAUTHORIZED', /401.*token/));
    await download({ token: 'hf_secret' });
    expect(hub.downloads).toHaveLength(1);
    expect(hub.downloads[0]?.headers.authorization).toBeUndefined();
    expect(hub.requests.filter(({ host }) => host === 'hub').at(-1)?.headers.authorization).toBe('Bearer hf_secret');
  });

  it("takes token and endpoint from the environment, or the token from the user's file", async () => {
    const { hub, directory } = await startHub();
    hub.token = 'hf_secret';
    vi.stubEnv('HF_ENDPOINT', hub.endpoint);
    vi.stubEnv('LLAMA_HEADSTART_MODELS_DIR', directory);
    await expect(resolveModel(`hf:${REPO}`)).rejects.toThrow(failsWith('UNAUTHORIZED'));
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    expect((await resolveModel(`hf:${REPO}:Q8_0`)).path.startsWith(directory)).toBe(true);
    await expect(resolveModel({ type: 'huggingface', repo: REPO, token: null })).rejects.toThrow(
      failsWith('UNAUTHORIZED'),
    );
    vi.stubEnv('HF_TOKEN', '');
    const home = await temporaryDirectory();
    await writeFile(join(home, 'token'), 'hf_secret\n');
    vi.stubEnv('HF_HOME', home);
    expect(basename((await resolveModel(`hf:${REPO}/tiny.Q8_0.gguf`)).path)).toBe('tiny.Q8_0.gguf');
  });

  it('reports an invalid endpoint or token, without showing the token', async () => {
    const { download } = await startHub();
    for (const endpoint of ['hub.example.org', 'ftp://hub.example.org']) {
      vi.stubEnv('HF_ENDPOINT', endpoint);
      await expect(resolveModel(`hf:${REPO}`)).rejects.toThrow(
        failsWith('CONFIG_INVALID', `HF_ENDPOINT.*"${endpoint}"`),
      );
    }
    await expect(download({ token: 'hf_sec\nret' })).rejects.toThrow(failsWith('CONFIG_INVALID', /token(?!.*hf_sec)/));
  });

  it('reports a missing repository or file, a bad request, and missing access', async () => {
    const { hub, download } = await startHub();
    await expect(download({ repo: 'makers/nothing' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', /makers\/nothing.*404 \(Repository not found\)/),
    );
    hub.faults.push({ status: 404 });
    await expect(download()).rejects.toThrow(failsWith('MODEL_NOT_FOUND', '404'));
    hub.apiFaults.push({ status: 400 });
    await expect(download()).rejects.toThrow(failsWith('DOWNLOAD_FAILED', '400'));
    hub.apiFaults.push({ status: 403, headers: { 'x-error-message': 'Access to it is restricted.' } });
    await expect(download()).rejects.toThrow(failsWith('UNAUTHORIZED', 'restricted'));
  });
});
