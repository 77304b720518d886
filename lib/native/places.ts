// Where addons lie: the user's cache, the package, and the packages of GPU variants.
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

/** A folder with an addon in it, and the ways to start it. */
export interface AddonFolder {
  /**
   * `environment`: named by LLAMA_HEADSTART_ADDON. `checkout`: compiled in the package's own folder. `build`: made by
   * `npx llama-headstart build`, in the user's cache. `prebuilt`: part of the package.
   */
  source: 'environment' | 'checkout' | 'build' | 'prebuilt';
  /** The `.node` file. */
  path: string;
  /** The GPU backend that is linked in, if any. */
  builtIn: GpuKind | null;
  /** GPU modules that can be loaded into it. */
  modules: { gpu: GpuKind; path: string; package: string | null }[];
}

/** What was found of a GPU package, for `doctor`. */
export interface GpuPackage {
  name: string;
  gpu: GpuKind;
  /** null: its package.json says none. */
  version: string | null;
  /** Its module; null where even its place cannot be told. */
  path: string | null;
  /** Why it is not used, or null. */
  problem: string | null;
}

/** The package's own folder. */
export const packageRoot = ((): string => {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json')) && dirname(directory) !== directory) {
    directory = dirname(directory);
  }
  return directory;
})();

/** The package's version. */
export const packageVersion: string = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')).version;

/** "linux-x64", and "linux-x64-musl" where libc is musl. */
export const platformName = [process.platform, process.arch, isMusl() ? 'musl' : '']
  .filter((part) => part !== '')
  .join('-');

/**
 * This package's folder in the user's cache. `XDG_CACHE_HOME` moves it. Always absolute: binaries are loaded from it, and none
 * from below the directory that a program happens to run in.
 *
 * @throws HeadstartError `CONFIG_INVALID` where the user has no home directory, and no variable names the caches.
 */
export function userCache(): string {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  const below = {
    darwin: () => join(home(), 'Library', 'Caches'),
    win32: () => absolute(LOCALAPPDATA) ?? join(home(), 'AppData', 'Local'),
  }[process.platform as string];
  const caches = below ? below() : (absolute(XDG_CACHE_HOME) ?? join(home(), '.cache'));
  return join(caches, 'llama-headstart');
}

const absolute = (path: string | undefined): string | undefined => (path && isAbsolute(path) ? path : undefined);

function home(): string {
  let directory: string | undefined;
  let cause: unknown;
  try {
    directory = homedir();
  } catch (error) {
    cause = error; // a user that the system does not know, as in a container
  }
  const found = absolute(directory);
  if (found === undefined) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected a home directory to keep caches in, found none: set ${CACHE_VARIABLE} to a folder of yours`,
      { cause },
    );
  }
  return found;
}

/** What moves the user's cache. */
export const CACHE_VARIABLE: string =
  { darwin: 'HOME', win32: 'LOCALAPPDATA' }[process.platform as string] ?? 'XDG_CACHE_HOME';

/** Where `npx llama-headstart build` puts what it builds for this version and platform: a folder for each set of options. */
export const buildsDirectory = (): string => join(userCache(), 'builds', `${packageVersion}-${platformName}`);

/** Every addon that this process could load, in the loader's order. */
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

/** The opt-in packages of GPU variants that Node's resolution finds, usable or not. */
export function gpuPackages(): GpuPackage[] {
  const require = createRequire(join(packageRoot, 'package.json'));
  return GPUS.flatMap((gpu): GpuPackage[] => {
    const name = `@llama-headstart/${platformName}-${gpu}`;
    let manifest: string;
    try {
      manifest = require.resolve(`${name}/package.json`);
    } catch (error) {
      // Node looks into the manifest too, and throws for one that it cannot read.
      const isThere = (error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND';
      return isThere ? [{ name, gpu, version: null, path: null, problem: UNREADABLE }] : [];
    }
    const path = join(dirname(manifest), moduleFile(gpu));
    const version = versionIn(manifest);
    return [{ name, gpu, version, path, problem: packageProblem(version, path) }];
  });
}

const UNREADABLE = 'its package.json cannot be read: install it again';

function packageProblem(version: string | null, path: string): string | null {
  if (version === null) {
    return UNREADABLE;
  }
  if (version !== packageVersion) {
    return `it is version ${version}, llama-headstart is ${packageVersion}`;
  }
  return existsSync(path) ? null : `it lacks ${basename(path)}`;
}

/** null: a manifest that is empty, cut off or unreadable, as an install on a full disk leaves it. */
function versionIn(manifest: string): string | null {
  try {
    const { version } = JSON.parse(readFileSync(manifest, 'utf8'));
    return typeof version === 'string' ? version : null;
  } catch {
    return null;
  }
}

/** What node-gyp-build finds: compiled in the package's folder, else prebuilt. */
function ownAddon(): string | undefined {
  try {
    return createRequire(import.meta.url)('node-gyp-build').resolve(packageRoot) as string;
  } catch {
    return undefined;
  }
}

/** The newest first. None where there is no cache, or it cannot be read: then the prebuilt one serves. */
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

/** A static build says in build.json what is linked into it. */
function builtInGpu(directory: string): GpuKind | null {
  try {
    const { shape, gpu } = JSON.parse(readFileSync(join(directory, 'build.json'), 'utf8'));
    return shape === 'static' && GPUS.includes(gpu) ? gpu : null;
  } catch {
    return null;
  }
}

/** The file of one of ggml's modules: "cuda", "cpu-haswell". CMake's suffix for modules is `.so` on a Mac too. */
export const moduleFile = (module: string): string =>
  `headstart-${isMusl() ? 'musl-' : ''}ggml-${module}${process.platform === 'win32' ? '.dll' : '.so'}`;

/** node-gyp-build's own rule. */
function isMusl(): boolean {
  return process.platform === 'linux' && existsSync('/etc/alpine-release');
}
