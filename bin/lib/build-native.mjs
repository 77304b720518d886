// Builds the addon in .build/<variant> and copies the addon to build/Release. The loader finds the addon there.
//
//   npm run build:native [-- --cuda | --metal | --vulkan] [--portable] [--debug] [--jobs N] [--clean]
//
// CMakeLists.txt describes the build. This script runs the build: it checks the tools first, shows one line of
// progress, keeps the full log, and explains failures.

import { createWriteStream } from 'node:fs';
import { copyFile, readdir, readFile, rename, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { checkTools } from './build-tools.mjs';
import { cmakeJs, plainCMake } from './cmake.mjs';
import { moduleFile } from './libc.mjs';
import { makeDirectory } from './make-directory.mjs';
import { step } from './progress.mjs';
import { isMain, quoteTail, root, run, runMain } from './run.mjs';

const ADDON = 'llama_headstart.node';
/** cmake/portable.cmake names the libraries of a portable build with this prefix. */
const LIBRARY_PREFIX = 'headstart-';
const BASELINE = 'llama_headstart_baseline';
/** If the disk has fewer free bytes than this, the next object file may not fit. */
const FULL_DISK_BYTES = 16 * 1024 ** 2;
const ACCELERATORS = /** @type {const} */ (['cuda', 'metal', 'vulkan']);
const HOST_COMPILER_HINT =
  "nvcc does not support this machine's C++ compiler, because the compiler is too new. Install an older compiler and name it, for example with CUDAHOSTCXX=g++-13. Or install a newer CUDA toolkit.";

/**
 * @typedef {object} BuildOptions
 * @property {'cuda' | 'metal' | 'vulkan'} [accelerator] default: none, which computes on the CPU
 * @property {boolean} [debug] compile without optimization and with symbols
 * @property {number} [jobs] parallel compiler processes; default: one per core
 * @property {boolean} [portable] build ggml as shared libraries with one module per CPU generation; default: build one
 *   file for this CPU
 * @property {{ name: string, toolchain: string, env: NodeJS.ProcessEnv }} [cross] a compiler for another platform or an
 *   older libc. The name of the build directory contains `name`.
 * @property {string} [directory] the build directory; default .build/<variant>
 * @property {boolean} [plain] run CMake directly even if cmake-js is installed
 * @property {boolean} [sanitize] build with address and undefined-behavior checks in .build/sanitize, and install
 *   nothing
 * @property {boolean} [clean] compile everything again
 * @property {boolean} [baseline] build the baseline of the benchmarks (bench/native/baseline.cpp) instead of the addon
 * @property {'cuda' | 'vulkan'} [module] build only ggml's module for that GPU, and install nothing
 * @property {string[]} [definitions] additional CMake settings, such as "CMAKE_CUDA_ARCHITECTURES=90"
 * @property {string} [output] the directory for the addon; default build/Release
 * @property {(state: { fraction?: number, detail?: string }) => void} [onProgress]
 */

/**
 * @param {BuildOptions} [options]
 * @returns {Promise<{ path: string, compiled: number }>} path: the built file; compiled: the number of build steps that
 *   ran
 */
export async function buildNative(options = {}) {
  const { accelerator, cross, debug = false, baseline = false, sanitize = false, module } = options;
  await checkTools({ ...(accelerator && { accelerator }), compiler: cross === undefined });

  const config = debug ? 'Debug' : 'Release';
  const directory = options.directory ?? join(root, '.build', variantOf(options));
  if (options.clean) await rm(directory, { recursive: true, force: true });
  await makeDirectory(directory);

  const target = module ? `ggml-${module}` : baseline ? BASELINE : 'llama_headstart';
  const compiled = await compile(directory, config, target, options);
  if (module) return { path: await findBuilt(directory, 'bin', moduleFile(module)), compiled };
  if (baseline) return { path: await findBuilt(directory, config, BASELINE), compiled };
  const built = await findBuilt(directory, config, ADDON);
  if (sanitize) return { path: built, compiled };
  const libraries = options.portable ? await librariesOf(directory) : [];
  const output = resolve(root, options.output ?? 'build/Release');
  return { path: await install(built, libraries, output, manifestOf(options)), compiled };
}

/**
 * Returns the name of the build directory, which consists of the names of these options.
 * @param {BuildOptions} options
 */
function variantOf({ accelerator, cross, debug, portable, sanitize }) {
  const kind = sanitize ? 'sanitize' : debug ? 'debug' : 'release';
  return [cross?.name, portable && 'portable', accelerator, kind].filter(Boolean).join('-');
}

/** Returns the content of build.json. The loader and `doctor` read that file. @param {BuildOptions} options */
const manifestOf = ({ accelerator, cross, debug = false, definitions = [], portable }) => ({
  shape: portable ? 'portable' : 'static',
  gpu: accelerator ?? null,
  debug,
  definitions,
  platform: cross?.name ?? null,
});

/**
 * Configures the build directory if necessary, and builds.
 * @param {string} directory
 * @param {string} config
 * @param {string} target
 * @param {BuildOptions} options
 * @returns the number of build steps that ran
 */
async function compile(directory, config, target, options) {
  const { cross, onProgress = () => {} } = options;
  const logFile = join(directory, 'build.log');
  const log = createWriteStream(logFile);
  log.on('error', () => {}); // ignored, because the compiler also reports a full disk
  let compiled = 0;
  const cmake = async (/** @type {[string, string[]]} */ [command, args]) => {
    const result = await run(command, args, {
      ...(cross && { env: cross.env }),
      interruptible: true,
      onLine(line) {
        log.write(`${line}\n`);
        const progress = parseProgress(line);
        if (!progress) return;
        if (progress.fraction > 0 && /Building|Linking|Compiling/.test(line)) compiled += 1;
        onProgress(progress);
      },
    });
    if (result.interrupted)
      throw new Error('Interrupted. The compiled files are kept. Run the same command again to continue.');
    if (result.code !== 0) throw new Error(await explainFailure(result.output, directory, logFile));
  };

  try {
    const driver = ((options.plain ? undefined : cmakeJs()) ?? plainCMake)(directory, config);
    const configure = await driver.configure(settingsOf(options));
    const wanted = configuredFor(configure, { ...process.env, ...cross?.env });
    if (await needsConfigure(directory, wanted)) {
      onProgress({ detail: 'configuring' });
      await cmake(configure);
      await writeFile(join(directory, 'configured.json'), wanted);
    }
    await cmake(driver.build(target, options.jobs ?? availableParallelism()));
    return compiled;
  } finally {
    log.end();
  }
}

/** Returns CMake's settings in the form "NAME=VALUE". @param {BuildOptions} options */
function settingsOf({ accelerator, cross, definitions = [], module, portable, sanitize }) {
  return [
    // llama.cpp enables Metal by default on a Mac. This package enables Metal only on request.
    ...ACCELERATORS.map((name) => `GGML_${name.toUpperCase()}=${name === accelerator ? 'ON' : 'OFF'}`),
    ...(sanitize ? ['HEADSTART_SANITIZE=ON'] : []),
    ...(portable ? ['HEADSTART_PORTABLE=ON'] : []),
    ...(module ? ['HEADSTART_PUBLISHED=ON'] : []),
    ...(cross ? [`CMAKE_TOOLCHAIN_FILE=${cross.toolchain}`] : []),
    ...definitions,
  ];
}

/** Returns a path inside the repository relative to the repository's root, and any other path unchanged. */
const shownPath = (/** @type {string} */ path) => {
  const relativePath = relative(root, path);
  return relativePath.startsWith('..') ? path : relativePath;
};

/** Environment variables that CMake reads only when it configures a build directory for the first time. */
const COMPILER_VARIABLES = ['CC', 'CXX', 'CUDACXX', 'CUDAHOSTCXX'];

/**
 * Returns a text that describes the configuration of a build directory. The text contains the root directory, because a
 * build directory contains absolute paths and becomes unusable if the checkout is moved.
 * @param {unknown} args @param {NodeJS.ProcessEnv} env
 */
const configuredFor = (args, env) =>
  `${JSON.stringify({ root, args, compilers: COMPILER_VARIABLES.map((name) => env[name] ?? null) })}\n`;

/**
 * Returns whether the settings of a build directory changed. If they changed, this function removes CMake's cache,
 * because a cache makes CMake keep the first compiler that it found, even if that compiler failed. This function need
 * not compare the CMakeLists files, because CMake detects their changes.
 * @param {string} directory
 * @param {string} wanted the result of `configuredFor`
 */
async function needsConfigure(directory, wanted) {
  const before = await readFile(join(directory, 'configured.json'), 'utf8').catch(() => undefined);
  if (before === wanted) return false;
  await rm(join(directory, 'CMakeCache.txt'), { force: true });
  await rm(join(directory, 'CMakeFiles'), { recursive: true, force: true });
  return true;
}

/**
 * Reads the progress from a line of ninja ("[58/131] Building ...") or make ("[ 44%] Building ...").
 * @param {string} line
 */
function parseProgress(line) {
  const ninja = /^\[(\d+)\/(\d+)\]/.exec(line);
  // "[0/2] Re-checking globbed directories" is not a compile step.
  if (ninja && Number(ninja[1]) > 0)
    return { fraction: Number(ninja[1]) / Number(ninja[2]), detail: `${ninja[1]}/${ninja[2]}` };
  const make = /^\[\s*(\d+)%\]/.exec(line);
  return make ? { fraction: Number(make[1]) / 100 } : undefined;
}

/**
 * Returns the error message for a failed build. The message quotes the lines with errors, because the last lines are
 * often warnings from another compiler process.
 * @param {string} output
 * @param {string} directory
 * @param {string} logFile
 */
async function explainFailure(output, directory, logFile) {
  const lines = output.split(/\r?\n/).map((line) => line.slice(0, 200));
  const isError = /\berror( \w+)?:|CMake Error|undefined reference|undefined symbol|not found|command failed/i;
  const shownLines = lines.flatMap((line, index) => (isError.test(line) ? [index, index + 1, index + 2] : []));
  const shown = new Set(shownLines.slice(0, 20));
  const errors = lines.filter((_, index) => shown.has(index)).join('\n');
  // Some tools fail on a full disk without naming the reason.
  const { bavail, bsize } = await statfs(directory);
  const full = bavail * bsize < FULL_DISK_BYTES ? ': no space left on its disk' : '';
  const hint = /unsupported (GNU|clang) version/i.test(output) ? `\n  ${HOST_COMPILER_HINT}` : '';
  return `The native build failed${full}${quoteTail(errors || output, 20)}${hint}\n  Full log: ${shownPath(logFile)}`;
}

/** Returns the file names of the libraries that a portable addon needs. @param {string} directory */
async function librariesOf(directory) {
  const list = await readFile(join(directory, 'libraries.txt'), 'utf8');
  return list.split('\n').filter(Boolean);
}

/**
 * Copies the addon and its libraries into `output`. Copies each file to a temporary name and then renames the copy. A
 * process that has loaded the old file keeps that file. Removes the libraries of an earlier build, because the addon
 * would load them.
 * @param {string} built path of the addon
 * @param {string[]} libraries file names, in the directory of the addon
 * @param {string} output
 * @param {object} manifest the content of build.json
 */
async function install(built, libraries, output, manifest) {
  await makeDirectory(output);
  for (const name of await readdir(output)) {
    if (name.startsWith(LIBRARY_PREFIX) && !libraries.includes(name)) await rm(join(output, name));
  }
  await writeFile(join(output, 'build.json'), `${JSON.stringify(manifest)}\n`);
  for (const name of [...libraries, ADDON]) {
    const temporary = join(output, `${name}.${process.pid}.tmp`);
    await copyFile(join(dirname(built), name), temporary);
    await rename(temporary, join(output, name));
  }
  return join(output, ADDON);
}

/**
 * @param {string} directory
 * @param {string} config
 * @param {string} name
 */
async function findBuilt(directory, config, name) {
  const candidates = [join(directory, config, name), join(directory, name)];
  for (const built of candidates) {
    if ((await stat(built).catch(() => undefined))?.isFile()) return built;
  }
  throw new Error(
    `The build succeeded but did not produce ${name}. Expected it at one of these paths:\n  ${candidates.join('\n  ')}`,
  );
}

/** Parses the value of `--jobs`. @param {string | undefined} text */
export function parseJobs(text) {
  const jobs = text === undefined ? undefined : Number(text);
  if (jobs !== undefined && !(Number.isInteger(jobs) && jobs > 0)) {
    throw new Error(`Expected --jobs to be a whole number of at least 1, got "${text}".`);
  }
  return jobs;
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const { values } = parseArgs({
      options: {
        cuda: { type: 'boolean' },
        metal: { type: 'boolean' },
        vulkan: { type: 'boolean' },
        portable: { type: 'boolean' },
        debug: { type: 'boolean' },
        clean: { type: 'boolean' },
        jobs: { type: 'string' },
        output: { type: 'string' },
      },
    });
    const accelerators = ACCELERATORS.filter((name) => values[name]);
    if (accelerators.length > 1) {
      throw new Error(`Expected at most one accelerator, got --${accelerators.join(' and --')}.`);
    }
    const jobs = parseJobs(values.jobs);
    const options = {
      ...(accelerators[0] && { accelerator: accelerators[0] }),
      ...(jobs && { jobs }),
      ...(values.output && { output: values.output }),
      portable: values.portable ?? false,
      debug: values.debug ?? false,
      clean: values.clean ?? false,
    };
    await step(
      'native addon',
      {},
      (progress) => buildNative({ ...options, onProgress: (state) => progress.update(state) }),
      ({ path, compiled }) => `${shownPath(path)}, ${compiled === 0 ? 'nothing to compile' : `${compiled} steps`}`,
    );
  });
}
