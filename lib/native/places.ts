// Finds addons: in the user's cache, in the package, and in GPU packages.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { basename, dirname, isAbsolute, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HeadstartError } from '../errors.js';

const ADDON = 'llama_headstart.node';
export const GPUS = ['cuda', 'metal', 'vulkan'] as const;
/** A kind of GPU that a backend is built for. */
export type GpuKind = (typeof GPUS)[number];

/** An addon, with the GPU modules that it can load. */
export interface AddonFolder {
  /**
   * `environment`: named by LLAMA_HEADSTART_ADDON. `checkout`: compiled in the package's folder. `build`: compiled by
   * `npx llama-headstart build`, in the user's cache. `prebuilt`: part of the package.
   */
  source: 'environment' | 'checkout' | 'build' | 'prebuilt';
  /** The `.node` file. */
  path: string;
  /** The GPU backend that is linked in, if any. */
  builtIn: GpuKind | null;
  /** GPU modules that the addon can load: from its own folder, or from GPU packages. */
  modules: { gpu: GpuKind; path: string; package: string | null }[];
}

/** An installed GPU package. */
export interface GpuPackage {
  name: string;
  gpu: GpuKind;
  /** The version in its package.json, or null if none can be read. */
  version: string | null;
  /** The path of its module; null if the package cannot be resolved. */
  path: string | null;
  /** Why the package cannot be used, or null. */
  problem: string | null;
}

/** The folder of this package. */
export const packageRoot = ((): string => {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json')) && dirname(directory) !== directory) {
    directory = dirname(directory);
  }
  return directory;
})();

/** The version of this package. */
export const packageVersion: string = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')).version;

/** "linux-x64", or "linux-x64-musl" if libc is musl. */
export const platformName = [process.platform, process.arch, isMusl() ? 'musl' : '']
  .filter((part) => part !== '')
  .join('-');

/**
 * This package's folder in the user's cache directory. The variable {@link CACHE_VARIABLE} moves it. The path is always
 * absolute, so that no binary is ever loaded from the current directory of a program.
 *
 * @throws HeadstartError `CONFIG_INVALID` if the user has no home directory and no variable names a cache directory.
 */
export function userCache(): string {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  const cacheOf = {
    darwin: () => join(home(), 'Library', 'Caches'),
    win32: () => absolute(LOCALAPPDATA) ?? join(home(), 'AppData', 'Local'),
  }[process.platform as string];
  const caches = cacheOf ? cacheOf() : (absolute(XDG_CACHE_HOME) ?? join(home(), '.cache'));
  return join(caches, 'llama-headstart');
}

const absolute = (path: string | undefined): string | undefined => (path && isAbsolute(path) ? path : undefined);

function home(): string {
  let directory: string | undefined;
  let cause: unknown;
  try {
    directory = homedir();
  } catch (error) {
    cause = error; // the system does not know the user, as in some containers
  }
  const path = absolute(directory);
  if (path === undefined) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected a home directory for caches, but there is none. Set ${CACHE_VARIABLE} to an absolute path.`,
      { cause },
    );
  }
  return path;
}

/** The environment variable that sets or moves the user's cache directory. */
export const CACHE_VARIABLE: string =
  { darwin: 'HOME', win32: 'LOCALAPPDATA' }[process.platform as string] ?? 'XDG_CACHE_HOME';

/**
 * The directory of all builds by `npx llama-headstart build` for this version and platform. Each set of build options
 * has its own folder.
 */
export const buildsDirectory = (): string => join(userCache(), 'builds', `${packageVersion}-${platformName}`);

/** All addons that this process could load, in the order in which the loader tries them. */
export function addonFolders(): AddonFolder[] {
  const named = process.env.LLAMA_HEADSTART_ADDON;
  if (named) {
    return [folder('environment', named)];
  }
  const own = ownAddon();
  const checkout = own?.includes(`${sep}build${sep}`) ? [folder('checkout', own)] : [];
  const prebuilt = own && checkout.length === 0 ? [folder('prebuilt', own)] : [];
  for (const { gpu, path, name, problem } of gpuPackages()) {
    if (problem === null && path !== null) {
      prebuilt[0]?.modules.push({ gpu, path, package: name });
    }
  }
  return [...checkout, ...cachedBuilds(), ...prebuilt];
}

/** All installed GPU packages, including those that cannot be used. */
export function gpuPackages(): GpuPackage[] {
  const require = createRequire(join(packageRoot, 'package.json'));
  return GPUS.flatMap((gpu): GpuPackage[] => {
    const name = `@llama-headstart/${platformName}-${gpu}`;
    let manifest: string;
    try {
      manifest = require.resolve(`${name}/package.json`);
    } catch (error) {
      // Node reads the package.json here, and throws an error with another code if it cannot.
      const isInstalled = (error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND';
      return isInstalled ? [{ name, gpu, version: null, path: null, problem: UNREADABLE }] : [];
    }
    const path = join(dirname(manifest), moduleFile(gpu));
    const version = versionIn(manifest);
    return [{ name, gpu, version, path, problem: packageProblem(version, path) }];
  });
}

const UNREADABLE = 'its package.json cannot be read: install the package again';

function packageProblem(version: string | null, path: string): string | null {
  if (version === null) {
    return UNREADABLE;
  }
  if (version !== packageVersion) {
    return `its version is ${version}, but llama-headstart is ${packageVersion}`;
  }
  return existsSync(path) ? null : `it lacks ${basename(path)}`;
}

/** Returns null if the package.json is empty, truncated or unreadable, for example after an install on a full disk. */
function versionIn(manifest: string): string | null {
  try {
    const { version } = JSON.parse(readFileSync(manifest, 'utf8'));
    return typeof version === 'string' ? version : null;
  } catch {
    return null;
  }
}

/** The addon that node-gyp-build finds: the one compiled in the package's folder, else the prebuilt one. */
function ownAddon(): string | undefined {
  try {
    return createRequire(import.meta.url)('node-gyp-build').resolve(packageRoot) as string;
  } catch {
    return undefined;
  }
}

/** The builds in the user's cache, the newest first. Empty if the cache cannot be read. */
function cachedBuilds(): AddonFolder[] {
  let directory: string;
  let names: string[];
  try {
    directory = buildsDirectory();
    names = readdirSync(directory);
  } catch {
    return [];
  }
  return names
    .map((name) => join(directory, name, ADDON))
    .filter((path) => existsSync(path))
    .map((path) => ({ path, builtAt: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((a, b) => b.builtAt - a.builtAt)
    .map(({ path }) => folder('build', path));
}

function folder(source: AddonFolder['source'], path: string): AddonFolder {
  const directory = dirname(path);
  const modules = GPUS.map((gpu) => ({ gpu, path: join(directory, moduleFile(gpu)), package: null }));
  return { source, path, builtIn: builtInGpu(directory), modules: modules.filter((module) => existsSync(module.path)) };
}

/** The GPU backend of a static build, from its build.json. */
function builtInGpu(directory: string): GpuKind | null {
  try {
    const { shape, gpu } = JSON.parse(readFileSync(join(directory, 'build.json'), 'utf8'));
    return shape === 'static' && GPUS.includes(gpu) ? gpu : null;
  } catch {
    return null;
  }
}

/**
 * The file name of a ggml module such as "cuda" or "cpu-haswell". CMake uses the suffix `.so` for modules even on a
 * Mac.
 */
export const moduleFile = (module: string): string =>
  `headstart-${isMusl() ? 'musl-' : ''}ggml-${module}${process.platform === 'win32' ? '.dll' : '.so'}`;

/** The same rule as in node-gyp-build. */
function isMusl(): boolean {
  return process.platform === 'linux' && existsSync('/etc/alpine-release');
}
