// Builds the addon with cmake-js into .build/<variant> and puts it where the loader looks: build/Release.
//
//   npm run build:native [-- --cuda | --metal | --vulkan] [--debug] [--jobs N] [--clean]
//
// What compiles llama.cpp is CMakeLists.txt; this is the friendly face of it: checks the tools first, shows one line
// of progress, keeps the full log, and says what went wrong.

import { createWriteStream } from 'node:fs';
import { copyFile, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { step } from './lib/progress.mjs';
import { isMain, quoteTail, root, run, runMain } from './lib/run.mjs';

const ADDON = 'llama_headstart.node';
const FLOOR = 'llama_headstart_floor';
const ACCELERATORS = /** @type {const} */ (['cuda', 'metal', 'vulkan']);

/**
 * @typedef {object} BuildOptions
 * @property {'cuda' | 'metal' | 'vulkan'} [accelerator] default: none, the processor alone
 * @property {boolean} [debug] without optimisation, with symbols
 * @property {number} [jobs] default: one a core
 * @property {boolean} [sanitize] with address and undefined-behaviour checks, into .build/sanitize, not installed
 * @property {boolean} [clean] compile everything again
 * @property {boolean} [floor] build what benchmarks measure against (bench/native/floor.cpp) instead of the addon
 * @property {string} [output] directory that receives the addon; default build/Release
 * @property {(state: { fraction?: number, detail?: string }) => void} [onProgress]
 */

/**
 * @param {BuildOptions} [options]
 * @returns {Promise<{ path: string, compiled: number }>} what was built, and how many build steps were needed
 */
export async function buildNative(options = {}) {
  const { accelerator, debug = false, clean = false, floor = false, sanitize = false, onProgress = () => {} } = options;
  await checkTools(accelerator);

  const config = debug ? 'Debug' : 'Release';
  const variant = [accelerator, sanitize ? 'sanitize' : config.toLowerCase()].filter(Boolean).join('-');
  const directory = join(root, '.build', variant);
  if (clean) await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });

  const log = createWriteStream(join(directory, 'build.log'));
  try {
    const cmakeJs = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js');
    // cmake-js hands `--CDX=Y` to CMake as `-DX=Y`. Metal is llama.cpp's default on a Mac: here it is a choice.
    const definitions = ACCELERATORS.map(
      (name) => `--CDGGML_${name.toUpperCase()}=${name === accelerator ? 'ON' : 'OFF'}`,
    );
    const common = ['--out', directory, '--config', config, ...definitions];
    if (sanitize) common.push('--CDHEADSTART_SANITIZE=ON');
    const jobs = options.jobs ?? availableParallelism();
    let compiled = 0;

    /** @param {string[]} args */
    const cmake = async (args) => {
      const result = await run(process.execPath, [cmakeJs, ...args], {
        onLine(line) {
          log.write(`${line}\n`);
          const at = parseProgress(line);
          if (!at) return;
          if (at.fraction > 0 && /Building|Linking|Compiling/.test(line)) compiled += 1;
          onProgress(at);
        },
      });
      if (result.code !== 0)
        throw new Error(explainFailure(result.output, relative(root, join(directory, 'build.log'))));
    };

    if (await needsConfigure(directory, common)) {
      onProgress({ detail: 'configuring' });
      await cmake(['configure', ...common]);
      await writeFile(join(directory, 'configured.json'), configuredFor(common));
    }
    await cmake(['build', ...common, '--target', floor ? FLOOR : 'llama_headstart', '--parallel', String(jobs)]);
    if (floor) return { path: await findBuilt(directory, config, FLOOR), compiled };
    if (sanitize) return { path: await findBuilt(directory, config, ADDON), compiled };
    return { path: await install(directory, config, resolve(root, options.output ?? 'build/Release')), compiled };
  } finally {
    log.end();
  }
}

/** What a build directory was configured for. Moving the checkout makes its absolute paths wrong. @param {string[]} args */
const configuredFor = (args) => `${JSON.stringify({ root, args })}\n`;

/**
 * Configure again only where something about it changed; CMake itself notices changed CMakeLists.
 * @param {string} directory
 * @param {string[]} args
 */
async function needsConfigure(directory, args) {
  const before = await readFile(join(directory, 'configured.json'), 'utf8').catch(() => undefined);
  if (before === configuredFor(args)) return false;
  const cache = await readFile(join(directory, 'CMakeCache.txt'), 'utf8').catch(() => '');
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(cache)?.[1];
  if (home !== undefined && resolve(home) !== resolve(root)) {
    await rm(join(directory, 'CMakeCache.txt'), { force: true });
    await rm(join(directory, 'CMakeFiles'), { recursive: true, force: true });
  }
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
 * @param {string} logFile
 */
function explainFailure(output, logFile) {
  const lines = output.split(/\r?\n/).map((line) => line.slice(0, 200));
  const isError = /\berror( \w+)?:|CMake Error|undefined reference|undefined symbol|not found|command failed/i;
  const shown = new Set(lines.flatMap((line, at) => (isError.test(line) ? [at, at + 1, at + 2] : [])).slice(0, 20));
  const errors = lines.filter((_, at) => shown.has(at)).join('\n');
  return `The native build failed${quoteTail(errors || output, 20)}\n  The whole log: ${logFile}`;
}

/**
 * Copies the addon under a temporary name and renames it: a process that has the old one loaded keeps it.
 * @param {string} directory
 * @param {string} config
 * @param {string} output
 */
async function install(directory, config, output) {
  const built = await findBuilt(directory, config, ADDON);
  const target = join(output, ADDON);
  const temporary = `${target}.${process.pid}.tmp`;
  await mkdir(dirname(target), { recursive: true });
  await copyFile(built, temporary);
  await rename(temporary, target);
  return target;
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

const INSTALL_HINT =
  {
    darwin: 'xcode-select --install, and CMake with Homebrew: brew install cmake ninja',
    win32: 'Visual Studio Build Tools 2022 with the workload "Desktop development with C++", and CMake 3.21 or newer',
    linux:
      'Debian, Ubuntu: apt install build-essential cmake ninja-build\n' +
      '    Fedora: dnf install gcc-c++ cmake ninja-build\n' +
      '    Alpine: apk add build-base cmake samurai linux-headers',
  }[/** @type {string} */ (process.platform)] ?? 'a C++17 compiler, CMake 3.21 or newer, and ninja or make';

/**
 * Names everything that is missing before anything is compiled.
 * @param {BuildOptions['accelerator']} accelerator
 */
async function checkTools(accelerator) {
  /** @param {...(string | undefined)} commands */
  const anyRuns = async (...commands) => {
    for (const command of commands) {
      if (command && (await run(command, ['--version'])).code !== 127) return true;
    }
    return false;
  };

  const missing = [];
  const cmake = await run('cmake', ['--version']);
  const [, major, minor] = /version (\d+)\.(\d+)/.exec(cmake.stdout) ?? [];
  if (cmake.code === 127) missing.push('CMake');
  else if (Number(major) * 1000 + Number(minor) < 3021) missing.push(`CMake 3.21 or newer (found ${major}.${minor})`);
  if (process.platform !== 'win32') {
    if (!(await anyRuns(process.env.CXX, 'c++', 'g++', 'clang++'))) missing.push('a C++ compiler');
    if (!(await anyRuns('ninja', 'make'))) missing.push('ninja or make');
  }
  if (accelerator === 'cuda' && !(await anyRuns(process.env.CUDACXX, 'nvcc'))) missing.push('the CUDA toolkit (nvcc)');
  if (accelerator === 'vulkan' && !(await anyRuns('glslc'))) missing.push('the Vulkan SDK (glslc)');
  if (accelerator === 'metal' && process.platform !== 'darwin') missing.push('macOS (Metal)');
  if (missing.length > 0) {
    throw new Error(`To compile llama.cpp this machine lacks: ${missing.join(', ')}.\n  Install:\n    ${INSTALL_HINT}`);
  }
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const { values } = parseArgs({
      options: {
        cuda: { type: 'boolean' },
        metal: { type: 'boolean' },
        vulkan: { type: 'boolean' },
        debug: { type: 'boolean' },
        clean: { type: 'boolean' },
        jobs: { type: 'string' },
        output: { type: 'string' },
      },
    });
    const accelerators = ACCELERATORS.filter((name) => values[name]);
    if (accelerators.length > 1) throw new Error(`Expected one accelerator, got --${accelerators.join(' and --')}.`);
    const jobs = values.jobs === undefined ? undefined : Number(values.jobs);
    if (jobs !== undefined && !(Number.isInteger(jobs) && jobs > 0)) {
      throw new Error(`Expected --jobs to be a whole number from 1 up, got ${values.jobs}.`);
    }
    const options = {
      ...(accelerators[0] && { accelerator: accelerators[0] }),
      ...(jobs && { jobs }),
      ...(values.output && { output: values.output }),
      debug: values.debug ?? false,
      clean: values.clean ?? false,
    };
    await step(
      'native addon',
      {},
      (progress) => buildNative({ ...options, onProgress: (state) => progress.update(state) }),
      ({ path, compiled }) => `${relative(root, path)}, ${compiled === 0 ? 'nothing to compile' : `${compiled} steps`}`,
    );
  });
}
