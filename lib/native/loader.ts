// Chooses, loads and starts the addon of this process. If no addon can be loaded, explains why.
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { HeadstartError } from '../errors.js';
import type { RawAddon, RawStarted } from './addon.js';
import { type AddonFolder, addonFolders, GPUS, type GpuKind, packageRoot, platformName } from './places.js';

/** The GPU to compute on. `'auto'`: a GPU that a build or an installed package supports, else none. `false`: none. */
export type Gpu = 'auto' | GpuKind | false;

/** The loaded addon, and the addons and GPU modules that could not be used. */
export interface LoadedAddon {
  raw: RawAddon;
  started: RawStarted;
  folder: AddonFolder;
  /** The GPU backend in use, or null if no GPU is used. */
  gpu: GpuKind | null;
  /** Addons and GPU modules that were tried earlier, each with the reason why it is not used. */
  skipped: { path: string; reason: string }[];
}

/**
 * Loads and starts the first addon that can use `requested`, in this order:
 *
 * 1. the file that LLAMA_HEADSTART_ADDON names,
 * 2. the build in the package's folder,
 * 3. the builds in the user's cache, the newest first,
 * 4. the prebuilt addon, with an installed GPU package.
 *
 * Builds have priority because the user made them. A GPU package replaces a build only if its GPU is requested by name.
 *
 * @throws HeadstartError `ADDON_NOT_FOUND` with the platform, the files that were tried, and the command that fixes the
 *   problem;
 *   `ADDON_LOADED` if another thread of the process has started an addon with another GPU.
 */
export function loadAddon(requested: Gpu): LoadedAddon {
  const skipped: LoadedAddon['skipped'] = [];
  let first: unknown;
  for (const folder of inOrder(addonFolders(), requested)) {
    let raw: RawAddon;
    try {
      raw = createRequire(import.meta.url)(resolve(folder.path));
    } catch (cause) {
      first ??= cause;
      skipped.push({ path: folder.path, reason: firstLine(cause) });
      continue;
    }
    // Libraries stay in the process, even if the start fails. Libraries of another folder would mix with them, so the
    // loader tries no other folder.
    return start(raw, folder, requested, skipped);
  }
  throw new HeadstartError('ADDON_NOT_FOUND', notFound(requested, skipped), { cause: first });
}

const gpusOf = ({ builtIn, modules }: AddonFolder): GpuKind[] => [
  ...(builtIn ? [builtIn] : []),
  ...modules.map(({ gpu }) => gpu),
];

/** The folders that have the requested GPU, and always the folder that the environment names. */
function inOrder(folders: AddonFolder[], requested: Gpu): AddonFolder[] {
  if (requested === 'auto') {
    return folders;
  }
  return folders.filter((folder) => {
    if (folder.source === 'environment') {
      return true;
    }
    return requested === false ? folder.builtIn === null : gpusOf(folder).includes(requested);
  });
}

/** Starts an addon with the requested GPU. With `auto`, it starts without a GPU if no GPU can be used. */
function start(raw: RawAddon, folder: AddonFolder, requested: Gpu, skipped: LoadedAddon['skipped']): LoadedAddon {
  const modules =
    requested === false || folder.builtIn
      ? []
      : folder.modules.filter(({ gpu }) => requested === 'auto' || requested === gpu);
  const started = startProcess(raw, folder, modules);
  const gpu = gpuIn(started);
  const unusable = unusableGpus(started, folder, modules, gpu);
  if (requested !== 'auto' && requested !== (gpu ?? false)) {
    const [first] = unusable;
    throw requested !== false && first ? cannotUse(requested, first) : alreadyLoaded(requested, gpu);
  }
  for (const { gpu: kind, path, package: name, reason } of unusable) {
    skipped.push({ path, reason });
    process.emitWarning(`${name ?? path} is installed but cannot be used, so the ${gpu ?? 'CPU'} is used: ${reason}`, {
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
    const advice = cpu ? 'Unset LLAMA_HEADSTART_CPU, so that the best module is chosen.' : REBUILD;
    throw new HeadstartError(
      'ADDON_NOT_FOUND',
      `The native addon for ${here}, ${folder.path}, cannot be started: ${firstLine(cause)}. ${advice}`,
      { cause },
    );
  }
}

/** Maps ggml's names of backends to kinds of GPU. */
const BACKENDS: Record<string, GpuKind> = { CUDA: 'cuda', MTL: 'metal', Vulkan: 'vulkan' };

/** The kind of the first GPU among the devices. A loaded backend does not prove that there is a GPU. */
const gpuIn = ({ devices }: RawStarted): GpuKind | null =>
  devices.flatMap(({ type, backend }) => (type === 'gpu' ? (BACKENDS[backend] ?? []) : []))[0] ?? null;

type UnusableGpu = AddonFolder['modules'][number] & { reason: string };

/**
 * The requested GPUs that cannot be used. Leaves out a module that was not tried: another thread had already started
 * the addon, with other modules.
 */
function unusableGpus(
  { modules: tried }: RawStarted,
  { builtIn, path }: AddonFolder,
  requested: AddonFolder['modules'],
  used: GpuKind | null,
): UnusableGpu[] {
  if (builtIn) {
    return builtIn === used ? [] : [{ gpu: builtIn, path, package: null, reason: 'it finds no GPU' }];
  }
  return requested.flatMap((module) => {
    const problem = tried.find(({ path }) => path === module.path)?.problem;
    return problem ? [{ ...module, reason: problem.replace(/\.$/, '') }] : [];
  });
}

const here = `${platformName}, Node ${process.versions.node}`;

const REBUILD =
  'Run `npx llama-headstart build` to compile it here; `npx llama-headstart doctor` shows the files and their problems.';

/** The requirements of each GPU backend, for messages. */
export const GPU_HINTS: Record<GpuKind, string> = {
  cuda:
    "It needs NVIDIA's driver and a GPU, and the CUDA runtime and cuBLAS of the major version it was built with, in a directory " +
    'that the system searches for libraries (ldconfig, LD_LIBRARY_PATH).',
  metal: 'It needs a Mac with a GPU that Metal supports.',
  vulkan: "It needs the Vulkan loader (libvulkan) and a GPU's driver.",
};

const cannotUse = (requested: GpuKind, { path, package: name, reason }: UnusableGpu): HeadstartError =>
  new HeadstartError(
    'ADDON_NOT_FOUND',
    `No GPU can be used by ${requested} on ${here}: ${name ? `${name}, ` : ''}${path}: ${reason}. ${GPU_HINTS[requested]} ` +
      `\`npx llama-headstart doctor\` shows the files and their problems; \`npx llama-headstart build --${requested}\` compiles ` +
      'the backend for this machine.',
  );

/** The error if a caller requests another GPU than the GPU in use. */
export const alreadyLoaded = (requested: Gpu, used: GpuKind | null): HeadstartError =>
  new HeadstartError(
    'ADDON_LOADED',
    `Expected \`gpu\` ${JSON.stringify(requested)}, but this process already computes on ${used ?? 'the CPU'}. All agents of a ` +
      'process share one addon, and the first agent selects it.',
  );

function notFound(requested: Gpu, skipped: LoadedAddon['skipped']): string {
  const named = process.env.LLAMA_HEADSTART_ADDON;
  const tried = skipped.map(({ path, reason }) => `${path}: ${reason}`).join('; ');
  if (named) {
    return (
      `No native addon for ${here} could be loaded from "${named}" (LLAMA_HEADSTART_ADDON): ${tried}. ` +
      "Unset LLAMA_HEADSTART_ADDON to load the package's own."
    );
  }
  if (requested !== 'auto' && requested !== false) {
    return (
      `No native addon with ${requested} for ${here} was found${tried && `: ${tried}`}. Run ` +
      `\`npx llama-headstart build --${requested}\`, or \`npm install @llama-headstart/${platformName}-${requested}\`.`
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
 * The GPU that LLAMA_HEADSTART_VARIANT names, else the option. The variable takes precedence because it describes the
 * machine, while the option is part of a program.
 *
 * @throws HeadstartError `CONFIG_INVALID` for another value of the variable.
 */
export function requestedGpu(option: Gpu | undefined): Gpu {
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
