import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HeadstartError } from '../errors.js';
import { forgivingLogger, type Logger } from '../logger.js';
import { abortSignal, callable, group, type OptionsOf, text, value } from '../option-types.js';
import type { Place } from '../options.js';
import { parseOptions } from '../parse-options.js';
import { downloadFile, type RemoteFile } from './download.js';
import { shardPaths } from './fingerprint.js';
import { fetchHubModel } from './hub-model.js';
import { findLocalModel, generationConfigBeside } from './local-model.js';
import { ByteProgress, type OnModelProgress } from './model-progress.js';
import { modelsDirectory } from './models-directory.js';
import { RETRY_CONFIG, type ResolvedRetryConfig } from './retry.js';
import { decoded, type ModelSourceInput, parseModelSource, type UrlModelSource } from './source.js';

const RESOLVE = {
  /**
   * Directory for downloads. @default `LLAMA_HEADSTART_MODELS_DIR`, else `models` in the cache directory of the user
   */
  modelsDir: text().optional(),
  /** Retries of failed requests. @default 3 times, after 1, 2 and 4 seconds */
  retryConfig: RETRY_CONFIG.prefault({}),
  /**
   * Also return the sampling options that the model's makers recommend. `true` downloads the `generation_config.json`
   * of the repository or of its base model. `'with-model'` reads the file in the model's directory. The repository's
   * file is then downloaded only together with the model. @default false
   */
  generationConfig: value<boolean | 'with-model'>(
    (input) => typeof input === 'boolean' || input === 'with-model',
    "a boolean or 'with-model'",
  ).default(false),
  /** Called during the download. @default none */
  onProgress: callable<OnModelProgress>().optional(),
  /** Receives a warning for each retry. @default none */
  logger: callable<Logger>().optional(),
  /**
   * Aborts the download with `ABORTED`. The received bytes stay, and the next download continues after them.
   * @default none
   */
  signal: abortSignal().optional(),
};

/** The options of `resolveModel()`. */
export interface ResolveModelOptions extends OptionsOf<typeof RESOLVE> {}

export const RESOLVE_OPTIONS = group(RESOLVE);

/** A model that is on this machine. */
export interface ResolvedModel {
  /** The path of the model's file, or of the first part of a split model. */
  path: string;
  /** The parsed `generation_config.json`; undefined if it was not requested or does not exist. */
  generationConfig: unknown;
}

const OF_AN_AGENT: readonly Place[] = [
  { names: ['useHfParams'], where: 'in `model` of an agent: use `generationConfig` here' },
];

/** The resolved options of a download, for all kinds of sources. */
export interface DownloadSettings {
  directory: string;
  retry: ResolvedRetryConfig;
  generationConfig: boolean | 'with-model';
  onProgress: OnModelProgress | undefined;
  log: Logger;
  signal: AbortSignal | undefined;
}

/**
 * Downloads a model or a LoRA adapter, unless it is on this machine already. An interrupted download continues from its
 * last byte. If several processes need the file, one of them downloads it. A file gets its final name only after
 * verification.
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
  const settings: DownloadSettings = {
    // Only downloads read this getter. The getter throws if the user has no home directory, and a local model needs
    // none.
    get directory() {
      return modelsDir ?? modelsDirectory();
    },
    retry: retryConfig,
    generationConfig,
    onProgress,
    log: forgivingLogger(logger ?? (() => undefined)),
    signal,
  };
  const path = await pathOf(source, settings);
  return { path, generationConfig: settings.generationConfig ? await generationConfigBeside(path) : undefined };
}

async function pathOf(source: ReturnType<typeof parseModelSource>, settings: DownloadSettings): Promise<string> {
  switch (source.type) {
    case 'local':
      return findLocalModel(source.path);
    case 'huggingface':
      return fetchHubModel(source, settings);
    case 'url':
      return fetchUrlModel(source, settings);
  }
}

async function fetchUrlModel(source: UrlModelSource, settings: DownloadSettings): Promise<string> {
  const url = new URL(source.url);
  const place = createHash('sha256')
    .update(source.url)
    .update(source.sha256?.toLowerCase() ?? '')
    .digest('hex')
    .slice(0, 16);
  const folder = join(settings.directory, 'url', place);
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
        'Expected no `sha256` in `source` of a split model, because this is the hash of one file',
      );
    }
    first.sha256 = source.sha256;
  }
  const progress = new ByteProgress(
    settings.onProgress,
    files.map(() => undefined),
  );
  for (const file of files) {
    await downloadFile(file, { ...settings, progress, log: (message) => settings.log('warn', message) });
    progress.finish((await stat(file.path)).size);
  }
  return first.path;
}
