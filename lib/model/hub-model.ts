// Downloads a model of the Hub: lists the files of the revision, chooses those of the model, and fetches them.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { HeadstartError } from '../errors.js';
import { makeDirectory, replaceText } from '../files.js';
import { chooseModel } from './choose-model.js';
import { downloadFile, isComplete, type RemoteFile } from './download.js';
import { fileUrl, type HubAccess, type HubFile, type HubListing, hubAccess, isOffline, listRevision } from './hub.js';
import { ByteProgress } from './model-progress.js';
import type { DownloadSettings } from './resolve-model.js';
import { TransientError, withRetries } from './retry.js';
import { type HuggingFaceModelSource, isPathInside } from './source.js';

const GENERATION_CONFIG = 'generation_config.json';
const MAX_GENERATION_CONFIG_BYTES = 1024 ** 2;
/** The longest wait for the Hub's listing, ms, if an earlier listing can be used instead. */
const REFRESH_TIMEOUT_MS = 5000;

/** @returns the path of the model's first file */
export async function fetchHubModel(source: HuggingFaceModelSource, settings: DownloadSettings): Promise<string> {
  const access = await hubAccess(source);
  settings.onProgress?.({ phase: 'resolve', fraction: 0 });
  const root = join(settings.directory, 'huggingface', ...source.repo.split('/'));
  const listing = await currentListing(source, access, root, settings);
  const wanted = chooseFiles(source, listing);
  const folder = join(root, contentHash(wanted));
  const progress = new ByteProgress(
    settings.onProgress,
    wanted.map(({ size }) => size),
  );
  const options = { ...settings, progress, log: (message: string) => settings.log('warn', message) };
  const files = wanted.map(
    (file): RemoteFile => ({ ...remoteFile(source.repo, listing, access, folder, file), magic: 'GGUF' }),
  );
  let isNew = false;
  for (const file of files) {
    if (!(await isComplete(file))) {
      isNew = true;
      if (isOffline()) {
        throw forbidden(`${basename(file.path)} of ${source.repo}`);
      }
    }
    await downloadFile(file, options);
    progress.finish(file.size ?? 0);
  }
  const { generationConfig } = settings;
  if (!isOffline() && (generationConfig === true || (generationConfig === 'with-model' && isNew))) {
    await fetchGenerationConfig(source, listing, access, folder, settings);
  }
  return (files[0] as RemoteFile).path;
}

/** Lists the files of the revision. If the Hub cannot be reached, returns the saved listing. */
async function currentListing(
  source: HuggingFaceModelSource,
  access: HubAccess,
  root: string,
  settings: DownloadSettings,
): Promise<HubListing> {
  const { revision = 'main', repo } = source;
  const { log, retry, signal } = settings;
  const path = join(root, 'refs', `${encodeURIComponent(revision)}.json`);
  const known = await readListing(path, access.endpoint);
  if (known !== undefined && (isOffline() || known.commit === revision)) {
    return known;
  }
  if (isOffline()) {
    throw forbidden(repo);
  }
  const patience =
    known === undefined
      ? retry
      : { ...retry, maxRetries: 0, stallTimeoutMs: Math.min(REFRESH_TIMEOUT_MS, retry.stallTimeoutMs) };
  try {
    const listing = await withRetries(patience, () => listRevision(access, source, { ...patience, signal }), {
      signal,
      onRetry: (message) => log('warn', message),
    });
    await writeListing(path, listing).catch((error: Error) =>
      log('warn', `Could not write "${path}": ${error.message}`),
    );
    return listing;
  } catch (error) {
    if (known === undefined || !(error instanceof TransientError)) {
      throw error;
    }
    log('warn', `Using the saved file list of ${repo}: ${error.message}`);
    return known;
  }
}

function forbidden(what: string): HeadstartError {
  return new HeadstartError(
    'MODEL_NOT_FOUND',
    `Expected ${what} to be on this machine, because HF_HUB_OFFLINE forbids downloads. Unset HF_HUB_OFFLINE to download it`,
  );
}

function chooseFiles(source: HuggingFaceModelSource, listing: HubListing): HubFile[] {
  const byPath = new Map(listing.files.filter(({ path }) => isPathInside(path)).map((file) => [file.path, file]));
  const paths = chooseModel([...byPath.keys()], source, `${source.repo} (revision "${source.revision ?? 'main'}")`);
  return paths.map((path) => byPath.get(path) as HubFile);
}

/**
 * A hash of the files' names and contents. The hash names the directory of the files, so commits with the same files
 * share a directory.
 */
function contentHash(files: readonly HubFile[]): string {
  const contents = files.map(({ path, size, sha256, gitOid }) => [basename(path), size, sha256 ?? gitOid ?? path]);
  return createHash('sha256').update(JSON.stringify(contents)).digest('hex').slice(0, 16);
}

function remoteFile(
  repo: string,
  { endpoint, commit }: HubListing,
  { secrets }: HubAccess,
  folder: string,
  { path, size, sha256, gitOid }: HubFile,
): RemoteFile {
  const url = fileUrl(endpoint, repo, commit, path);
  return { url, path: join(folder, basename(path)), secrets, size, sha256, gitOid };
}

/**
 * Downloads the repository's generation_config.json to the directory of the model. Repositories of converted models
 * seldom have this file. If it is missing and `generationConfig` is true, downloads the file of the base model that the
 * repository names. If that file is missing too, downloads nothing.
 */
async function fetchGenerationConfig(
  source: HuggingFaceModelSource,
  listing: HubListing,
  access: HubAccess,
  folder: string,
  settings: DownloadSettings,
): Promise<void> {
  const { log, retry, signal } = settings;
  const options = {
    ...settings,
    progress: new ByteProgress(undefined, []),
    log: (message: string) => log('warn', message),
  };
  const isConfig = ({ path, size }: HubFile) => path === GENERATION_CONFIG && size <= MAX_GENERATION_CONFIG_BYTES;
  try {
    const config = listing.files.find(isConfig);
    if (config !== undefined) {
      return await downloadFile(remoteFile(source.repo, listing, access, folder, config), options);
    }
    const [base] = settings.generationConfig === 'with-model' ? [] : listing.baseModels;
    const present = await readFile(join(folder, GENERATION_CONFIG)).catch(() => undefined);
    if (base === undefined || !/^[\w.-]+\/[\w.-]+$/.test(base) || present !== undefined) {
      return;
    }
    const baseListing = await withRetries(
      retry,
      () => listRevision(access, { type: 'huggingface', repo: base }, { ...retry, signal }),
      { signal },
    );
    const inherited = baseListing.files.find(isConfig);
    if (inherited !== undefined) {
      await downloadFile(remoteFile(base, baseListing, access, folder, inherited), options);
    }
  } catch (error) {
    if (HeadstartError.isInstance(error, 'ABORTED')) {
      throw error;
    }
    log('warn', `Could not download ${GENERATION_CONFIG} of ${source.repo}: ${(error as Error).message}`);
  }
}

async function readListing(path: string, endpoint: string): Promise<HubListing | undefined> {
  try {
    const listing = JSON.parse(await readFile(path, 'utf8')) as HubListing;
    return listing.endpoint === endpoint && Array.isArray(listing.files) ? listing : undefined;
  } catch {
    return undefined;
  }
}

async function writeListing(path: string, listing: HubListing): Promise<void> {
  await makeDirectory(dirname(path));
  const models = listing.files.filter(({ path: file }) => file.endsWith('.gguf') || file === GENERATION_CONFIG);
  await replaceText(path, JSON.stringify({ ...listing, files: models }), { durable: false }, 0o666);
}
