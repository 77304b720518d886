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
  /** The GPU backend that is in use, if any. */
  gpu: GpuKind | null;
  /** What was tried before, and why it was not it. */
  skipped: { path: string; reason: string }[];
}

/**
 * Loads and starts the first addon that serves `wanted`, in this order: LLAMA_HEADSTART_ADDON; the package folder's own
 * build; builds in the user's cache, the newest first; the prebuilt one, with an installed GPU package. `'auto'` takes
 * those with a GPU first.
 *
 * @throws HeadstartError `ADDON_NOT_FOUND` with what was looked for and the command that mends it.
 */
export function loadAddon(wanted: Gpu): LoadedAddon {
  const skipped: LoadedAddon['skipped'] = [];
  for (const folder of inOrder(addonFolders(), wanted)) {
    const raw = required(folder.path, skipped);
    // What is started, even in vain, stays in the process: another folder's libraries would mix with it.
    if (raw !== undefined) {
      return start(raw, folder, wanted, skipped);
    }
  }
  throw notFound(wanted, skipped);
}

const gpusOf = ({ builtIn, modules }: AddonFolder): GpuKind[] => [
  ...(builtIn ? [builtIn] : []),
  ...modules.map(({ gpu }) => gpu),
];

/** The folders that could serve, those that serve better first. What the environment names is taken for what it is. */
function inOrder(folders: AddonFolder[], wanted: Gpu): AddonFolder[] {
  if (wanted === 'auto') {
    return [...folders].sort((a, b) => Number(gpusOf(b).length > 0) - Number(gpusOf(a).length > 0));
  }
  return folders.filter((folder) => {
    if (folder.source === 'environment') {
      return true;
    }
    return wanted === false ? folder.builtIn === null : gpusOf(folder).includes(wanted);
  });
}

function required(path: string, skipped: LoadedAddon['skipped']): RawAddon | undefined {
  try {
    return createRequire(import.meta.url)(resolve(path));
  } catch (cause) {
    skipped.push({ path, reason: firstLine(cause) });
    return undefined;
  }
}

/** Starts with the GPU module that is wanted, and where any will do without one if need be. */
function start(raw: RawAddon, folder: AddonFolder, wanted: Gpu, skipped: LoadedAddon['skipped']): LoadedAddon {
  const cpu = process.env.LLAMA_HEADSTART_CPU;
  const modules = wanted === false || folder.builtIn ? [] : folder.modules;
  for (const { gpu, path, package: name } of modules) {
    if (wanted !== 'auto' && wanted !== gpu) {
      continue;
    }
    try {
      return { raw, started: raw.start({ ...(cpu && { cpu }), modules: [path] }), folder, gpu, skipped };
    } catch (cause) {
      const reason = firstLine(cause);
      if (wanted !== 'auto') {
        throw new HeadstartError('ADDON_NOT_FOUND', `The ${gpu} module cannot be used: ${reason}. ${GPU_HINTS[gpu]}`, {
          cause,
        });
      }
      skipped.push({ path, reason });
      process.emitWarning(`${name ?? path} is there but cannot be used, so the CPU computes: ${reason}`, {
        code: 'HEADSTART_GPU_UNAVAILABLE',
        detail: GPU_HINTS[gpu],
      });
    }
  }
  try {
    return { raw, started: raw.start(cpu ? { cpu } : {}), folder, gpu: folder.builtIn, skipped };
  } catch (cause) {
    const unset = cpu ? ' Unset LLAMA_HEADSTART_CPU to let the best one be chosen.' : ` ${REBUILD}`;
    throw new HeadstartError('ADDON_NOT_FOUND', `${firstLine(cause)}.${unset}`, { cause });
  }
}

const REBUILD = 'Run `npx llama-headstart build` to compile it here; `npx llama-headstart doctor` shows what there is.';

const GPU_HINTS: Record<GpuKind, string> = {
  cuda: "It needs NVIDIA's driver, and the CUDA runtime and cuBLAS of the major version it was built with.",
  metal: 'It needs a Mac with a GPU that Metal supports.',
  vulkan: "It needs the Vulkan loader (libvulkan) and a GPU's driver.",
};

function notFound(wanted: Gpu, skipped: LoadedAddon['skipped']): HeadstartError {
  const platform = `${platformName}, Node ${process.versions.node}`;
  const named = process.env.LLAMA_HEADSTART_ADDON;
  const tried = skipped.map(({ path, reason }) => `${path}: ${reason}`).join('; ');
  if (named) {
    return new HeadstartError(
      'ADDON_NOT_FOUND',
      `No native addon for ${platform} could be loaded from "${named}" (LLAMA_HEADSTART_ADDON): ${tried}. ` +
        "Unset LLAMA_HEADSTART_ADDON to load the package's own.",
    );
  }
  if (wanted !== 'auto' && wanted !== false) {
    return new HeadstartError(
      'ADDON_NOT_FOUND',
      `No native addon with ${wanted} for ${platform} was found${tried && `: ${tried}`}. Run ` +
        `\`npx llama-headstart build --${wanted}\`, or \`npm install @llama-headstart/${platformName}-${wanted}\`.`,
    );
  }
  return new HeadstartError(
    'ADDON_NOT_FOUND',
    `No native addon for ${platform} could be loaded from ${packageRoot} (looked in build/Release, the user's cache and ` +
      `prebuilds)${tried && `: ${tried}`}. ${REBUILD}`,
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
