import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HeadstartError } from '../errors.js';
import { forgivingLogger, type Logger } from '../logger.js';
import { abortSignal, callable, group, type OptionsOf, text, value } from '../option-types.js';
import type { Place } from '../options.js';
import { parseOptions } from '../parse-options.js';
import { modelsDirectory } from './directory.js';
import { downloadFile, type RemoteFile } from './download.js';
import { shardPaths } from './fingerprint.js';
import { fetchHubModel } from './hub-model.js';
import { findLocalModel, generationConfigBeside } from './local.js';
import { ByteProgress, type OnModelProgress } from './progress.js';
import { RETRY_CONFIG, type ResolvedRetryConfig } from './retry.js';
import { decoded, type ModelSourceInput, parseModelSource, type UrlModelSource } from './source.js';

const RESOLVE = {
  /** Where downloads are kept. @default `LLAMA_HEADSTART_MODELS_DIR`, else `models` in the cache directory of the user */
  modelsDir: text().optional(),
  /** How requests that fail in passing are tried again. @default 3 times, after 1, 2 and 4 seconds */
  retryConfig: RETRY_CONFIG.prefault({}),
  /**
   * Also get the sampling that the makers recommend. `true` fetches the repository's `generation_config.json`, or that of the
   * model it was made from. `'with-model'` takes a file beside the model, and fetches the repository's while it downloads the
   * model itself. @default false
   */
  generationConfig: value<boolean | 'with-model'>(
    (given) => typeof given === 'boolean' || given === 'with-model',
    "a boolean or 'with-model'",
  ).default(false),
  /** Called while it is downloaded. */
  onProgress: callable<OnModelProgress>().optional(),
  /** Gets a warning for what is tried again. @default none */
  logger: callable<Logger>().optional(),
  /** Ends it with `ABORTED`; what was downloaded stays, to be gone on from. */
  signal: abortSignal().optional(),
};

/** How a model is brought to this machine. */
export interface ResolveModelOptions extends OptionsOf<typeof RESOLVE> {}

export const RESOLVE_OPTIONS = group(RESOLVE);

/** A model that is on this machine. */
export interface ResolvedModel {
  /** Of a split model the first file. */
  path: string;
  /** The parsed `generation_config.json`, where it was asked for and there is one. */
  generationConfig: unknown;
}

const OF_AN_AGENT: readonly Place[] = [
  { names: ['useHfParams'], where: 'in `model` of an agent: here it is `generationConfig`' },
];

/** What the sources share. */
export interface Fetching {
  directory: string;
  retry: ResolvedRetryConfig;
  generationConfig: boolean | 'with-model';
  onProgress: OnModelProgress | undefined;
  log: Logger;
  signal: AbortSignal | undefined;
}

/**
 * Brings a model, or a LoRA adapter, to this machine, unless it is there already. Downloads resume where they stopped, are
 * done once for all processes, are verified, and get their name only then.
 *
 * @throws HeadstartError `CONFIG_INVALID`, `MODEL_NOT_FOUND`, `UNAUTHORIZED`, `DOWNLOAD_FAILED`, `DOWNLOAD_CORRUPT`,
 *   `DISK_FULL`, `WRITE_FAILED`, `ABORTED`.
 */
export async function resolveModel(input: ModelSourceInput, options: ResolveModelOptions = {}): Promise<ResolvedModel> {
  const { modelsDir, retryConfig, generationConfig, onProgress, logger, signal } = parseOptions(
    RESOLVE_OPTIONS,
    options,
    {
      where: 'the options',
      places: OF_AN_AGENT,
    },
  );
  const source = parseModelSource(input);
  const fetching: Fetching = {
    // Asked for where something is downloaded: a local model needs none, and not every user has a home.
    get directory() {
      return modelsDir ?? modelsDirectory();
    },
    retry: retryConfig,
    generationConfig,
    onProgress,
    log: forgivingLogger(logger ?? (() => undefined)),
    signal,
  };
  const path = await pathOf(source, fetching);
  return { path, generationConfig: fetching.generationConfig ? await generationConfigBeside(path) : undefined };
}

async function pathOf(source: ReturnType<typeof parseModelSource>, fetching: Fetching): Promise<string> {
  switch (source.type) {
    case 'local':
      return findLocalModel(source.path);
    case 'huggingface':
      return fetchHubModel(source, fetching);
    case 'url':
      return fetchUrlModel(source, fetching);
  }
}

async function fetchUrlModel(source: UrlModelSource, fetching: Fetching): Promise<string> {
  const url = new URL(source.url);
  const place = createHash('sha256')
    .update(source.url)
    .update(source.sha256?.toLowerCase() ?? '')
    .digest('hex')
    .slice(0, 16);
  const folder = join(fetching.directory, 'url', place);
  const names = shardPaths(decoded(url.pathname.split('/').at(-1) || 'model.gguf').replace(/[/\\:\0]/g, '_'));
  const files = names.map((name): RemoteFile => {
    const part = new URL(url);
    part.pathname = url.pathname.replace(/[^/]*$/, encodeURIComponent(name));
    const address = names.length === 1 ? source.url : part.href;
    return { url: address, path: join(folder, name), secrets: source.headers, magic: 'GGUF' };
  });
  const [first] = files as [RemoteFile];
  if (source.sha256 !== undefined) {
    if (names.length > 1) {
      throw new HeadstartError(
        'CONFIG_INVALID',
        'Expected no `sha256` in `source` for a split model: it is of one file',
      );
    }
    first.sha256 = source.sha256;
  }
  const progress = new ByteProgress(
    fetching.onProgress,
    files.map(() => undefined),
  );
  for (const file of files) {
    await downloadFile(file, { ...fetching, progress, log: (message) => fetching.log('warn', message) });
    progress.finish((await stat(file.path)).size);
  }
  return first.path;
}
