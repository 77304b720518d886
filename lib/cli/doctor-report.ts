// Collects what `llama-headstart doctor` reports about the addon, this machine and the directories of the package.
import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { readdir, stat, statfs } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { modelsDirectory } from '../model/models-directory.js';
import { resolveModel } from '../model/resolve-model.js';
import { ropeAdvice } from '../model/training-length.js';
import { loadedAddon } from '../native/addon.js';
import { Model } from '../native/model.js';
import {
  addonFolders,
  buildsDirectory,
  gpuPackages,
  packageRoot,
  packageVersion,
  platformName,
  userCache,
} from '../native/places.js';
import { templatesDirectory } from './directories.js';
import { findSlowness, isPortFree } from './doctor-advice.js';
import { type DownloadedModel, listModels } from './downloaded-models.js';
import { trainingLength } from './model-memory.js';
import { packageScript } from './package-scripts.js';
import { DEFAULT_PORT } from './serve/server-options.js';

export type DoctorReport = Awaited<ReturnType<typeof examine>>;

/** @param model the path of a model to describe */
export async function examine(model: string | undefined) {
  const { toolProblems, toolVersions } = await packageScript('build-tools.mjs');
  const { loaded, problem, cause } = tryToLoad();
  const nvidia = await nvidiaGpus();
  const cacheDirectory = await directoryState(() =>
    templatesDirectory(process.env.LLAMA_HEADSTART_CACHE_DIR || undefined),
  );
  return {
    version: packageVersion,
    package: packageRoot,
    node: process.versions.node,
    platform: platformName,
    loaded,
    problem,
    cause,
    candidates: addonFolders(),
    gpuPackages: gpuPackages(),
    variables: packageVariables(),
    nvidia,
    tools: await toolVersions(),
    toolProblems: await toolProblems({ compiler: true }),
    userCache: await directoryState(userCache),
    builds: await directoryState(buildsDirectory),
    unfinished: await unfinishedBuilds(),
    templates: await directoryState(() => resolve('.cache/templates')),
    cacheDirectory,
    modelsDirectory: await directoryState(modelsDirectory),
    models: await downloadedModels(),
    ports: [{ port: DEFAULT_PORT, free: await isPortFree(DEFAULT_PORT) }],
    slow: await findSlowness({ loaded, nvidia, cacheDirectory }),
    model: model === undefined || loaded === null ? null : await modelReport(model),
  };
}

/** The environment variables of the package. Users publish this report, so it hides API keys. */
function packageVariables(): Record<string, string | undefined> {
  const own = Object.entries(process.env).filter(([name]) => name.startsWith('LLAMA_HEADSTART_'));
  return Object.fromEntries(own.map(([name, value]) => [name, name.endsWith('_KEY') ? '(hidden)' : value]));
}

/** The downloaded models. Empty if the user has no home directory. */
async function downloadedModels(): Promise<Pick<DownloadedModel, 'name' | 'bytes'>[]> {
  try {
    return (await listModels(undefined)).models.map(({ name, bytes }) => ({ name, bytes }));
  } catch {
    return [];
  }
}

export type LoadedReport = NonNullable<ReturnType<typeof tryToLoad>['loaded']>;
export type ModelReport = Awaited<ReturnType<typeof modelReport>>;

/** The training length of a model and the options for a longer context. */
async function modelReport(source: string) {
  try {
    const { path } = await resolveModel({ type: 'local', path: source });
    const model = await Model.load({ path, vocabularyOnly: true });
    const metadata = model.metadata();
    const { architecture, ropeType } = model.info;
    await model.close();
    // The training length comes from the metadata, because llama.cpp leaves `model.info.trainContextSize` unset if
    // `vocabularyOnly` is true.
    const trainContextSize = trainingLength(metadata);
    const advice = ropeAdvice({ architecture, ropeType, trainContextSize }, metadata, 'contextSize') ?? null;
    const ropeScaling = metadata[`${architecture}.rope.scaling.type`] ?? null;
    return { path, architecture, trainContextSize, ropeScaling, advice, problem: null };
  } catch (error) {
    return { path: source, problem: (error as Error).message };
  }
}

function tryToLoad() {
  try {
    const { raw, started, folder, gpu, skipped } = loadedAddon();
    const { cpu, tried, devices, systemInfo } = started;
    const { path, source } = folder;
    const loaded = { path, source, gpu, cpu, tried, devices, systemInfo, llama: raw.llamaVersion, skipped };
    return { loaded, problem: null, cause: null };
  } catch (error) {
    const { message, cause } = error as Error;
    const reason = cause instanceof Error ? (cause.message.split('\n')[0] ?? null) : null;
    return { loaded: null, problem: message, cause: reason };
  }
}

/** The GPUs that the NVIDIA driver lists, even if the addon cannot use them. */
async function nvidiaGpus(): Promise<string[]> {
  const { run } = await packageScript('run.mjs');
  const query = ['--query-gpu=name,driver_version,memory.total', '--format=csv,noheader'];
  const { code, stdout } = await run('nvidia-smi', query);
  return code === 0 ? stdout.trim().split('\n') : [];
}

export interface DirectoryState {
  /** Null if the path cannot be determined. */
  path: string | null;
  exists: boolean;
  /** Whether this process may write to the directory or, if it does not exist, create it. */
  writable: boolean;
  /** Why the directory cannot be used. */
  problem: string | null;
  files?: number;
  bytes?: number;
  freeBytes?: number;
}

async function directoryState(getPath: () => string): Promise<DirectoryState> {
  let path: string | null = null;
  try {
    path = getPath();
    if (!existsSync(path)) {
      return { path, exists: false, writable: isWritable(nearestExisting(path)), problem: null };
    }
    return { path, exists: true, writable: isWritable(path), problem: null, ...(await contentOf(path)) };
  } catch (error) {
    return { path, exists: path !== null, writable: false, problem: (error as Error).message };
  }
}

async function contentOf(path: string): Promise<{ files: number; bytes: number; freeBytes: number }> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const sizes = await Promise.all(files.map((file) => stat(file).catch(() => undefined)));
  const { bavail, bsize } = await statfs(path);
  const bytes = sizes.reduce((sum, entry) => sum + (entry?.size ?? 0), 0);
  return { files: sizes.length, bytes, freeBytes: bavail * bsize };
}

/** The build directories of interrupted and failed builds. */
async function unfinishedBuilds(): Promise<string[]> {
  try {
    const trees = join(userCache(), 'build-trees');
    return (await readdir(trees)).filter((name) => !name.endsWith('.lock')).map((name) => join(trees, name));
  } catch {
    return [];
  }
}

const nearestExisting = (path: string): string => (existsSync(path) ? path : nearestExisting(dirname(path)));

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}
