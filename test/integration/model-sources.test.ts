// Tests models and LoRA adapters from URLs and local files, whole and split.
import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { resolveModel } from 'llama-headstart';
import type { ModelProgress } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { failsWith } from '../helpers/errors.js';
import { sha256 } from '../helpers/hub.js';
import { writeLora } from '../helpers/loras.js';
import {
  hashOf,
  model,
  other,
  REPO,
  retryConfig,
  shortStall,
  startHub,
  useEmptyEnvironment,
} from '../helpers/model-hub.js';
import { microModel } from '../helpers/models.js';
import { splitGguf } from '../helpers/split-gguf.js';

useEmptyEnvironment();

describe('a model at a URL', () => {
  it('is downloaded, and its headers are sent to its origin only', async () => {
    const { hub, directory } = await startHub();
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

  it('is downloaded from the beginning again if its content changed after an interruption', async () => {
    const { hub, directory } = await startHub();
    const url = `${hub.cdn}/${REPO}/tiny.Q8_0.gguf`;
    hub.faults.push({ stallAfter: 5000, body: other, etag: '"a"' }, {});
    expect(await hashOf((await resolveModel(url, { modelsDir: directory, retryConfig: shortStall })).path)).toBe(
      sha256(model),
    );
    expect(hub.downloads[1]?.headers['if-range']).toBe('"a"');
  });

  it('is refused if its SHA-256 differs or it is not a GGUF file', async () => {
    const { hub, directory } = await startHub({ 'page.gguf': Buffer.from('<!DOCTYPE html>'), 'tiny.gguf': model });
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

  it('in several parts reports the bytes of all parts, and the total as soon as every size is known', async () => {
    const names = [1, 2].map((index) => `tiny-0000${index}-of-00002.gguf`);
    const parts = [model, Buffer.concat([model, randomBytes(100)])];
    const { hub, directory } = await startHub(Object.fromEntries(names.map((name, at) => [name, parts[at] as Buffer])));
    const seen: ModelProgress[] = [];
    const onProgress = (progress: ModelProgress) => seen.push(progress);
    await resolveModel(`${hub.cdn}/${REPO}/${names[0]}`, { modelsDir: directory, retryConfig, onProgress });
    const total = 2 * model.length + 100;
    const ends = names.map((name) => seen.findLast(({ file }) => file === name));
    expect(ends[0]).toEqual({ phase: 'download', fraction: 0, bytes: model.length, file: names[0] });
    expect(ends[1]).toEqual({ phase: 'download', fraction: 1, bytes: total, total, file: names[1] });
  });

  it('may have a file name with an invalid percent encoding', async () => {
    const { directory } = await startHub();
    const options = { modelsDir: directory, retryConfig: { maxRetries: 0 } };
    await expect(resolveModel('http://127.0.0.1:9/tiny%.gguf', options)).rejects.toThrow(
      failsWith('DOWNLOAD_FAILED', 'tiny%.gguf'),
    );
  });

  it('is refused if its URL redirects more than 10 times, or to a URL that is neither http nor https', async () => {
    const { hub, directory } = await startHub();
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
  it('can have any source that a model can have, and changes the reply', async () => {
    const { hub, directory } = await startHub();
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
  it('gives the reply of the whole model, whether its source is a folder, one part, the Hub or a URL', async () => {
    const folder = await temporaryDirectory();
    const names = await splitGguf(microModel('dense'), folder, 'tiny', 3);
    const parts = await Promise.all(names.map((name) => readFile(join(folder, name))));
    const { hub, directory } = await startHub(Object.fromEntries(names.map((name, at) => [name, parts[at] as Buffer])));
    const settings = { modelsDir: directory, retryConfig };
    const reply = async (more: AgentSettings) => {
      const agent = await startAgent({ ...settings, ...more });
      const texts = await replies(await agent.createSession(), ['Hello'], 12);
      await agent.close();
      return texts;
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
  it('is a file, a folder with one model, or any part of a split model', async () => {
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
