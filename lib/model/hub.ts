// The parts of the Hugging Face Hub's API that downloads need: the list of a revision's files, and the addresses of
// these files.
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { HeadstartError } from '../errors.js';
import { expectedBy, webAddress } from '../option-types.js';
import { type HttpResponse, readSmall, request, throwForStatus } from './request.js';
import { TransientError } from './retry.js';
import type { HuggingFaceModelSource } from './source.js';

const DEFAULT_ENDPOINT = 'https://huggingface.co';
const MAX_LISTING_BYTES = 32 * 1024 ** 2;
const MAX_PAGES = 1000;

/** A file of a repository. */
export interface HubFile {
  /** The path in the repository. */
  path: string;
  size: number;
  /** The SHA-256 of a large file, which is not stored in git. */
  sha256?: string;
  /** The hash of a file that is stored in git: SHA-1 over `blob <size>\0` and the content. */
  gitOid?: string;
}

/** The files of a revision of a repository. */
export interface HubListing {
  endpoint: string;
  commit: string;
  files: HubFile[];
  /** Repositories that this repository names as its base models. */
  baseModels: string[];
}

export interface HubAccess {
  endpoint: string;
  /** The Authorization header. Empty if there is no token. */
  secrets: Readonly<Record<string, string>>;
}

/**
 * Finds the server's address and the access token: in the source, else in the environment, else in the user's token
 * file.
 *
 * @throws HeadstartError `CONFIG_INVALID` if HF_ENDPOINT is not an address, or the token has characters that a header
 *   cannot have.
 */
export async function hubAccess({ endpoint, token }: HuggingFaceModelSource): Promise<HubAccess> {
  const { HF_TOKEN } = process.env;
  const accessToken = (token === undefined ? HF_TOKEN || (await savedToken()) : token)?.trim();
  if (accessToken && !/^[\x21-\x7e]+$/.test(accessToken)) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      'Expected an access token of visible ASCII characters, got one with other characters',
    );
  }
  return {
    endpoint: (endpoint ?? endpointOfEnvironment() ?? DEFAULT_ENDPOINT).replace(/\/+$/, ''),
    secrets: accessToken ? { authorization: `Bearer ${accessToken}` } : {},
  };
}

function endpointOfEnvironment(): string | undefined {
  const { HF_ENDPOINT } = process.env;
  const address = webAddress();
  if (HF_ENDPOINT && !address.safeParse(HF_ENDPOINT).success) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected the environment variable HF_ENDPOINT to be ${expectedBy(address)}, got "${HF_ENDPOINT}"`,
    );
  }
  return HF_ENDPOINT || undefined;
}

/** Whether the user forbids the network (HF_HUB_OFFLINE). */
export function isOffline(): boolean {
  return /^(1|on|yes|true)$/i.test(process.env.HF_HUB_OFFLINE ?? '');
}

/** The address of a file's content. */
export function fileUrl(endpoint: string, repo: string, revision: string, path: string): string {
  return `${endpoint}/${repo}/resolve/${encodeURIComponent(revision)}/${path.split('/').map(encodeURIComponent).join('/')}`;
}

/**
 * Lists the files of a revision.
 *
 * @throws TransientError; HeadstartError `MODEL_NOT_FOUND`, `UNAUTHORIZED`, `DOWNLOAD_FAILED`, `ABORTED`.
 */
export async function listRevision(
  access: HubAccess,
  { repo, revision = 'main' }: HuggingFaceModelSource,
  options: { stallTimeoutMs: number; signal?: AbortSignal | undefined },
): Promise<HubListing> {
  const get = (url: string) =>
    getJson({ url, secrets: access.secrets, ...options }, `${repo} (revision "${revision}")`);
  const api = `${access.endpoint}/api/models/${repo}`;
  const { body } = await get(`${api}/revision/${encodeURIComponent(revision)}`);
  const { sha, cardData } = body as { sha?: unknown; cardData?: { base_model?: unknown } };
  if (typeof sha !== 'string' || !/^[0-9a-f]{40,64}$/.test(sha)) {
    throw new HeadstartError(
      'DOWNLOAD_FAILED',
      `Expected ${access.endpoint} to name the commit of ${repo}. Check that the address is that of a Hub`,
    );
  }
  const files: HubFile[] = [];
  let page: string | undefined = `${api}/tree/${sha}?recursive=true`;
  for (let count = 0; page !== undefined && count < MAX_PAGES; count++) {
    const { body: entries, next } = await get(page);
    files.push(...parseTree(entries, repo));
    page = next;
  }
  const baseModels = [cardData?.base_model].flat().filter((each): each is string => typeof each === 'string');
  return { endpoint: access.endpoint, commit: sha, files, baseModels };
}

/** The token that `hf auth login` saved. */
async function savedToken(): Promise<string | undefined> {
  const { HF_TOKEN_PATH, HF_HOME, XDG_CACHE_HOME } = process.env;
  try {
    const home = HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
    return (await readFile(HF_TOKEN_PATH || join(home, 'token'), 'utf8')).trim() || undefined;
  } catch {
    return undefined; // no token was saved, or there is no home directory
  }
}

async function getJson(
  options: Parameters<typeof request>[0],
  what: string,
): Promise<{ body: unknown; next: string | undefined }> {
  const response = await request(options);
  try {
    throwForStatus(response, what);
    const text = (await readSmall(response, MAX_LISTING_BYTES)).toString('utf8');
    return { body: JSON.parse(text), next: nextPage(response, options.url) };
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new TransientError(`Expected JSON from ${options.url}: ${error.message}`, { cause: error });
    }
    throw error;
  } finally {
    await response.cancel();
  }
}

/**
 * The address of the next page (RFC 8288). Pages on another origin are ignored, because they must not receive the
 * token.
 */
function nextPage({ response }: HttpResponse, url: string): string | undefined {
  const target = /<([^>]+)>\s*;[^,]*\brel="?next"?/.exec(response.headers.get('link') ?? '')?.[1];
  if (target === undefined || !URL.canParse(target, url)) {
    return undefined;
  }
  const next = new URL(target, url);
  return next.origin === new URL(url).origin ? next.href : undefined;
}

interface TreeEntry {
  type?: unknown;
  path?: unknown;
  size?: unknown;
  oid?: unknown;
  lfs?: { oid?: unknown; size?: unknown } | null;
}

function parseTree(entries: unknown, repo: string): HubFile[] {
  if (!Array.isArray(entries)) {
    throw new HeadstartError('DOWNLOAD_FAILED', `Expected the list of ${repo}'s files to be an array`);
  }
  return (entries as TreeEntry[]).flatMap(({ type, path, size, oid, lfs }) => {
    const bytes = lfs?.size ?? size;
    if (type !== 'file' || typeof path !== 'string' || !Number.isSafeInteger(bytes)) {
      return [];
    }
    const hash = typeof lfs?.oid === 'string' ? lfs.oid.replace(/^sha256:/, '') : undefined;
    const file: HubFile = { path, size: bytes as number };
    if (hash !== undefined) {
      return [{ ...file, sha256: hash }];
    }
    return [{ ...file, ...(typeof oid === 'string' && oid.length === 40 && { gitOid: oid }) }];
  });
}
