// Real model files, served by a Hub on this machine and brought here through its faults.
import { randomBytes } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { AgentServer, type ModelSource, resolveModel, type SamplingOptions } from 'llama-headstart';
import type { ModelProgress, ResolveModelOptions } from 'llama-headstart/internal';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type AgentSettings, EXACT, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { withMetadata } from '../helpers/gguf-metadata.js';
import { FakeHub, sha256 } from '../helpers/hub.js';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { inOtherProcess } from '../helpers/processes.js';
import { smallDisk } from '../helpers/small-disk.js';
import { splitGguf } from '../helpers/split-gguf.js';

const REPO = 'makers/tiny-GGUF';
const retryConfig = { initialDelayMs: 1, maxDelayMs: 5, stallTimeoutMs: 300 };

const model = await readFile(microModel('dense'));
const other = await readFile(microModel('dense-other'));

const failsWith = (code: string, message: RegExp | string = '') =>
  expect.objectContaining({ name: 'HeadstartError', code, message: expect.stringMatching(message) });

beforeEach(async () => {
  for (const name of ['HF_TOKEN', 'HF_ENDPOINT', 'HF_HUB_OFFLINE', 'HF_TOKEN_PATH', 'LLAMA_HEADSTART_MODELS_DIR']) {
    vi.stubEnv(name, '');
  }
  vi.stubEnv('HF_HOME', '/nowhere');
});
afterEach(() => vi.unstubAllEnvs());

/** A Hub with one repository, a directory for what is fetched, and a fetch. */
async function place(files: Record<string, Buffer> = { 'tiny.Q8_0.gguf': model }) {
  const hub = await FakeHub.start();
  hub.add(REPO, files);
  const directory = await temporaryDirectory();
  const log: string[] = [];
  const fetchModel = (source: Partial<ModelSource> = {}, options: ResolveModelOptions = {}) =>
    resolveModel({ type: 'huggingface', repo: REPO, endpoint: hub.endpoint, ...source } as ModelSource, {
      modelsDir: directory,
      retryConfig,
      logger: (_, line) => log.push(line),
      ...options,
    });
  return { hub, directory, log, fetchModel };
}

/** Comparing large buffers would take vitest seconds. */
const hashOf = async (path: string) => sha256(await readFile(path));

const filesBelow = async (directory: string) =>
  (await readdir(directory, { recursive: true, withFileTypes: true }))
    .filter((each) => each.isFile())
    .map(({ name }) => name)
    .sort();

describe('a model on the Hub', () => {
  it('is fetched, verified, loaded and talked to', async () => {
    const { hub, directory } = await place();
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

  it('is fetched once, then asked for by name alone, and used without any network', async () => {
    const { hub, fetchModel } = await place();
    const { path } = await fetchModel();
    expect((await fetchModel()).path).toBe(path);
    expect(hub.downloads).toHaveLength(1);
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    const asked = hub.requests.length;
    expect((await fetchModel()).path).toBe(path);
    expect(hub.requests).toHaveLength(asked);
    vi.stubEnv('HF_HUB_OFFLINE', '');
    await hub.stop();
    expect((await fetchModel()).path).toBe(path);
    await expect(fetchModel({ revision: 'other' })).rejects.toThrow(failsWith('DOWNLOAD_FAILED'));
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    await expect(fetchModel({ revision: 'other' })).rejects.toThrow(failsWith('MODEL_NOT_FOUND', 'HF_HUB_OFFLINE'));
  });

  it('is not fetched where HF_HUB_OFFLINE forbids it, though the repository is known', async () => {
    const config = Buffer.from('{"temperature":0.7}');
    const { hub, fetchModel } = await place({
      'tiny-Q4_K_M.gguf': model,
      'tiny-Q8_0.gguf': other,
      'generation_config.json': config,
    });
    const { path } = await fetchModel();
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    const asked = hub.requests.length;
    await expect(fetchModel({ quantization: 'Q8_0' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', 'tiny-Q8_0.gguf of makers/tiny-GGUF was never fetched .* HF_HUB_OFFLINE'),
    );
    expect(await fetchModel({}, { generationConfig: true })).toEqual({ path, generationConfig: undefined });
    expect(hub.requests).toHaveLength(asked);
  });

  it('is that of the revision: a branch or tag is asked for again, a commit never', async () => {
    const { hub, fetchModel, directory } = await place();
    await fetchModel({ revision: 'v2/beta' });
    expect(hub.requests.map(({ url }) => url).slice(0, 2)).toEqual([
      `/api/models/${REPO}/revision/v2%2Fbeta`,
      `/api/models/${REPO}/tree/${hub.commit}?recursive=true`,
    ]);
    expect(await filesBelow(directory)).toContain('v2%2Fbeta.json');
    await fetchModel({ revision: hub.commit });
    const asked = hub.requests.length;
    await fetchModel({ revision: hub.commit });
    expect(hub.requests).toHaveLength(asked);
    await fetchModel({ revision: 'v2/beta' });
    expect(hub.requests.length).toBeGreaterThan(asked);
    expect(hub.downloads).toHaveLength(1);
  });

  it('is not fetched again for a new commit that leaves it alone', async () => {
    const { hub, fetchModel } = await place({ 'tiny.gguf': model, 'README.md': Buffer.from('old') });
    const { path } = await fetchModel();
    hub.commit = 'beef'.padEnd(40, '0');
    hub.add(REPO, { 'tiny.gguf': model, 'README.md': Buffer.from('new') });
    expect((await fetchModel()).path).toBe(path);
    hub.add(REPO, { 'tiny.gguf': other });
    const changed = (await fetchModel()).path;
    expect(changed).not.toBe(path);
    expect(await hashOf(changed)).toBe(sha256(other));
    expect(await hashOf(path)).toBe(sha256(model));
  });

  it('is chosen by file name, quantisation or folder, else Q4_K_M, else the only one', async () => {
    const { hub, fetchModel } = await place({
      'tiny-Q4_K_M.gguf': model,
      'tiny-Q4_K_S.gguf': other,
      'tiny-IQ4_K_M.gguf': other,
      'mmproj-tiny-Q4_K_M.gguf': other,
      'big/tiny-Q8_0.gguf': other,
      'README.md': Buffer.from('# Tiny'),
    });
    const nameOf = async (source: object) => basename((await fetchModel(source)).path);
    expect(await nameOf({})).toBe('tiny-Q4_K_M.gguf');
    expect(await nameOf({ quantization: 'q4_k_s' })).toBe('tiny-Q4_K_S.gguf');
    expect(await nameOf({ filename: 'big/tiny-Q8_0.gguf' })).toBe('tiny-Q8_0.gguf');
    expect(await nameOf({ folder: 'big' })).toBe('tiny-Q8_0.gguf');
    expect(await nameOf({ folder: 'big', filename: 'tiny-Q8_0.gguf' })).toBe('tiny-Q8_0.gguf');
    await expect(fetchModel({ quantization: 'Q2_K' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', /"Q2_K".*tiny-Q4_K_M/),
    );
    await expect(fetchModel({ filename: 'tiny-Q4_KM.gguf' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', 'did you mean "tiny-Q4_K_M.gguf"'),
    );
    hub.add(REPO, { 'a-F16.gguf': model, 'b-F16.gguf': model });
    await expect(fetchModel({ quantization: 'F16' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', /a-F16.*b-F16.*filename/),
    );
    await expect(fetchModel()).rejects.toThrow(failsWith('MODEL_NOT_FOUND', 'Q4_K_M'));
  });

  it('comes with all of its parts, whichever is named, in one place', async () => {
    const parts = [1, 2, 3].map((index) => `q/tiny-0000${index}-of-00003.gguf`);
    const contents = parts.map((name) => Buffer.concat([Buffer.from('GGUF'), Buffer.from(name), randomBytes(1000)]));
    const { hub, fetchModel } = await place(
      Object.fromEntries(parts.map((name, index) => [name, contents[index] as Buffer])),
    );
    hub.pageSize = 2; // and the listing has pages
    const seen: ModelProgress[] = [];
    const { path } = await fetchModel(
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
    await expect(fetchModel()).rejects.toThrow(failsWith('MODEL_NOT_FOUND', /3 parts.*00002-of-00003/));
  });

  it('never leaves its directory, whatever a listing names', async () => {
    const { fetchModel } = await place({
      '../../evil.gguf': model,
      '/etc/evil.gguf': model,
      'a\\..\\evil.gguf': model,
    });
    await expect(fetchModel()).rejects.toThrow(failsWith('MODEL_NOT_FOUND', 'found none'));
    await expect(fetchModel({ filename: '../../evil.gguf' })).rejects.toThrow(failsWith('CONFIG_INVALID', 'filename'));
  });
});

describe('a download', () => {
  const half = Math.floor(model.length / 2);

  it('goes on where the connection dropped, as often as it brings something new', async () => {
    const { hub, fetchModel, log } = await place();
    const piece = Math.floor(model.length / 8);
    hub.faults.push(...Array.from({ length: 6 }, () => ({ dropAfter: piece })));
    expect(await hashOf((await fetchModel()).path)).toBe(sha256(model));
    const starts = hub.downloads.map(({ headers }) => Number(/\d+/.exec(headers.range ?? '0')?.[0]));
    expect(starts).toHaveLength(7);
    expect(starts.at(-1)).toBeGreaterThan(piece);
    expect(starts).toEqual(starts.toSorted((a, b) => a - b));
    expect(log).toHaveLength(6);
  });

  it('goes on after a stall', async () => {
    const { hub, fetchModel, log } = await place();
    hub.faults.push({ stallAfter: half });
    expect(await hashOf((await fetchModel()).path)).toBe(sha256(model));
    expect(log.join()).toMatch(/sent nothing for 300 ms/);
    expect(hub.downloads[1]?.headers.range).toBe(`bytes=${half}-`);
  });

  it('gives up after maxRetries tries that bring nothing, and goes on from there the next time', async () => {
    const { hub, fetchModel, directory } = await place();
    hub.faults.push({ stallAfter: half }, ...Array.from({ length: 3 }, () => ({ status: 503 })));
    await expect(fetchModel()).rejects.toThrow(failsWith('DOWNLOAD_FAILED', '503'));
    expect(hub.downloads).toHaveLength(4); // half of it, then three tries without anything new
    expect(await filesBelow(directory)).toEqual(['main.json', 'tiny.Q8_0.gguf.part', 'tiny.Q8_0.gguf.part.json']);
    expect(await hashOf((await fetchModel()).path)).toBe(sha256(model));
    expect(hub.downloads.at(-1)?.headers.range).toBe(`bytes=${half}-`);
    expect(await filesBelow(directory)).toEqual(['main.json', 'tiny.Q8_0.gguf']);
  });

  it('begins anew where the server does not resume, or has other content now', async () => {
    const { hub, fetchModel } = await place();
    hub.faults.push({ dropAfter: half }, { ignoreRange: true });
    expect(await hashOf((await fetchModel()).path)).toBe(sha256(model));
    const changed = await place();
    changed.hub.faults.push({ dropAfter: half, etag: '"old"', body: other }, {});
    expect(await hashOf((await changed.fetchModel()).path)).toBe(sha256(model));
    const lying = await place();
    lying.hub.faults.push({ dropAfter: half }, { headers: { 'content-range': 'bytes 7-9/10' } });
    expect(await hashOf((await lying.fetchModel()).path)).toBe(sha256(model));
  });

  it('refuses content of another hash or size, and keeps nothing of it', async () => {
    for (const wrong of [
      Buffer.from(model.map((byte, at) => (at === 5000 ? byte ^ 1 : byte))),
      model.subarray(0, half),
      Buffer.concat([model, model]),
    ]) {
      const { hub, fetchModel, directory } = await place();
      hub.faults.push(...Array.from({ length: 4 }, () => ({ body: wrong })));
      await expect(fetchModel()).rejects.toThrow(failsWith('DOWNLOAD_CORRUPT'));
      expect(hub.faults).toEqual([]);
      expect(await filesBelow(directory)).toEqual(['main.json']);
      expect(await hashOf((await fetchModel()).path)).toBe(sha256(model));
    }
  });

  it('survives damage in what an earlier process left', async () => {
    const { hub, fetchModel, directory } = await place();
    hub.faults.push({ stallAfter: half }, ...Array.from({ length: 3 }, () => ({ status: 503 })));
    await expect(fetchModel()).rejects.toThrow();
    const part = join(
      directory,
      (await readdir(directory, { recursive: true })).find((name) => name.endsWith('.part')) as string,
    );
    await writeFile(part, randomBytes(half + 10));
    await writeFile(`${part}.json`, 'no JSON');
    expect(await hashOf((await fetchModel()).path)).toBe(sha256(model));
  });

  it('tells how much of what an earlier process left is verified, before it goes on', async () => {
    const { hub, fetchModel } = await place();
    hub.faults.push({ stallAfter: half }, ...Array.from({ length: 3 }, () => ({ status: 503 })));
    await expect(fetchModel()).rejects.toThrow();
    const seen: ModelProgress[] = [];
    await fetchModel({}, { onProgress: (progress) => seen.push(progress) });
    const verified = seen.filter(({ phase }) => phase === 'verify');
    expect(verified.at(-1)).toEqual({
      phase: 'verify',
      fraction: 1,
      bytes: half,
      total: half,
      file: 'tiny.Q8_0.gguf',
    });
    expect(seen.at(-1)).toMatchObject({ phase: 'download', fraction: 1, bytes: model.length, total: model.length });
  });

  it('waits as long as a 429 asks', async () => {
    const { hub, fetchModel, log } = await place();
    hub.faults.push({ status: 429, headers: { 'retry-after': '0.05' } });
    hub.apiFaults.push({ status: 429, headers: { 'retry-after': new Date(Date.now() + 60_000).toUTCString() } });
    await fetchModel({}, { retryConfig: { ...retryConfig, maxDelayMs: 100 } });
    expect(log[0]).toMatch(/429.*trying again in 100 ms/);
    expect(log[1]).toMatch(/429.*trying again in 50 ms/);
  });

  it('sends the token to the Hub, and to nobody it redirects to', async () => {
    const { hub, fetchModel } = await place();
    hub.token = 'hf_secret';
    await expect(fetchModel()).rejects.toThrow(failsWith('UNAUTHORIZED', /401.*token/));
    await fetchModel({ token: 'hf_secret' });
    expect(hub.downloads).toHaveLength(1);
    expect(hub.downloads[0]?.headers.authorization).toBeUndefined();
    expect(hub.requests.filter(({ host }) => host === 'hub').at(-1)?.headers.authorization).toBe('Bearer hf_secret');
  });

  it("takes token and endpoint from the environment, and the token from the user's file", async () => {
    const { hub, directory } = await place();
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

  it('says of an endpoint or a token that cannot be one, and never shows the token', async () => {
    const { fetchModel } = await place();
    for (const endpoint of ['hub.example.org', 'ftp://hub.example.org']) {
      vi.stubEnv('HF_ENDPOINT', endpoint);
      await expect(resolveModel(`hf:${REPO}`)).rejects.toThrow(
        failsWith('CONFIG_INVALID', `HF_ENDPOINT.*"${endpoint}"`),
      );
    }
    await expect(fetchModel({ token: 'hf_sec\nret' })).rejects.toThrow(
      failsWith('CONFIG_INVALID', /token(?!.*hf_sec)/),
    );
  });

  it('says what is not there', async () => {
    const { hub, fetchModel } = await place();
    await expect(fetchModel({ repo: 'makers/nothing' })).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', /makers\/nothing.*404 \(Repository not found\)/),
    );
    hub.faults.push({ status: 404 });
    await expect(fetchModel()).rejects.toThrow(failsWith('MODEL_NOT_FOUND', '404'));
    hub.apiFaults.push({ status: 400 });
    await expect(fetchModel()).rejects.toThrow(failsWith('DOWNLOAD_FAILED', '400'));
    hub.apiFaults.push({ status: 403, headers: { 'x-error-message': 'Access to it is restricted.' } });
    await expect(fetchModel()).rejects.toThrow(failsWith('UNAUTHORIZED', 'restricted'));
  });

  it('ends at an abort: before it begins, in the middle, and while it waits', async () => {
    const { hub, fetchModel, directory } = await place();
    const reason = new Error('enough');
    await expect(fetchModel({}, { signal: AbortSignal.abort(reason) })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: reason,
    });
    for (const fault of [{ stallAfter: half }, { status: 503 }]) {
      hub.faults.push(fault);
      const abort = new AbortController();
      const fetching = fetchModel(
        {},
        {
          signal: abort.signal,
          retryConfig: { initialDelayMs: 60_000, maxDelayMs: 60_000, stallTimeoutMs: 60_000 },
          onProgress: ({ bytes }) => bytes && abort.abort(),
          logger: () => abort.abort(),
        },
      );
      await expect(fetching).rejects.toThrow(failsWith('ABORTED'));
    }
    expect(await filesBelow(directory)).not.toContain('tiny.Q8_0.gguf');
    expect(await hashOf((await fetchModel()).path)).toBe(sha256(model));
  });

  it('is done once for callers that ask at the same time, in one process and in several', async () => {
    const { hub, fetchModel, directory } = await place();
    const paths = await Promise.all([
      fetchModel(),
      fetchModel(),
      ...[1, 2].map(() =>
        inOtherProcess('resolve', {
          source: { type: 'huggingface', repo: REPO, endpoint: hub.endpoint },
          options: { modelsDir: directory, retryConfig },
        }),
      ),
    ]);
    expect(new Set(paths.map(({ path }) => path)).size).toBe(1);
    expect(hub.downloads).toHaveLength(1);
    expect(await filesBelow(directory)).toEqual(['main.json', 'tiny.Q8_0.gguf']);
  });

  it('is taken over, and resumed, when the process that had begun it is killed', async () => {
    const { hub, fetchModel, directory } = await place();
    hub.faults.push({ stallAfter: half });
    const kill = new AbortController();
    const killed = inOtherProcess(
      'resolve',
      {
        source: { type: 'huggingface', repo: REPO, endpoint: hub.endpoint },
        options: { modelsDir: directory, retryConfig: { stallTimeoutMs: 60_000 } },
      },
      { signal: kill.signal },
    );
    killed.catch(() => undefined);
    // Waiting for the child's lock, this process sees its file grow.
    await vi.waitUntil(() => hub.downloads.length === 1, { timeout: 60_000 });
    await fetchModel(
      {},
      {
        onProgress: ({ phase, bytes }) => phase === 'wait' && bytes === half && kill.abort(),
      },
    );
    await expect(killed).rejects.toThrow();
    expect(hub.downloads[1]?.headers.range).toBe(`bytes=${half}-`);
    expect(await filesBelow(directory)).toEqual(['main.json', 'tiny.Q8_0.gguf']);
  });

  it('says that the disk is full before it begins, and where it cannot write', async ({ skip }) => {
    const { fetchModel } = await place();
    const small = smallDisk(join(await temporaryDirectory(), 'disk'), '64k');
    if (small === undefined) {
      skip('no file systems can be mounted here');
      return;
    }
    await expect(fetchModel({}, { modelsDir: small })).rejects.toThrow(failsWith('DISK_FULL', 'free bytes'));
    const file = join(small, 'not-a-directory');
    await writeFile(file, '');
    await expect(fetchModel({}, { modelsDir: file })).rejects.toThrow(failsWith('WRITE_FAILED'));
  });

  it('says that the disk filled up on the way, and goes on from there once there is room', async ({ skip }) => {
    const { fetchModel, hub } = await place();
    const small = smallDisk(join(await temporaryDirectory(), 'disk'), `${Math.ceil(model.length / 1024) + 64}k`);
    if (small === undefined) {
      skip('no file systems can be mounted here');
      return;
    }
    const filler = join(small, 'of-another-program');
    const fill = () => {
      try {
        for (;;) {
          appendFileSync(filler, Buffer.alloc(4096));
        }
      } catch {} // now it is full
    };
    hub.faults.push({ dropAfter: model.length >> 1 }); // so that more has to come after the first report
    const onProgress = ({ phase, bytes = 0 }: ModelProgress) => phase === 'download' && bytes > 0 && fill();
    await expect(fetchModel({}, { modelsDir: small, onProgress })).rejects.toThrow(failsWith('DISK_FULL'));
    await rm(filler);
    const before = hub.downloads.length;
    expect(await hashOf((await fetchModel({}, { modelsDir: small })).path)).toBe(sha256(model));
    expect(hub.downloads[before]?.headers.range).toMatch(/^bytes=[1-9]/);
  });
});

describe('generation_config.json', () => {
  const config = Buffer.from('{"temperature":0.7,"top_k":20,"top_p":0.8,"repetition_penalty":1.1,"do_sample":true}');
  const parsed = JSON.parse(config.toString());

  it('comes with the model where it is asked for, and is kept beside it', async () => {
    const { fetchModel, hub } = await place({ 'tiny.gguf': model, 'generation_config.json': config });
    expect((await fetchModel()).generationConfig).toBeUndefined();
    expect((await fetchModel({}, { generationConfig: true })).generationConfig).toEqual(parsed);
    await hub.stop();
    const offline = await fetchModel({}, { generationConfig: true });
    expect(offline.generationConfig).toEqual(parsed);
    expect((await resolveModel(offline.path, { generationConfig: true })).generationConfig).toEqual(parsed);
  });

  it('is that of the model it was made from, where the repository has none', async () => {
    const { fetchModel, hub } = await place();
    hub.baseModel = 'makers/tiny';
    hub.add('makers/tiny', { 'generation_config.json': config });
    expect((await fetchModel({}, { generationConfig: true })).generationConfig).toEqual(parsed);
  });

  it('comes along while a model is downloaded, and is never fetched for itself', async () => {
    const { fetchModel, hub } = await place({ 'tiny.gguf': model, 'generation_config.json': config });
    const asked = () =>
      hub.requests.filter(({ host, url }) => host === 'hub' && url.includes('generation_config')).length;
    await fetchModel();
    const { generationConfig } = await fetchModel({}, { generationConfig: 'with-model' });
    expect([generationConfig, asked()]).toEqual([undefined, 0]); // the model was there already
    const fresh = await temporaryDirectory();
    const along = await fetchModel({}, { generationConfig: 'with-model', modelsDir: fresh });
    expect([along.generationConfig, asked()]).toEqual([parsed, 1]);
    const again = await fetchModel({}, { generationConfig: 'with-model', modelsDir: fresh });
    expect([again.generationConfig, asked()]).toEqual([parsed, 1]);
  });

  it('of the model it was made from is not asked for while a model is downloaded', async () => {
    const { fetchModel, hub } = await place();
    hub.baseModel = 'makers/tiny';
    hub.add('makers/tiny', { 'generation_config.json': config });
    expect((await fetchModel({}, { generationConfig: 'with-model' })).generationConfig).toBeUndefined();
    expect(hub.requests.filter(({ url }) => url.includes('makers/tiny/'))).toEqual([]);
  });

  it('is how an agent samples by default; what a request sets itself wins', async () => {
    const folder = await temporaryDirectory();
    const source = join(folder, 'tiny.gguf');
    await copyFile(microModel('dense'), source);
    await writeFile(join(folder, 'generation_config.json'), '{"temperature":1.3,"top_k":9,"do_sample":true}');
    const reply = async (settings: AgentSettings, sampling: SamplingOptions) => {
      const session = await (await startAgent({ source, ...settings })).createSession();
      return (await session.send('Tell me more.', { maxTokens: 32, sampling })).text;
    };
    const greedy = await reply({ useHfParams: false, sampling: { temperature: 0 } }, {});
    const recommended = await reply({ sampling: {} }, { seed: 7 });
    expect(recommended).not.toBe(greedy);
    expect(recommended).toBe(await reply({ useHfParams: false }, { seed: 7, temperature: 1.3, topK: 9 }));
    expect(recommended).not.toBe(await reply({ useHfParams: false }, { seed: 7, temperature: 1.3 }));
    expect(await reply({ sampling: {} }, { temperature: 0 })).toBe(greedy);
    expect(await reply({ sampling: { temperature: 0 } }, {})).toBe(greedy);
    await writeFile(join(folder, 'generation_config.json'), '{"temperature":1.3,"top_k":9,"top_p":7}');
    const warnings: string[] = [];
    const logger = (_: string, message: string) => warnings.push(message);
    expect(await reply({ sampling: {}, logger }, { seed: 7 })).toBe(recommended);
    expect(warnings.join()).toMatch(/Left out `topP`/);
  });

  it('has the file beside it: what that recommends counts too, options together that go together', async () => {
    const source = join(await temporaryDirectory(), 'tiny.gguf');
    const file = await readFile(microModel('dense'));
    const recommended = { temp: 1.5, mirostat: 2, mirostat_tau: 1, mirostat_eta: 0.5 };
    const pairs = Object.entries(recommended).map(([name, value]) => [`general.sampling.${name}`, value] as const);
    await writeFile(source, withMetadata(file, Object.fromEntries(pairs)));
    type Layers = Partial<Record<'agent' | 'session' | 'turn', SamplingOptions>>;
    const reply = async (useHfParams: boolean, layers: Layers) => {
      const agent = await startAgent({ source, useHfParams, sampling: layers.agent ?? {} });
      const session = await agent.createSession({ sampling: layers.session ?? {} });
      return (await session.send('Tell me more.', { maxTokens: 32, sampling: { seed: 7, ...layers.turn } })).text;
    };
    const text = await reply(true, {});
    expect(text).toBe(await reply(false, { turn: { temperature: 1.5, mirostat: { version: 2, tau: 1, eta: 0.5 } } }));
    expect(text).not.toBe(await reply(false, { turn: { temperature: 1.5 } }));
    const greedy = await reply(false, { turn: { temperature: 0 } });
    for (const layer of ['agent', 'session', 'turn'] as const) {
      expect(await reply(true, { [layer]: { temperature: 0 } }), layer).toBe(greedy);
    }
  });

  it('is no reason to fail', async () => {
    const { fetchModel, hub, log } = await place({ 'tiny.gguf': model, 'generation_config.json': config });
    hub.faults.push({}, { status: 404 });
    expect((await fetchModel({}, { generationConfig: true })).generationConfig).toBeUndefined();
    expect(log.join()).toMatch(/No generation_config.json of makers\/tiny-GGUF could be had.*404/);
  });
});

describe('a model at an address', () => {
  it('is fetched, with its headers sent to that origin only', async () => {
    const { hub, directory } = await place();
    const url = `${hub.endpoint}/${REPO}/resolve/main/tiny.Q8_0.gguf`;
    const source = { type: 'url', url, headers: { 'x-key': 'secret' } } as const;
    const { path } = await resolveModel(source, { modelsDir: directory, retryConfig });
    expect(await hashOf(path)).toBe(sha256(model));
    expect(hub.requests.map(({ host, headers }) => [host, headers['x-key']])).toEqual([
      ['hub', 'secret'],
      ['cdn', undefined],
    ]);
    expect((await resolveModel(url, { modelsDir: directory })).path).toBe(path);
    expect(hub.downloads).toHaveLength(1);
  });

  it('goes on only where the content is the same', async () => {
    const { hub, directory } = await place();
    const url = `${hub.cdn}/${REPO}/tiny.Q8_0.gguf`;
    hub.faults.push({ stallAfter: 5000, body: other, etag: '"a"' }, {});
    expect(await hashOf((await resolveModel(url, { modelsDir: directory, retryConfig })).path)).toBe(sha256(model));
    expect(hub.downloads[1]?.headers['if-range']).toBe('"a"');
  });

  it('is checked against a SHA-256, and for being a GGUF file', async () => {
    const { hub, directory } = await place({ 'page.gguf': Buffer.from('<!DOCTYPE html>'), 'tiny.gguf': model });
    const url = `${hub.cdn}/${REPO}/page.gguf`;
    await expect(resolveModel(url, { modelsDir: directory, retryConfig })).rejects.toThrow(
      failsWith('DOWNLOAD_CORRUPT', /"<!DO".*web page/),
    );
    const tiny = { type: 'url', url: `${hub.cdn}/${REPO}/tiny.gguf` } as const;
    const wrong = { ...tiny, sha256: sha256(other) };
    await expect(resolveModel(wrong, { modelsDir: directory, retryConfig })).rejects.toThrow(
      failsWith('DOWNLOAD_CORRUPT', sha256(other)),
    );
    await resolveModel({ ...tiny, sha256: sha256(model).toUpperCase() }, { modelsDir: directory, retryConfig });
  });

  it('in parts tells of all their bytes, and of a total once every size is known', async () => {
    const names = [1, 2].map((index) => `tiny-0000${index}-of-00002.gguf`);
    const parts = [model, Buffer.concat([model, randomBytes(100)])];
    const { hub, directory } = await place(Object.fromEntries(names.map((name, at) => [name, parts[at] as Buffer])));
    const seen: ModelProgress[] = [];
    const onProgress = (progress: ModelProgress) => seen.push(progress);
    await resolveModel(`${hub.cdn}/${REPO}/${names[0]}`, { modelsDir: directory, retryConfig, onProgress });
    const total = 2 * model.length + 100;
    const ends = names.map((name) => seen.findLast(({ file }) => file === name));
    expect(ends[0]).toEqual({ phase: 'download', fraction: 0, bytes: model.length, file: names[0] });
    expect(ends[1]).toEqual({ phase: 'download', fraction: 1, bytes: total, total, file: names[1] });
  });

  it('may have a name that no decoder takes', async () => {
    const { directory } = await place();
    const options = { modelsDir: directory, retryConfig: { maxRetries: 0 } };
    await expect(resolveModel('http://127.0.0.1:9/tiny%.gguf', options)).rejects.toThrow(
      failsWith('DOWNLOAD_FAILED', 'tiny%.gguf'),
    );
  });

  it('is refused where it redirects without end, or to what is no web address', async () => {
    const { hub, directory } = await place();
    const url = `${hub.cdn}/a/b/c.gguf`;
    hub.faults.push(...Array.from({ length: 11 }, () => ({ status: 302, headers: { location: url } })));
    await expect(resolveModel(url, { modelsDir: directory, retryConfig })).rejects.toThrow(
      failsWith('DOWNLOAD_FAILED', '10 times'),
    );
    hub.faults.push({ status: 302, headers: { location: 'file:///etc/passwd' } });
    await expect(resolveModel(url, { modelsDir: directory, retryConfig })).rejects.toThrow(
      failsWith('DOWNLOAD_FAILED', 'redirect'),
    );
  });
});

describe('a LoRA adapter', () => {
  it('comes from where models come from, and changes the reply', async () => {
    const { hub, directory } = await place();
    const folder = await temporaryDirectory();
    const probe = await startAgent();
    const adapter = await writeLora(folder, 'adapter', { seed: 3 }, probe.model.info.embeddingSize);
    hub.add('makers/adapter', { 'adapter.gguf': await readFile(adapter) });
    const settings = { modelsDir: directory, ...EXACT };
    const source = { type: 'huggingface', repo: 'makers/adapter', endpoint: hub.endpoint } as const;
    const [plain] = await replies(await (await startAgent(settings)).createSession(), ['Hello']);
    const adapted = await startAgent({ ...settings, loras: [{ source, scale: 8 }] });
    const session = await adapted.createSession();
    const [first] = await replies(session, ['Hello']);
    expect(first).not.toBe(plain);
    const [local] = await replies(
      await (await startAgent({ ...settings, loras: [{ source: adapter, scale: 8 }] })).createSession(),
      ['Hello'],
    );
    expect(first).toBe(local);
    await adapted.setLoras([]);
    expect(await replies(await adapted.createSession(), ['Hello'])).toEqual([plain]);
    await expect(adapted.setLoras([{ source: join(folder, 'nothing.gguf') }])).rejects.toThrow(
      failsWith('LORA_NOT_FOUND'),
    );
    hub.token = 'secret';
    await expect(adapted.setLoras([{ source: { ...source, revision: 'v2' } }])).rejects.toThrow(
      failsWith('UNAUTHORIZED'),
    );
  });
});

describe('a split model', () => {
  it('says what the whole one says, from a folder, by any part, from the Hub, and from an address', async () => {
    const folder = await temporaryDirectory();
    const names = await splitGguf(microModel('dense'), folder, 'tiny', 3);
    const parts = await Promise.all(names.map((name) => readFile(join(folder, name))));
    const { hub, directory } = await place(Object.fromEntries(names.map((name, at) => [name, parts[at] as Buffer])));
    const settings = { modelsDir: directory, retryConfig };
    const reply = async (more: AgentSettings) => {
      const agent = await startAgent({ ...settings, ...more });
      const said = await replies(await agent.createSession(), ['Hello'], 12);
      await agent.close();
      return said;
    };
    const whole = await reply({});
    const sources = [
      folder,
      join(folder, names[1] as string),
      { type: 'huggingface', repo: REPO, filename: names[2] as string, endpoint: hub.endpoint } as const,
      `${hub.cdn}/${REPO}/${names[0]}`,
    ];
    for (const source of sources) {
      expect(await reply({ source }), JSON.stringify(source)).toEqual(whole);
    }
    await rm(join(folder, names[2] as string));
    await expect(startAgent({ source: folder })).rejects.toThrow(failsWith('MODEL_NOT_FOUND', names[2]));
  });
});

describe('a local model', () => {
  it('is a file, a folder with one, or any part of a split one', async () => {
    const folder = await temporaryDirectory();
    await copyFile(microModel('dense'), join(folder, 'a.gguf'));
    expect((await resolveModel(folder)).path).toBe(join(folder, 'a.gguf'));
    expect((await resolveModel({ type: 'local', path: join(folder, 'a.gguf') })).path).toBe(join(folder, 'a.gguf'));
    const split = join(folder, 'split');
    await mkdir(split);
    await expect(resolveModel(split)).rejects.toThrow(failsWith('MODEL_NOT_FOUND', 'found none'));
    await writeFile(join(split, 'b-00001-of-00002.gguf'), 'GGUF');
    await expect(resolveModel(join(split, 'b-00001-of-00002.gguf'))).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', 'b-00002-of-00002'),
    );
    await symlink(join(split, 'b-00001-of-00002.gguf'), join(split, 'b-00002-of-00002.gguf'));
    for (const path of [split, join(split, 'b-00002-of-00002.gguf')]) {
      expect((await resolveModel(path)).path).toBe(join(split, 'b-00001-of-00002.gguf'));
    }
    await copyFile(microModel('dense'), join(folder, 'c.gguf'));
    await expect(resolveModel(folder)).rejects.toThrow(failsWith('MODEL_NOT_FOUND', /a\.gguf.*c\.gguf/));
    await expect(resolveModel('/dev/null')).rejects.toThrow(failsWith('MODEL_NOT_FOUND', 'device'));
    await expect(resolveModel(join(folder, 'nothing.gguf'))).rejects.toThrow(
      failsWith('MODEL_NOT_FOUND', 'nothing.gguf'),
    );
  });
});
