// Tests downloads with faults of the connection, the server, other processes and the disk.
import { randomBytes } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ModelProgress } from 'llama-headstart/internal';
import { describe, expect, it, vi } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { failsWith } from '../helpers/errors.js';
import { type FakeHub, sha256 } from '../helpers/hub.js';
import {
  type Download,
  filesBelow,
  hashOf,
  model,
  other,
  REPO,
  retryConfig,
  shortStall,
  startHub,
  useEmptyEnvironment,
} from '../helpers/model-hub.js';
import { inOtherProcess } from '../helpers/processes.js';
import { smallDisk } from '../helpers/small-disk.js';

useEmptyEnvironment();

describe('a download', () => {
  const half = Math.floor(model.length / 2);

  /** Leaves a partial file. The download stalls after half of the file, and its retries get status 503. */
  async function receiveHalf(hub: FakeHub, download: Download): Promise<void> {
    hub.faults.push({ stallAfter: half }, ...Array.from({ length: 3 }, () => ({ status: 503 })));
    await expect(download({}, { retryConfig: shortStall })).rejects.toThrow(failsWith('DOWNLOAD_FAILED', '503'));
  }

  it('continues after each dropped connection that brought new bytes', async () => {
    const { hub, download, log } = await startHub();
    const piece = Math.floor(model.length / 8);
    hub.faults.push(...Array.from({ length: 6 }, () => ({ dropAfter: piece })));
    expect(await hashOf((await download()).path)).toBe(sha256(model));
    const starts = hub.downloads.map(({ headers }) => Number(/\d+/.exec(headers.range ?? '0')?.[0]));
    expect(starts).toHaveLength(7);
    expect(starts.at(-1)).toBeGreaterThan(piece);
    expect(starts).toEqual(starts.toSorted((a, b) => a - b));
    expect(log).toHaveLength(6);
  });

  it('continues after a stall', async () => {
    const { hub, download, log } = await startHub();
    hub.faults.push({ stallAfter: half });
    expect(await hashOf((await download({}, { retryConfig: shortStall })).path)).toBe(sha256(model));
    expect(log.join()).toMatch(/sent nothing for 300 ms/);
    expect(hub.downloads[1]?.headers.range).toBe(`bytes=${half}-`);
  });

  it('fails after `maxRetries` attempts without new bytes, and the next download resumes it', async () => {
    const { hub, download, directory } = await startHub();
    await receiveHalf(hub, download);
    expect(hub.downloads).toHaveLength(4); // half of the file, then three attempts without new bytes
    expect(await filesBelow(directory)).toEqual(['main.json', 'tiny.Q8_0.gguf.part', 'tiny.Q8_0.gguf.part.json']);
    expect(await hashOf((await download()).path)).toBe(sha256(model));
    expect(hub.downloads.at(-1)?.headers.range).toBe(`bytes=${half}-`);
    expect(await filesBelow(directory)).toEqual(['main.json', 'tiny.Q8_0.gguf']);
  });

  it('starts from the beginning if the server cannot resume or if the content has changed', async () => {
    const { hub, download } = await startHub();
    hub.faults.push({ dropAfter: half }, { ignoreRange: true });
    expect(await hashOf((await download()).path)).toBe(sha256(model));
    const changed = await startHub();
    changed.hub.faults.push({ dropAfter: half, etag: '"old"', body: other }, {});
    expect(await hashOf((await changed.download()).path)).toBe(sha256(model));
    const lying = await startHub();
    lying.hub.faults.push({ dropAfter: half }, { headers: { 'content-range': 'bytes 7-9/10' } });
    expect(await hashOf((await lying.download()).path)).toBe(sha256(model));
  });

  it('refuses content with another hash or size, and deletes it', async () => {
    for (const wrong of [
      Buffer.from(model.map((byte, at) => (at === 5000 ? byte ^ 1 : byte))),
      model.subarray(0, half),
      Buffer.concat([model, model]),
    ]) {
      const { hub, download, directory } = await startHub();
      hub.faults.push(...Array.from({ length: 4 }, () => ({ body: wrong })));
      await expect(download()).rejects.toThrow(failsWith('DOWNLOAD_CORRUPT'));
      expect(hub.faults).toEqual([]);
      expect(await filesBelow(directory)).toEqual(['main.json']);
      expect(await hashOf((await download()).path)).toBe(sha256(model));
    }
  });

  it('succeeds despite a damaged partial file of an earlier process', async () => {
    const { hub, download, directory } = await startHub();
    await receiveHalf(hub, download);
    const part = join(
      directory,
      (await readdir(directory, { recursive: true })).find((name) => name.endsWith('.part')) as string,
    );
    await writeFile(part, randomBytes(half + 10));
    await writeFile(`${part}.json`, 'no JSON');
    expect(await hashOf((await download()).path)).toBe(sha256(model));
  });

  it('reports the progress of verifying a partial file of an earlier process', async () => {
    const { hub, download } = await startHub();
    await receiveHalf(hub, download);
    const seen: ModelProgress[] = [];
    await download({}, { onProgress: (progress) => seen.push(progress) });
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

  it('waits as long as the Retry-After header of a 429 response says, up to `maxDelayMs`', async () => {
    const { hub, download, log } = await startHub();
    hub.faults.push({ status: 429, headers: { 'retry-after': '0.05' } });
    hub.apiFaults.push({ status: 429, headers: { 'retry-after': new Date(Date.now() + 60_000).toUTCString() } });
    await download({}, { retryConfig: { ...retryConfig, maxDelayMs: 100 } });
    expect(log[0]).toMatch(/429.*Trying again in 100 ms/);
    expect(log[1]).toMatch(/429.*Trying again in 50 ms/);
  });

  it('ends with ABORTED if its signal fires before it begins, while it receives bytes, or before a retry', async () => {
    const { hub, download, directory } = await startHub();
    const reason = new Error('enough');
    await expect(download({}, { signal: AbortSignal.abort(reason) })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: reason,
    });
    for (const fault of [{ stallAfter: half }, { status: 503 }]) {
      hub.faults.push(fault);
      const abort = new AbortController();
      const fetching = download(
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
    expect(await hashOf((await download()).path)).toBe(sha256(model));
  });

  it('runs once for simultaneous calls, in one process and in several', async () => {
    const { hub, download, directory } = await startHub();
    const paths = await Promise.all([
      download(),
      download(),
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

  it('is resumed by another process if the first one is killed', async () => {
    const { hub, download, directory } = await startHub();
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
    // While this process waits for the child's lock, it reports the size of the child's file.
    await vi.waitUntil(() => hub.downloads.length === 1, { timeout: 60_000 });
    await download(
      {},
      {
        onProgress: ({ phase, bytes }) => phase === 'wait' && bytes === half && kill.abort(),
      },
    );
    await expect(killed).rejects.toThrow();
    expect(hub.downloads[1]?.headers.range).toBe(`bytes=${half}-`);
    expect(await filesBelow(directory)).toEqual(['main.json', 'tiny.Q8_0.gguf']);
  });

  it('reports a full disk before it begins, and a directory that is a file', async ({ skip }) => {
    const { download } = await startHub();
    const small = smallDisk(join(await temporaryDirectory(), 'disk'), '64k');
    if (small === undefined) {
      skip('no file systems can be mounted here');
      return;
    }
    await expect(download({}, { modelsDir: small })).rejects.toThrow(failsWith('DISK_FULL', 'free bytes'));
    const file = join(small, 'not-a-directory');
    await writeFile(file, '');
    await expect(download({}, { modelsDir: file })).rejects.toThrow(failsWith('WRITE_FAILED'));
  });

  it('reports a disk that fills up during the download, and continues once there is free space', async ({ skip }) => {
    const { download, hub } = await startHub();
    const small = smallDisk(join(await temporaryDirectory(), 'disk'), `${Math.ceil(model.length / 1024) + 64}k`);
    if (small === undefined) {
      skip('no file systems can be mounted here');
      return;
    }
    const filler = join(small, 'other-file');
    const fill = () => {
      try {
        for (;;) {
          appendFileSync(filler, Buffer.alloc(4096));
        }
      } catch {} // the disk is full
    };
    hub.faults.push({ dropAfter: model.length >> 1 }); // so that the download needs more bytes after the first report
    const onProgress = ({ phase, bytes = 0 }: ModelProgress) => phase === 'download' && bytes > 0 && fill();
    await expect(download({}, { modelsDir: small, onProgress })).rejects.toThrow(failsWith('DISK_FULL'));
    await rm(filler);
    const before = hub.downloads.length;
    expect(await hashOf((await download({}, { modelsDir: small })).path)).toBe(sha256(model));
    expect(hub.downloads[before]?.headers.range).toMatch(/^bytes=[1-9]/);
  });
});
