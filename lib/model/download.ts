// Downloads one file. If several processes need the file, one of them downloads it. An interrupted download is resumed.
// A complete file is verified and then renamed to its final name.
import { createHash, type Hash } from 'node:crypto';
import { stat, statfs, unlink } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { throwIfAborted } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { makeDirectory, writeFailure } from '../files.js';
import { FileLock } from '../native/file-lock.js';
import type { ByteProgress } from './model-progress.js';
import { PartialFile } from './partial-file.js';
import { type HttpResponse, request, throwForStatus, withoutQuery } from './request.js';
import { type ResolvedRetryConfig, TransientError, withRetries } from './retry.js';

const LOCK_POLL_MS = 200;

/** A file to download. Fields are undefined if they are not known before the download. */
export interface RemoteFile {
  url: string;
  /** The path of the complete file. */
  path: string;
  /** Headers for the origin of `url`. A redirect to another origin does not get these headers. */
  secrets?: Readonly<Record<string, string>> | undefined;
  size?: number | undefined;
  sha256?: string | undefined;
  /** The hash of a file that is stored in git: SHA-1 over `blob <size>\0` and the content. */
  gitOid?: string | undefined;
  /** The bytes that the file must begin with. */
  magic?: string;
}

export interface DownloadOptions {
  retry: ResolvedRetryConfig;
  progress: ByteProgress;
  signal?: AbortSignal | undefined;
  /** Receives a message for each failed attempt. */
  log: (message: string) => void;
}

/**
 * Makes sure that the complete and verified file is at its path.
 *
 * @throws HeadstartError `DOWNLOAD_FAILED`, `DOWNLOAD_CORRUPT`, `MODEL_NOT_FOUND`, `UNAUTHORIZED`, `DISK_FULL`,
 *   `WRITE_FAILED`, `ABORTED`. The received bytes stay in a `.part` file, and the next call continues that file.
 */
export async function downloadFile(file: RemoteFile, options: DownloadOptions): Promise<void> {
  throwIfAborted(options.signal);
  if (await isComplete(file)) {
    return;
  }
  try {
    await makeDirectory(dirname(file.path));
  } catch (error) {
    throw diskError(error, file.path);
  }
  const lock = await acquire(file, options);
  if (lock === 'done') {
    return;
  }
  try {
    if (!(await isComplete(file))) {
      await downloadLocked(file, options, lock === 'unsupported' ? `.${process.pid}.part` : '.part');
    }
  } finally {
    if (lock !== 'unsupported') {
      await unlink(lock.path).catch(() => undefined); // before the release: FileLock allows this only to the lock's holder
      lock.release();
    }
  }
}

async function downloadLocked(file: RemoteFile, options: DownloadOptions, suffix: string): Promise<void> {
  const partial = await PartialFile.open(file.path + suffix, newHash(file)).catch((error: unknown) => {
    throw diskError(error, file.path);
  });
  let finished = false;
  let furthest = 0;
  try {
    await withRetries(
      options.retry,
      async () => {
        await receive(file, partial, options).finally(() => {
          furthest = Math.max(furthest, partial.size);
        });
        await verify(file, partial);
      },
      {
        signal: options.signal,
        progress: () => furthest,
        onRetry: options.log,
      },
    );
    await partial.moveTo(file.path);
    finished = true;
  } catch (error) {
    throw diskError(error, file.path);
  } finally {
    await partial.close({ keep: !finished });
  }
}

/** One attempt: requests the missing bytes and appends them to the partial file. */
async function receive(file: RemoteFile, partial: PartialFile, options: DownloadOptions): Promise<void> {
  const { progress, signal, retry } = options;
  const name = basename(file.path);
  await partial.restore({
    trusted: file.sha256 !== undefined || file.gitOid !== undefined,
    signal,
    onHashed: (bytes, all) => progress.verified(name, bytes, all),
  });
  if (file.size !== undefined && partial.size >= file.size) {
    if (partial.size === file.size) {
      return;
    }
    await partial.restart();
  }
  const headers: Record<string, string> = { 'accept-encoding': 'identity', ...partial.rangeHeaders() };
  const response = await request({
    url: file.url,
    headers,
    secrets: file.secrets,
    stallTimeoutMs: retry.stallTimeoutMs,
    signal,
  });
  try {
    if (await settle(response, partial, file)) {
      return;
    }
    await requireSpace(file, partial);
    for await (const piece of response.body()) {
      await partial.append(piece);
      if (partial.total !== undefined && partial.size > partial.total) {
        break;
      }
      progress.report('download', name, partial.size, file.size ?? partial.total);
    }
  } finally {
    await response.cancel();
  }
  await requireAll(file, partial);
}

/**
 * Makes the partial file end at the position at which the response's body begins.
 *
 * @returns whether the file is complete
 */
async function settle(http: HttpResponse, partial: PartialFile, file: RemoteFile): Promise<boolean> {
  const { response } = http;
  if (response.status === 206) {
    if (!partial.continuesWith(response)) {
      await partial.restart();
      throw new TransientError(`${withoutQuery(file.url)} changed since the download began`);
    }
    return false;
  }
  if (response.status === 416) {
    const complete = /^bytes \*\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1];
    if (partial.size > 0 && Number(complete) === partial.size) {
      return true;
    }
    await partial.restart();
    throw new TransientError(`${withoutQuery(file.url)} could not continue the earlier download`);
  }
  throwForStatus(http, withoutQuery(file.url));
  await partial.restart(response);
  if (file.size !== undefined && partial.total !== undefined && partial.total !== file.size) {
    throw new TransientError(
      `Expected ${file.size} bytes from ${withoutQuery(file.url)}, but the server has ${partial.total}`,
      {
        code: 'DOWNLOAD_CORRUPT',
      },
    );
  }
  return false;
}

async function requireAll(file: RemoteFile, partial: PartialFile): Promise<void> {
  const expected = file.size ?? partial.total;
  if (expected === undefined || partial.size === expected) {
    return;
  }
  const message = `Expected ${expected} bytes from ${withoutQuery(file.url)}, got ${partial.size}`;
  if (partial.size < expected) {
    throw new TransientError(message);
  }
  await partial.restart();
  throw new TransientError(message, { code: 'DOWNLOAD_CORRUPT' });
}

async function verify(file: RemoteFile, partial: PartialFile): Promise<void> {
  const expected = file.sha256?.toLowerCase() ?? file.gitOid;
  const digest = partial.digest();
  const magic = file.magic === undefined ? undefined : await partial.firstBytes(file.magic.length);
  if (expected !== undefined && digest !== expected) {
    await partial.restart();
    const kind = file.sha256 === undefined ? 'git object id' : 'SHA-256';
    throw new TransientError(`Expected ${kind} ${expected} of ${basename(file.path)}, got ${digest}`, {
      code: 'DOWNLOAD_CORRUPT',
    });
  }
  if (magic !== file.magic) {
    await partial.restart();
    throw new HeadstartError(
      'DOWNLOAD_CORRUPT',
      `Expected a GGUF file from ${withoutQuery(file.url)}, but the received file begins with ${JSON.stringify(magic)}: is this the address of a web page?`,
    );
  }
}

async function acquire(file: RemoteFile, options: DownloadOptions): Promise<FileLock | 'unsupported' | 'done'> {
  const name = basename(file.path);
  for (let polls = 0; ; polls++) {
    throwIfAborted(options.signal);
    try {
      const lock = await FileLock.tryAcquire(`${file.path}.lock`);
      if (lock !== null) {
        return lock;
      }
    } catch (error) {
      if (HeadstartError.isInstance(error, 'LOCK_UNSUPPORTED')) {
        return 'unsupported';
      }
      throw error;
    }
    if (polls === 0) {
      options.log(`Waiting for another process, which is downloading ${name}.`);
    }
    const part = await stat(`${file.path}.part`).catch(() => undefined);
    options.progress.report('wait', name, part?.size ?? 0, file.size);
    await sleep(LOCK_POLL_MS, undefined, { ...(options.signal && { signal: options.signal }) }).catch(() => undefined);
    if (await isComplete(file)) {
      return 'done';
    }
  }
}

/** Whether the file is complete. Only a verified file has its final name, so the size is the only other check. */
export async function isComplete(file: RemoteFile): Promise<boolean> {
  const stats = await stat(file.path).catch(() => undefined);
  return stats?.isFile() === true && (file.size === undefined || stats.size === file.size);
}

async function requireSpace(file: RemoteFile, partial: PartialFile): Promise<void> {
  const total = file.size ?? partial.total;
  const disk = await statfs(dirname(file.path)).catch(() => undefined);
  if (total === undefined || disk === undefined) {
    return;
  }
  const free = disk.bavail * disk.bsize;
  if (free < total - partial.size) {
    throw new HeadstartError(
      'DISK_FULL',
      `Expected ${total - partial.size} free bytes in "${dirname(file.path)}" for ${basename(file.path)}, got ${free}`,
    );
  }
}

function newHash(file: RemoteFile): () => Hash {
  return () => {
    if (file.sha256 === undefined && file.gitOid !== undefined) {
      return createHash('sha1').update(`blob ${file.size}\0`);
    }
    return createHash('sha256');
  };
}

/** Converts an error of the file system. Errors of the connection stay as they are. */
function diskError(error: unknown, path: string): unknown {
  return typeof (error as NodeJS.ErrnoException).code === 'string' ? writeFailure(error, path) : error;
}
