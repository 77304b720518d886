// Where a model comes from: the sources, their short forms, and their check.
import { fileURLToPath } from 'node:url';
import { HeadstartError } from '../errors.js';
import { type Check, checkOptions, describe, given, nearestName, stringMap, text, webAddress } from '../options.js';

/** A model on this machine. */
export interface LocalModelSource {
  /** Tells it from other sources. */
  type: 'local';
  /**
   * A GGUF file, or a folder that holds one model, as a path or a `file:` URL. Of a split model any part. Relative paths are
   * relative to the working directory, `~/` is the home directory.
   */
  path: string;
}

/** A model on the Hugging Face Hub, or on a server that speaks its API. Downloaded once, then used offline. */
export interface HuggingFaceModelSource {
  /** Tells it from other sources. */
  type: 'huggingface';
  /** `owner/name`. */
  repo: string;
  /** The GGUF file's path in the repository; of a split model any part. */
  filename?: string;
  /**
   * Instead of `filename`: the model whose file name has it, in any case.
   * @default Q4_K_M where the repository has one, else its only GGUF file
   */
  quantisation?: string;
  /** Only files below this folder of the repository. */
  folder?: string;
  /** Branch, tag or commit. @default 'main' */
  revision?: string;
  /** Access token; `null` sends none. @default HF_TOKEN, then the token that `hf auth login` has saved */
  token?: string | null;
  /** @default HF_ENDPOINT, then https://huggingface.co */
  endpoint?: string;
}

/** A model at an address. */
export interface UrlModelSource {
  /** Tells it from other sources. */
  type: 'url';
  /**
   * http or https, without user and password: those are `headers`. Of a split model the first part, with its usual name
   * (`...-00001-of-00003.gguf`).
   */
  url: string;
  /** Sent to the address's own origin, and to no other that it redirects to. */
  headers?: Readonly<Record<string, string>>;
  /** What the file's SHA-256 has to be, 64 hex digits. Without it only its size and its first bytes are checked. */
  sha256?: string;
}

/** Where a model, or a LoRA adapter, comes from. */
export type ModelSource = LocalModelSource | HuggingFaceModelSource | UrlModelSource;

/**
 * A source, or its short form: a path or a `file:` URL; `hf:owner/name`, `hf:owner/name:QUANTISATION` or
 * `hf:owner/name/path/to/file.gguf`; an address that begins with http:// or https://.
 */
export type ModelSourceInput = string | URL | ModelSource;

const SHORT_FORMS =
  'a path, a file: URL, an http(s) address, "hf:owner/name", or { type: "local" | "huggingface" | "url", ... }';
/** What people call them elsewhere. */
const OTHER_NAMES: Record<string, ModelSource['type']> = {
  hf: 'huggingface',
  hub: 'huggingface',
  file: 'local',
  path: 'local',
  folder: 'local',
  http: 'url',
  https: 'url',
};

const repository: Check = (value) =>
  typeof value === 'string' && /^[\w.-]+\/[\w.-]+$/.test(value) && !value.includes('..')
    ? undefined
    : 'a repository as "owner/name"';
const pathInside: Check = (value) =>
  typeof value === 'string' && isPathInside(value)
    ? undefined
    : 'a relative path with forward slashes and without ".."';
const sha256: Check = (value) =>
  typeof value === 'string' && /^[0-9a-f]{64}$/i.test(value) ? undefined : '64 hex digits';

const SOURCE_CHECKS: Record<ModelSource['type'], Record<string, Check>> = {
  local: { type: text, path: text },
  huggingface: {
    type: text,
    repo: repository,
    filename: pathInside,
    quantisation: text,
    folder: pathInside,
    revision: text,
    token: (value) => (value === null ? undefined : text(value) && 'a non-empty string or null'),
    endpoint: webAddress,
  },
  url: { type: text, url: webAddress, headers: stringMap, sha256 },
};
const NEEDED: Record<ModelSource['type'], string> = { local: 'path', huggingface: 'repo', url: 'url' };

/**
 * A source in its long form, checked.
 *
 * @param where what a message calls it
 * @throws HeadstartError `CONFIG_INVALID`.
 */
export function parseModelSource(input: unknown, where = '`source`'): ModelSource {
  if (input instanceof URL) {
    return parseModelSource(input.href, where);
  }
  if (typeof input === 'string' && input !== '') {
    return parseModelSource(fromShortForm(input), where);
  }
  const type = (input as { type?: unknown } | null | undefined)?.type;
  if (typeof input !== 'object' || input === null || !isType(type)) {
    const hint = typeof type === 'string' ? suggestType(type) : undefined;
    const got =
      typeof type === 'string' ? `type ${describe(type)}${hint ? `: did you mean "${hint}"?` : ''}` : describe(input);
    throw new HeadstartError('CONFIG_INVALID', `Expected ${where} to be ${SHORT_FORMS}, got ${got}`);
  }
  checkOptions(input, SOURCE_CHECKS[type], where);
  const needed = NEEDED[type];
  if ((input as unknown as Record<string, unknown>)[needed] === undefined) {
    throw new HeadstartError('CONFIG_INVALID', `Expected \`${needed}\` in ${where} of type "${type}"`);
  }
  const source = input as ModelSource;
  if (source.type === 'huggingface' && source.filename !== undefined && source.quantisation !== undefined) {
    throw new HeadstartError('CONFIG_INVALID', `Expected \`filename\` or \`quantisation\` in ${where}, got both`);
  }
  return Object.freeze(given(source.type === 'local' ? { ...source, path: localPath(source.path, where) } : source));
}

/** @throws HeadstartError `CONFIG_INVALID` for URLs that name no file of this machine. */
function localPath(path: string, where: string): string {
  if (!/^(?:file:|[a-z][a-z0-9+.-]+:\/\/)/i.test(path)) {
    return path;
  }
  try {
    if (!/^file:\//i.test(path)) {
      throw new TypeError('not a file: URL with an absolute path');
    }
    return fileURLToPath(path);
  } catch (cause) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected ${where} to be ${SHORT_FORMS}, got ${describe(path)}: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** Whether it stays below the folder that it is joined to, on every platform. */
export function isPathInside(path: string): boolean {
  return path !== '' && !/[\\:\0]/.test(path) && path.split('/').every((part) => part !== '' && !/^\.\.?$/.test(part));
}

function fromShortForm(short: string): unknown {
  const page = /^https:\/\/huggingface\.co\/([^/]+\/[^/]+)\/(?:resolve|blob)\/([^/]+)\/([^?#]+)/.exec(short);
  if (page !== null) {
    const [, repo, revision = '', filename = ''] = page;
    return { type: 'huggingface', repo, revision: decoded(revision), filename: decoded(filename) };
  }
  if (/^https?:\/\//i.test(short)) {
    return { type: 'url', url: short };
  }
  const hub = /^(?:hf|huggingface):(?:\/\/)?([^/:]+\/[^/:]+)(?:\/([^:]+)|:(.+))?$/.exec(short);
  if (hub !== null) {
    const [, repo, filename, quantisation] = hub;
    return { type: 'huggingface', repo, filename, quantisation };
  }
  if (/^(?:hf|huggingface):/.test(short)) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected "hf:owner/name", "hf:owner/name:QUANTISATION" or "hf:owner/name/file.gguf", got ${describe(short)}`,
    );
  }
  return { type: 'local', path: short };
}

/** What a part of an address stands for; as it is, where it stands for nothing. */
export function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function isType(type: unknown): type is ModelSource['type'] {
  return typeof type === 'string' && Object.hasOwn(SOURCE_CHECKS, type);
}

function suggestType(type: string): string | undefined {
  const lower = type.toLowerCase();
  return Object.hasOwn(OTHER_NAMES, lower)
    ? OTHER_NAMES[lower]
    : nearestName(type.replace(/[_-]/g, ''), Object.keys(SOURCE_CHECKS));
}
