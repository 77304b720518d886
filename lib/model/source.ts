// The long and short forms of model sources, and their checks.
import { fileURLToPath } from 'node:url';
import { HeadstartError } from '../errors.js';
import { type Group, group, type OptionsOf, oneOf, stringMap, text, value, webAddress } from '../option-types.js';
import { describe, nearestName } from '../options.js';
import { parseOptions } from '../parse-options.js';

const repository = () =>
  value<string>(
    (input) => typeof input === 'string' && /^[\w.-]+\/[\w.-]+$/.test(input) && !input.includes('..'),
    'a repository as "owner/name"',
  );
const pathInside = () =>
  value<string>(
    (input) => typeof input === 'string' && isPathInside(input),
    'a relative path with forward slashes and without ".."',
  );

const LOCAL = {
  /** Distinguishes this kind of source from the others. */
  type: oneOf('local'),
  /**
   * The path or `file:` URL of a GGUF file, of any part of a split model, or of a folder that contains one model. A
   * path is relative to the working directory. `~/` is the home directory.
   */
  path: text(),
};

/** A model on this machine. */
export interface LocalModelSource extends OptionsOf<typeof LOCAL> {}

const HUGGING_FACE = {
  /** Distinguishes this kind of source from the others. */
  type: oneOf('huggingface'),
  /** `owner/name`. */
  repo: repository(),
  /** The path of the GGUF file, or of any part of a split model, in the repository. */
  filename: pathInside().optional(),
  /**
   * Chooses the model with this quantization in its file name, instead of `filename`. Ignores upper and lower case.
   * @default Q4_K_M if the repository has it, else its only GGUF file
   */
  quantization: text().optional(),
  /** Consider only files below this folder of the repository. */
  folder: pathInside().optional(),
  /** Branch, tag or commit. @default 'main' */
  revision: text().optional(),
  /** Access token. `null` sends no token. @default HF_TOKEN, else the token that `hf auth login` has saved */
  token: value<string | null>(
    (input) => input === null || (typeof input === 'string' && input !== ''),
    'a non-empty string or null',
  ).optional(),
  /** Address of the Hub, or of a server with the Hub's API. @default HF_ENDPOINT, else https://huggingface.co */
  endpoint: webAddress().optional(),
};

/**
 * A model on the Hugging Face Hub, or on a server with the Hub's API. The model is downloaded once and then used
 * offline.
 */
export interface HuggingFaceModelSource extends OptionsOf<typeof HUGGING_FACE> {}

const URL_SOURCE = {
  /** Distinguishes this kind of source from the others. */
  type: oneOf('url'),
  /**
   * An http or https address without user and password: pass these in `headers`. For a split model, the address of the
   * first part, which must have its usual name (`...-00001-of-00003.gguf`).
   */
  url: webAddress(),
  /** Headers for the origin of the address. A redirect to another origin does not get these headers. @default none */
  headers: stringMap().optional(),
  /**
   * The expected SHA-256 of the file, 64 hex digits. Without a hash, only the size and first bytes are checked.
   * @default none
   */
  sha256: value<string>(
    (input) => typeof input === 'string' && /^[0-9a-f]{64}$/i.test(input),
    '64 hex digits',
  ).optional(),
};

/** A model at an address. */
export interface UrlModelSource extends OptionsOf<typeof URL_SOURCE> {}

/** The source of a model or a LoRA adapter. */
export type ModelSource = LocalModelSource | HuggingFaceModelSource | UrlModelSource;

/**
 * A source, or one of the short forms:
 *
 * - a path or a `file:` URL
 * - `hf:owner/name`, `hf:owner/name:QUANTIZATION` or `hf:owner/name/path/to/file.gguf`
 * - an address that begins with http:// or https://
 */
export type ModelSourceInput = string | URL | ModelSource;

const SHORT_FORMS =
  'a path, a file: URL, an http(s) address, "hf:owner/name", or { type: "local" | "huggingface" | "url", ... }';
/** Maps names that other programs use to the types of sources. */
const OTHER_NAMES: Record<string, ModelSource['type']> = {
  hf: 'huggingface',
  hub: 'huggingface',
  file: 'local',
  path: 'local',
  folder: 'local',
  http: 'url',
  https: 'url',
};

export const SOURCES = { local: group(LOCAL), huggingface: group(HUGGING_FACE), url: group(URL_SOURCE) };
const NEEDED: Record<ModelSource['type'], string> = { local: 'path', huggingface: 'repo', url: 'url' };

/**
 * Checks a source and returns its long form.
 *
 * @param where what error messages call the source
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
  const needed = NEEDED[type];
  if ((input as unknown as Record<string, unknown>)[needed] === undefined) {
    throw new HeadstartError('CONFIG_INVALID', `Expected \`${needed}\` in ${where} of type "${type}"`);
  }
  const source: ModelSource = parseOptions(SOURCES[type] as Group<ModelSource>, input, { where });
  if (source.type === 'huggingface' && source.filename !== undefined && source.quantization !== undefined) {
    throw new HeadstartError('CONFIG_INVALID', `Expected \`filename\` or \`quantization\` in ${where}, got both`);
  }
  return source.type === 'local' ? Object.freeze({ ...source, path: localPath(source.path, where) }) : source;
}

/**
 * Converts a `file:` URL to a path.
 *
 * @throws HeadstartError `CONFIG_INVALID` for a URL that is not that of a local file.
 */
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

/** Whether a relative path stays inside the folder that it is joined to, on every platform. */
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
    const [, repo, filename, quantization] = hub;
    return { type: 'huggingface', repo, filename, quantization };
  }
  if (/^(?:hf|huggingface):/.test(short)) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected "hf:owner/name", "hf:owner/name:QUANTIZATION" or "hf:owner/name/file.gguf", got ${describe(short)}`,
    );
  }
  return { type: 'local', path: short };
}

/** Decodes a part of an address. Returns the part unchanged if its encoding is invalid. */
export function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function isType(type: unknown): type is ModelSource['type'] {
  return typeof type === 'string' && Object.hasOwn(SOURCES, type);
}

function suggestType(type: string): string | undefined {
  const lower = type.toLowerCase();
  return Object.hasOwn(OTHER_NAMES, lower)
    ? OTHER_NAMES[lower]
    : nearestName(type.replace(/[_-]/g, ''), Object.keys(SOURCES));
}
