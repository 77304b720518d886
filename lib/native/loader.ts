// Chooses an addon, loads and starts it, and explains why none could be. Once a process.
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { HeadstartError } from '../errors.js';
import type { RawAddon, RawStarted } from './addon.js';
import { type AddonFolder, addonFolders, GPUS, type GpuKind, packageRoot, platformName } from './places.js';

/** Which GPU to compute on. `'auto'`: the one that a build or an installed package offers, else none. `false`: none. */
export type Gpu = 'auto' | GpuKind | false;

/** What was loaded, and what was not. */
export interface LoadedAddon {
  raw: RawAddon;
  started: RawStarted;
  folder: AddonFolder;
  /** The GPU backend that is in use: one that has found a GPU. */
  gpu: GpuKind | null;
  /** What was tried before, and why it was not it. */
  skipped: { path: string; reason: string }[];
}

/**
 * Loads and starts the first addon that serves `wanted`, in this order: LLAMA_HEADSTART_ADDON; the package folder's own
 * build; builds in the user's cache, the newest first; the prebuilt one, with an installed GPU package. What somebody built by hand
 * is theirs to prefer, so a GPU package comes before it only where its GPU is asked for by name.
 *
 * @throws HeadstartError `ADDON_NOT_FOUND` with the platform, what was looked for, and the command that mends it; `ADDON_LOADED`
 *   where another thread has started the process on something else.
 */
export function loadAddon(wanted: Gpu): LoadedAddon {
  const skipped: LoadedAddon['skipped'] = [];
  let first: unknown;
  for (const folder of inOrder(addonFolders(), wanted)) {
    let raw: RawAddon;
    try {
      raw = createRequire(import.meta.url)(resolve(folder.path));
    } catch (cause) {
      first ??= cause;
      skipped.push({ path: folder.path, reason: firstLine(cause) });
      continue;
    }
    // What is started, even in vain, stays in the process: another folder's libraries would mix with it.
    return start(raw, folder, wanted, skipped);
  }
  throw new HeadstartError('ADDON_NOT_FOUND', notFound(wanted, skipped), { cause: first });
}

const gpusOf = ({ builtIn, modules }: AddonFolder): GpuKind[] => [
  ...(builtIn ? [builtIn] : []),
  ...modules.map(({ gpu }) => gpu),
];

/** The folders that could serve. What the environment names is taken for what it is. */
function inOrder(folders: AddonFolder[], wanted: Gpu): AddonFolder[] {
  if (wanted === 'auto') {
    return folders;
  }
  return folders.filter((folder) => {
    if (folder.source === 'environment') {
      return true;
    }
    return wanted === false ? folder.builtIn === null : gpusOf(folder).includes(wanted);
  });
}

/** Starts with the GPU that is wanted, and where any will do without one if need be. */
function start(raw: RawAddon, folder: AddonFolder, wanted: Gpu, skipped: LoadedAddon['skipped']): LoadedAddon {
  const modules =
    wanted === false || folder.builtIn ? [] : folder.modules.filter(({ gpu }) => wanted === 'auto' || wanted === gpu);
  const started = startProcess(raw, folder, modules);
  const gpu = gpuIn(started);
  const unusable = unusableGpus(started, folder, modules, gpu);
  if (wanted !== 'auto' && wanted !== (gpu ?? false)) {
    const [found] = unusable;
    throw wanted !== false && found ? cannotUse(wanted, found) : alreadyLoaded(wanted, gpu);
  }
  for (const { gpu: kind, path, package: name, reason } of unusable) {
    skipped.push({ path, reason });
    process.emitWarning(`${name ?? path} is there but cannot be used, so the ${gpu ?? 'CPU'} computes: ${reason}`, {
      code: 'HEADSTART_GPU_UNAVAILABLE',
      detail: GPU_HINTS[kind],
    });
  }
  return { raw, started, folder, gpu, skipped };
}

function startProcess(raw: RawAddon, folder: AddonFolder, modules: AddonFolder['modules']): RawStarted {
  const cpu = process.env.LLAMA_HEADSTART_CPU;
  try {
    return raw.start({ ...(cpu && { cpu }), modules: modules.map(({ path }) => path) });
  } catch (cause) {
    const mend = cpu ? 'Unset LLAMA_HEADSTART_CPU to let the best one be chosen.' : REBUILD;
    throw new HeadstartError(
      'ADDON_NOT_FOUND',
      `The native addon for ${here}, ${folder.path}, cannot be started: ${firstLine(cause)}. ${mend}`,
      { cause },
    );
  }
}

/** ggml's names of what drives a GPU. */
const BACKENDS: Record<string, GpuKind> = { CUDA: 'cuda', MTL: 'metal', Vulkan: 'vulkan' };

/** What has a GPU, and not what was merely loaded: ggml's backends load without one too. */
const gpuIn = ({ devices }: RawStarted): GpuKind | null =>
  devices.flatMap(({ type, backend }) => (type === 'gpu' ? (BACKENDS[backend] ?? []) : []))[0] ?? null;

type UnusableGpu = AddonFolder['modules'][number] & { reason: string };

/** Of the GPUs that were asked for, those that are not to be had. A start by another thread may have asked for others. */
function unusableGpus(
  { modules: tried }: RawStarted,
  { builtIn, path }: AddonFolder,
  asked: AddonFolder['modules'],
  used: GpuKind | null,
): UnusableGpu[] {
  if (builtIn) {
    return builtIn === used ? [] : [{ gpu: builtIn, path, package: null, reason: 'it finds no GPU' }];
  }
  return asked.flatMap((module) => {
    const problem = tried.find((each) => each.path === module.path)?.problem;
    return problem ? [{ ...module, reason: problem.replace(/\.$/, '') }] : [];
  });
}

const here = `${platformName}, Node ${process.versions.node}`;

const REBUILD = 'Run `npx llama-headstart build` to compile it here; `npx llama-headstart doctor` shows what there is.';

/** What each kind of GPU needs on the machine. */
export const GPU_HINTS: Record<GpuKind, string> = {
  cuda:
    "It needs NVIDIA's driver and a GPU, and the CUDA runtime and cuBLAS of the major version it was built with where the system " +
    'looks for libraries (ldconfig, LD_LIBRARY_PATH).',
  metal: 'It needs a Mac with a GPU that Metal supports.',
  vulkan: "It needs the Vulkan loader (libvulkan) and a GPU's driver.",
};

const cannotUse = (wanted: GpuKind, { path, package: name, reason }: UnusableGpu): HeadstartError =>
  new HeadstartError(
    'ADDON_NOT_FOUND',
    `No GPU can be used by ${wanted} on ${here}: ${name ? `${name}, ` : ''}${path}: ${reason}. ${GPU_HINTS[wanted]} ` +
      `\`npx llama-headstart doctor\` shows what there is; \`npx llama-headstart build --${wanted}\` compiles it for this machine.`,
  );

/** For who asks for another GPU than the one that this process computes on. */
export const alreadyLoaded = (asked: Gpu, used: GpuKind | null): HeadstartError =>
  new HeadstartError(
    'ADDON_LOADED',
    `Expected \`gpu\` ${JSON.stringify(asked)}, but this process already computes on ${used ?? 'the CPU'}: all agents of a ` +
      'process share one addon, which the first to use it chooses',
  );

function notFound(wanted: Gpu, skipped: LoadedAddon['skipped']): string {
  const named = process.env.LLAMA_HEADSTART_ADDON;
  const tried = skipped.map(({ path, reason }) => `${path}: ${reason}`).join('; ');
  if (named) {
    return (
      `No native addon for ${here} could be loaded from "${named}" (LLAMA_HEADSTART_ADDON): ${tried}. ` +
      "Unset LLAMA_HEADSTART_ADDON to load the package's own."
    );
  }
  if (wanted !== 'auto' && wanted !== false) {
    return (
      `No native addon with ${wanted} for ${here} was found${tried && `: ${tried}`}. Run ` +
      `\`npx llama-headstart build --${wanted}\`, or \`npm install @llama-headstart/${platformName}-${wanted}\`.`
    );
  }
  return (
    `No native addon for ${here} could be loaded from ${packageRoot} (looked in build/Release, the user's cache and ` +
    `prebuilds)${tried && `: ${tried}`}. ${REBUILD}`
  );
}

const firstLine = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).split('\n')[0]?.replace(/\.$/, '') ?? '';

/**
 * What LLAMA_HEADSTART_VARIANT says, else the option. The variable wins: who runs a program knows its machine.
 *
 * @throws HeadstartError `CONFIG_INVALID` for a variable that says something else.
 */
export function wantedGpu(option: Gpu | undefined): Gpu {
  const variable = process.env.LLAMA_HEADSTART_VARIANT;
  if (!variable) {
    return option ?? 'auto';
  }
  if (variable === 'cpu') {
    return false;
  }
  if (variable === 'auto' || GPUS.includes(variable as GpuKind)) {
    return variable as Gpu;
  }
  throw new HeadstartError(
    'CONFIG_INVALID',
    `Expected LLAMA_HEADSTART_VARIANT to be auto, cpu, ${GPUS.join(', ')}, got "${variable}"`,
  );
}
