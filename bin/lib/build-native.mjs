// Builds the addon with cmake-js into .build/<variant> and puts it where the loader looks: build/Release.
//
//   npm run build:native [-- --cuda | --metal | --vulkan] [--portable] [--debug] [--jobs N] [--clean]
//
// What compiles llama.cpp is CMakeLists.txt; this is the friendly face of it: checks the tools first, shows one line
// of progress, keeps the full log, and says what went wrong.

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
/** What cmake/portable.cmake calls the libraries of the portable shape. */
const LIBRARY_PREFIX = 'headstart-';
const FLOOR = 'llama_headstart_floor';
/** Bytes: with less, a compiler's next object may not fit. */
const FULL_DISK = 16 * 1024 ** 2;
const ACCELERATORS = /** @type {const} */ (['cuda', 'metal', 'vulkan']);
const HOST_COMPILER_HINT =
  "This machine's compiler is newer than nvcc allows: install an older one and name it, CUDAHOSTCXX=g++-13, or take a newer CUDA toolkit.";

/**
 * @typedef {object} BuildOptions
 * @property {'cuda' | 'metal' | 'vulkan'} [accelerator] default: none, the processor alone
 * @property {boolean} [debug] without optimisation, with symbols
 * @property {number} [jobs] default: one a core
 * @property {boolean} [portable] ggml shared, with a module for each kind of CPU, instead of one file for this CPU
 * @property {{ name: string, toolchain: string, env: NodeJS.ProcessEnv }} [cross] a compiler for another platform or an older libc;
 *   `name` tells its builds from others
 * @property {string} [directory] where to build; default .build/<variant>
 * @property {boolean} [plain] by CMake alone, also where cmake-js is at hand
 * @property {boolean} [sanitize] with address and undefined-behaviour checks, into .build/sanitize, not installed
 * @property {boolean} [clean] compile everything again
 * @property {boolean} [floor] build what benchmarks measure against (bench/native/floor.cpp) instead of the addon
 * @property {'cuda' | 'vulkan'} [module] build ggml's module for that GPU alone, and install nothing
 * @property {string[]} [definitions] further CMake settings: "CMAKE_CUDA_ARCHITECTURES=90"
 * @property {string} [output] directory that receives the addon; default build/Release
 * @property {(state: { fraction?: number, detail?: string }) => void} [onProgress]
 */

/**
 * @param {BuildOptions} [options]
 * @returns {Promise<{ path: string, compiled: number }>} what was built, and how many build steps were needed
 */
export async function buildNative(options = {}) {
  const { accelerator, cross, debug = false, floor = false, sanitize = false, module } = options;
  await checkTools({ ...(accelerator && { accelerator }), compiler: cross === undefined });

  const config = debug ? 'Debug' : 'Release';
  const directory = options.directory ?? join(root, '.build', variantOf(options));
  if (options.clean) await rm(directory, { recursive: true, force: true });
  await makeDirectory(directory);

  const target = module ? `ggml-${module}` : floor ? FLOOR : 'llama_headstart';
  const compiled = await compile(directory, config, target, options);
  if (module) return { path: await findBuilt(directory, 'bin', moduleFile(module)), compiled };
  if (floor) return { path: await findBuilt(directory, config, FLOOR), compiled };
  const built = await findBuilt(directory, config, ADDON);
  if (sanitize) return { path: built, compiled };
  const libraries = options.portable ? await librariesOf(directory) : [];
  const output = resolve(root, options.output ?? 'build/Release');
  return { path: await install(built, libraries, output, factsOf(options)), compiled };
}

/** Builds of different options have folders of their own. @param {BuildOptions} options */
function variantOf({ accelerator, cross, debug, portable, sanitize }) {
  const kind = sanitize ? 'sanitize' : debug ? 'debug' : 'release';
  return [cross?.name, portable && 'portable', accelerator, kind].filter(Boolean).join('-');
}

/** What the loader and `doctor` want to know of a build. @param {BuildOptions} options */
const factsOf = ({ accelerator, cross, debug = false, definitions = [], portable }) => ({
  shape: portable ? 'portable' : 'static',
  gpu: accelerator ?? null,
  debug,
  definitions,
  platform: cross?.name ?? null,
});

/**
 * Configures where needed, and builds. @returns how many build steps were needed
 * @param {string} directory
 * @param {string} config
 * @param {string} target
 * @param {BuildOptions} options
 */
async function compile(directory, config, target, options) {
  const { cross, onProgress = () => {} } = options;
  const logFile = join(directory, 'build.log');
  const log = createWriteStream(logFile);
  log.on('error', () => {}); // a disk that is full: the compiler says so too
  let compiled = 0;
  const cmake = async (/** @type {[string, string[]]} */ [command, args]) => {
    const result = await run(command, args, {
      ...(cross && { env: cross.env }),
      interruptible: true,
      onLine(line) {
        log.write(`${line}\n`);
        const at = parseProgress(line);
        if (!at) return;
        if (at.fraction > 0 && /Building|Linking|Compiling/.test(line)) compiled += 1;
        onProgress(at);
      },
    });
    if (result.interrupted)
      throw new Error(`Interrupted. What is compiled is kept: the same command goes on from there.`);
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

/** CMake's settings: "NAME=VALUE". @param {BuildOptions} options */
function settingsOf({ accelerator, cross, definitions = [], module, portable, sanitize }) {
  return [
    // Metal is llama.cpp's default on a Mac: here it is a choice.
    ...ACCELERATORS.map((name) => `GGML_${name.toUpperCase()}=${name === accelerator ? 'ON' : 'OFF'}`),
    ...(sanitize ? ['HEADSTART_SANITIZE=ON'] : []),
    ...(portable ? ['HEADSTART_PORTABLE=ON'] : []),
    ...(module ? ['HEADSTART_PUBLISHED=ON'] : []),
    ...(cross ? [`CMAKE_TOOLCHAIN_FILE=${cross.toolchain}`] : []),
    ...definitions,
  ];
}

const shownPath = (/** @type {string} */ path) => {
  const inside = relative(root, path);
  return inside.startsWith('..') ? path : inside;
};

/** What CMake reads of the environment once, and keeps. */
const COMPILER_VARIABLES = ['CC', 'CXX', 'CUDACXX', 'CUDAHOSTCXX'];

/**
 * What a build directory was configured for. Moving the checkout makes its absolute paths wrong.
 * @param {unknown} args @param {NodeJS.ProcessEnv} env
 */
const configuredFor = (args, env) =>
  `${JSON.stringify({ root, args, compilers: COMPILER_VARIABLES.map((name) => env[name] ?? null) })}\n`;

/**
 * Configure again only where something about it changed, and then from the beginning: CMake keeps the compiler that it found first, one
 * that has failed too. It notices changed CMakeLists itself.
 * @param {string} directory
 * @param {string} wanted as `configuredFor` says it
 */
async function needsConfigure(directory, wanted) {
  const before = await readFile(join(directory, 'configured.json'), 'utf8').catch(() => undefined);
  if (before === wanted) return false;
  await rm(join(directory, 'CMakeCache.txt'), { force: true });
  await rm(join(directory, 'CMakeFiles'), { recursive: true, force: true });
  return true;
}

/**
 * ninja prints "[58/131] Building ...", make "[ 44%] Building ...".
 * @param {string} line
 */
function parseProgress(line) {
  const ninja = /^\[(\d+)\/(\d+)\]/.exec(line);
  // "[0/2] Re-checking globbed directories" is not about compiling.
  if (ninja && Number(ninja[1]) > 0)
    return { fraction: Number(ninja[1]) / Number(ninja[2]), detail: `${ninja[1]}/${ninja[2]}` };
  const make = /^\[\s*(\d+)%\]/.exec(line);
  return make ? { fraction: Number(make[1]) / 100 } : undefined;
}

/**
 * The errors themselves rather than the last lines, which are often another job's warnings.
 * @param {string} output
 * @param {string} directory
 * @param {string} logFile
 */
async function explainFailure(output, directory, logFile) {
  const lines = output.split(/\r?\n/).map((line) => line.slice(0, 200));
  const isError = /\berror( \w+)?:|CMake Error|undefined reference|undefined symbol|not found|command failed/i;
  const shown = new Set(lines.flatMap((line, at) => (isError.test(line) ? [at, at + 1, at + 2] : [])).slice(0, 20));
  const errors = lines.filter((_, at) => shown.has(at)).join('\n');
  // What tools say when the disk is full is not always that.
  const { bavail, bsize } = await statfs(directory);
  const full = bavail * bsize < FULL_DISK ? ': no space left on its disk' : '';
  const hint = /unsupported (GNU|clang) version/i.test(output) ? `\n  ${HOST_COMPILER_HINT}` : '';
  return `The native build failed${full}${quoteTail(errors || output, 20)}${hint}\n  The whole log: ${shownPath(logFile)}`;
}

/** The names of the libraries that belong to a portable addon. @param {string} directory */
async function librariesOf(directory) {
  const list = await readFile(join(directory, 'libraries.txt'), 'utf8');
  return list.split('\n').filter(Boolean);
}

/**
 * Copies the addon, and the libraries beside it, under temporary names and renames them: a process that has the old ones loaded
 * keeps them. Libraries that an earlier build left there go: the addon would load them.
 * @param {string} built
 * @param {string[]} libraries
 * @param {string} output
 * @param {object} facts what the loader and `doctor` want to know of a build
 */
async function install(built, libraries, output, facts) {
  await makeDirectory(output);
  for (const name of await readdir(output)) {
    if (name.startsWith(LIBRARY_PREFIX) && !libraries.includes(name)) await rm(join(output, name));
  }
  await writeFile(join(output, 'build.json'), `${JSON.stringify(facts)}\n`);
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
  throw new Error(`The build succeeded but left no ${name}. Looked for:\n  ${candidates.join('\n  ')}`);
}

/** What the command line's `--jobs` says. @param {string | undefined} given */
export function parseJobs(given) {
  const jobs = given === undefined ? undefined : Number(given);
  if (jobs !== undefined && !(Number.isInteger(jobs) && jobs > 0)) {
    throw new Error(`Expected --jobs to be a whole number from 1 up, got ${given}.`);
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
    if (accelerators.length > 1) throw new Error(`Expected one accelerator, got --${accelerators.join(' and --')}.`);
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
