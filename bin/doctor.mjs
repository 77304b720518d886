// `llama-headstart doctor [MODEL.gguf]` reports the binary of the addon that the loader would choose, the reason for
// this choice, and the hardware of this machine. If a model is named, `doctor` also reports the model's training
// length. The exit code is 1 if no binary can be loaded.

import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { readdir, stat, statfs } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { resolveModel } from '../dist/model/resolve-model.js';
import { ropeAdvice } from '../dist/model/training-length.js';
import { loadedAddon } from '../dist/native/addon.js';
import { Model } from '../dist/native/model.js';
import {
  addonFolders,
  buildsDirectory,
  gpuPackages,
  packageRoot,
  packageVersion,
  platformName,
  userCache,
} from '../dist/native/places.js';
import { toolProblems, toolVersions } from './lib/build-tools.mjs';
import { megabytes } from './lib/progress.mjs';
import { run } from './lib/run.mjs';

/** @param {string[]} args */
export async function doctor(args) {
  const { values, positionals } = parseArgs({ args, options: { json: { type: 'boolean' } }, allowPositionals: true });
  if (positionals.length > 1) throw new Error(`Expected one model file, got ${positionals.join(', ')}`);
  const report = await examine(positionals[0]);
  process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : text(report));
  if (report.loaded === null) process.exitCode = 1;
}

/** @param {string | undefined} model */
async function examine(model) {
  const { loaded, problem, cause } = tryToLoad();
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
    variables: Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith('LLAMA_HEADSTART_'))),
    nvidia: await nvidiaGpus(),
    tools: await toolVersions(),
    toolProblems: await toolProblems({ compiler: true }),
    userCache: await directoryState(userCache),
    builds: await directoryState(buildsDirectory),
    unfinished: await unfinishedBuilds(),
    templates: await directoryState(() => resolve('.cache/templates')),
    model: model === undefined || loaded === null ? null : await modelReport(model),
  };
}

/** Returns the training length of a model and the options for a longer context. @param {string} source */
async function modelReport(source) {
  try {
    const { path } = await resolveModel({ type: 'local', path: source });
    const model = await Model.load({ path, vocabularyOnly: true });
    const metadata = model.metadata();
    const { architecture, ropeType } = model.info;
    await model.close();
    // The training length comes from the metadata, because llama.cpp leaves `model.info.trainContextSize` unset if
    // `vocabularyOnly` is true.
    const trainContextSize = Number(metadata[`${architecture}.context_length`] ?? 0);
    const advice = ropeAdvice({ architecture, ropeType, trainContextSize }, metadata, 'contextSize') ?? null;
    const ropeScaling = metadata[`${architecture}.rope.scaling.type`] ?? null;
    return { path, architecture, trainContextSize, ropeScaling, advice, problem: null };
  } catch (error) {
    return { path: source, problem: /** @type {Error} */ (error).message };
  }
}

function tryToLoad() {
  try {
    const { raw, started, folder, gpu, skipped } = loadedAddon();
    const { cpu, tried, devices, systemInfo } = started;
    const { path, source } = folder;
    return {
      loaded: { path, source, gpu, cpu, tried, devices, systemInfo, llama: raw.llamaVersion, skipped },
      problem: null,
      cause: null,
    };
  } catch (error) {
    const { message, cause } = /** @type {Error} */ (error);
    return {
      loaded: null,
      problem: message,
      cause: cause instanceof Error ? (cause.message.split('\n')[0] ?? null) : null,
    };
  }
}

/** Returns the GPUs that the NVIDIA driver lists, even if the addon cannot use them. */
async function nvidiaGpus() {
  const { code, stdout } = await run('nvidia-smi', [
    '--query-gpu=name,driver_version,memory.total',
    '--format=csv,noheader',
  ]);
  return code === 0 ? stdout.trim().split('\n') : [];
}

/**
 * @typedef {object} DirectoryState
 * @property {string | null} path null if the path cannot be determined
 * @property {boolean} exists
 * @property {boolean} writable whether this process may write to the directory or, if it does not exist, create it
 * @property {string | null} problem the reason why the directory cannot be used
 * @property {number} [files]
 * @property {number} [bytes]
 * @property {number} [freeBytes]
 *
 * @param {() => string} getPath
 * @returns {Promise<DirectoryState>}
 */
async function directoryState(getPath) {
  let path = null;
  try {
    path = getPath();
    if (!existsSync(path)) return { path, exists: false, writable: isWritable(nearestExisting(path)), problem: null };
    return { path, exists: true, writable: isWritable(path), problem: null, ...(await contentOf(path)) };
  } catch (error) {
    const { message } = /** @type {Error} */ (error);
    return { path, exists: path !== null, writable: false, problem: message };
  }
}

/** @param {string} path */
async function contentOf(path) {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const sizes = await Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map((entry) => stat(join(entry.parentPath, entry.name)).catch(() => null)),
  );
  const { bavail, bsize } = await statfs(path);
  return {
    files: sizes.length,
    bytes: sizes.reduce((sum, entry) => sum + (entry?.size ?? 0), 0),
    freeBytes: bavail * bsize,
  };
}

/** Lists the build directories of interrupted and failed builds. @returns {Promise<string[]>} */
async function unfinishedBuilds() {
  try {
    const trees = join(userCache(), 'build-trees');
    return (await readdir(trees)).filter((name) => !name.endsWith('.lock')).map((name) => join(trees, name));
  } catch {
    return [];
  }
}

/** @param {string} path @returns {string} */
const nearestExisting = (path) => (existsSync(path) ? path : nearestExisting(dirname(path)));

/** @param {string} path */
function isWritable(path) {
  try {
    accessSync(path, constants.W_OK);
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** @param {Awaited<ReturnType<typeof examine>>} report */
function text(report) {
  const { loaded, candidates, variables, tools } = report;
  const lines = [
    `llama-headstart ${report.version} in ${report.package}`,
    `${report.platform}, Node ${report.node}${loaded ? `, llama.cpp ${loaded.llama}` : ''}`,
    ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
    '',
    ...(loaded ? loadedLines(loaded) : [`✗ ${report.problem}`]),
    '',
    'The loader tries these addons in this order (if `gpu` or LLAMA_HEADSTART_VARIANT names a GPU, only those with that GPU):',
    ...(candidates.length === 0
      ? ['  no addon found']
      : candidates.map((folder) => `  ${candidateLine(folder, loaded?.path)}`)),
    ...report.gpuPackages.map(({ name, version, problem }) => `  ${name} ${version ?? '?'}: ${problem ?? 'usable'}`),
    '',
    ...(report.nvidia.length > 0 ? report.nvidia.map((gpu) => `NVIDIA: ${gpu}`) : ['NVIDIA: no driver']),
    'To build:',
    ...Object.entries(tools).map(([tool, version]) => `  ${tool}: ${version ?? 'not installed'}`),
    ...(report.toolProblems.length > 0
      ? [`  \`npx llama-headstart build\` lacks: ${report.toolProblems.join(', ')}`]
      : ['  These tools are enough for `npx llama-headstart build`.']),
    '',
    `Cache: ${stateLine(report.userCache)}`,
    `Builds: ${stateLine(report.builds)}`,
    ...report.unfinished.map(
      (tree) => `  not finished: ${tree} (\`build\` with the same options continues it, \`clean\` removes it)`,
    ),
    `Templates (default directory): ${stateLine(report.templates)}`,
    ...(report.model ? ['', ...modelLines(report.model)] : []),
  ];
  return `${lines.join('\n')}\n`;
}

/** @param {NonNullable<Awaited<ReturnType<typeof examine>>['loaded']>} loaded */
function loadedLines({ path, source, gpu, cpu, tried, devices, systemInfo, skipped }) {
  const scores = tried.map(({ name, score, problem }) => (problem ? `${name} (${problem})` : `${name} ${score}`));
  return [
    `✓ ${path} (${source}${gpu ? `, ${gpu}` : ''})`,
    ...skipped.map((each) => `  not ${each.path}: ${each.reason}`),
    cpu
      ? `  CPU module: ${cpu}, ${process.env.LLAMA_HEADSTART_CPU ? 'which LLAMA_HEADSTART_CPU selects from' : 'which has the highest score of'} ${scores.join(', ')}`
      : '  compiled for one CPU, without CPU modules',
    `  features: ${systemInfo.trim()}`,
    ...devices.map((device) => `  device: ${device.name} (${device.description}), ${megabytes(device.totalBytes)}`),
  ];
}

/**
 * @param {import('../dist/native/places.js').AddonFolder} folder
 * @param {string | undefined} loaded
 */
function candidateLine({ source, path, builtIn, modules }, loaded) {
  const gpus = [
    ...(builtIn ? [`${builtIn} linked in`] : []),
    ...modules.map(({ gpu, package: name }) => name ?? `${gpu} module`),
  ];
  return `${path === loaded ? '✓' : '·'} ${source}: ${dirname(path)}${gpus.length > 0 ? ` with ${gpus.join(', ')}` : ''}`;
}

/** @param {Awaited<ReturnType<typeof modelReport>>} model */
function modelLines(model) {
  if (model.problem !== null) return [`Model: ✗ ${model.problem}`];
  const { path, architecture, trainContextSize, ropeScaling, advice } = model;
  const scaling = ropeScaling ? `, its RoPE scaling is ${ropeScaling}` : '';
  const longer = advice ? `set { ${advice} }` : 'not possible, because the positions of this model cannot be scaled';
  return [
    `Model: ${path}`,
    `  ${architecture}, trained with ${trainContextSize} tokens${scaling}`,
    `  for a longer \`contextSize\`: ${longer}`,
  ];
}

/** @param {DirectoryState} state */
function stateLine({ path, exists, writable, problem, files, bytes = 0, freeBytes = 0 }) {
  if (problem !== null) return `${path ?? 'none'}, NOT USABLE: ${problem}`;
  const state = exists
    ? `${files} files, ${megabytes(bytes)}, ${megabytes(freeBytes)} free`
    : `does not exist yet${writable ? '' : ', and cannot be created'}`;
  return `${path}, ${state}${writable ? '' : ', NOT WRITABLE'}`;
}
