// A model of the Hub: what the revision holds (asked, or remembered), which files are meant, and their download.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { HeadstartError } from '../errors.js';
import { makeDirectory, replaceText } from '../files.js';
import { chooseModel } from './choose.js';
import { downloadFile, isComplete, type RemoteFile } from './download.js';
import { fileUrl, type HubAccess, type HubFile, type HubListing, hubAccess, isOffline, listRevision } from './hub.js';
import { ByteProgress } from './progress.js';
import type { Fetching } from './resolve.js';
import { TransientError, withRetries } from './retry.js';
import { type HuggingFaceModelSource, isPathInside } from './source.js';

const GENERATION_CONFIG = 'generation_config.json';
const MAX_GENERATION_CONFIG_BYTES = 1024 ** 2;
/** The Hub's answer is not waited for longer where an earlier one can be used. */
const IMPATIENT_MS = 5000;

/** @returns the path of the model's first file */
export async function fetchHubModel(source: HuggingFaceModelSource, fetching: Fetching): Promise<string> {
  const access = await hubAccess(source);
  fetching.onProgress?.({ phase: 'resolve', fraction: 0 });
  const root = join(fetching.directory, 'huggingface', ...source.repo.split('/'));
  const listing = await currentListing(source, access, root, fetching);
  const wanted = chooseFiles(source, listing);
  const folder = join(root, contentHash(wanted));
  const progress = new ByteProgress(
    fetching.onProgress,
    wanted.map(({ size }) => size),
  );
  const options = { ...fetching, progress, log: (message: string) => fetching.log('warn', message) };
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
  const { generationConfig } = fetching;
  if (!isOffline() && (generationConfig === true || (generationConfig === 'with-model' && isNew))) {
    await fetchGenerationConfig(source, listing, access, folder, fetching);
  }
  return (files[0] as RemoteFile).path;
}

/** Asks the Hub what the revision holds; where it cannot be reached, what it held the last time has to do. */
async function currentListing(
  source: HuggingFaceModelSource,
  access: HubAccess,
  root: string,
  fetching: Fetching,
): Promise<HubListing> {
  const { revision = 'main', repo } = source;
  const { log, retry, signal } = fetching;
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
      : { ...retry, maxRetries: 0, stallTimeoutMs: Math.min(IMPATIENT_MS, retry.stallTimeoutMs) };
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
    log('warn', `Going on with what is known of ${repo}: ${error.message}`);
    return known;
  }
}

function forbidden(what: string): HeadstartError {
  return new HeadstartError(
    'MODEL_NOT_FOUND',
    `${what} was never fetched to this machine, and HF_HUB_OFFLINE forbids to do it now`,
  );
}

function chooseFiles(source: HuggingFaceModelSource, listing: HubListing): HubFile[] {
  const byPath = new Map(listing.files.filter(({ path }) => isPathInside(path)).map((file) => [file.path, file]));
  const paths = chooseModel([...byPath.keys()], source, `${source.repo} (revision "${source.revision ?? 'main'}")`);
  return paths.map((path) => byPath.get(path) as HubFile);
}

/** The same files, in whatever commits, have one place. */
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
 * Puts the repository's generation_config.json beside the model. Repositories of converted models seldom have one: then it
 * is the one of the model that they say they were made from. That none is to be had is no failure.
 */
async function fetchGenerationConfig(
  source: HuggingFaceModelSource,
  listing: HubListing,
  access: HubAccess,
  folder: string,
  fetching: Fetching,
): Promise<void> {
  const { log, retry, signal } = fetching;
  const options = {
    ...fetching,
    progress: new ByteProgress(undefined, []),
    log: (message: string) => log('warn', message),
  };
  const isConfig = ({ path, size }: HubFile) => path === GENERATION_CONFIG && size <= MAX_GENERATION_CONFIG_BYTES;
  try {
    const own = listing.files.find(isConfig);
    if (own !== undefined) {
      return await downloadFile(remoteFile(source.repo, listing, access, folder, own), options);
    }
    const [base] = fetching.generationConfig === 'with-model' ? [] : listing.baseModels;
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
    log('warn', `No ${GENERATION_CONFIG} of ${source.repo} could be had: ${(error as Error).message}`);
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
