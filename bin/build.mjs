// `llama-headstart build` compiles the addon from the package's sources. The command puts the binary into the user's
// cache directory. In an installed package, the loader searches that directory first.

import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync } from 'node:fs';
import { rename, rm, rmdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { makeDirectory } from '../dist/files.js';
import {
  buildsDirectory,
  CACHE_VARIABLE,
  packageRoot,
  packageVersion,
  platformName,
  userCache,
} from '../dist/native/places.js';
import { buildNative, parseJobs } from './lib/build-native.mjs';
import { checkTools } from './lib/build-tools.mjs';
import { step } from './lib/progress.mjs';
import { whileLocked } from './lock.mjs';
import { nextLoaded, tryBuild } from './try-build.mjs';

/** The exit code if the build succeeded but cannot use a GPU of this machine. */
const NO_GPU = 3;
const ACCELERATORS = /** @type {const} */ (['cuda', 'metal', 'vulkan']);

/** @param {string[]} args */
export async function build(args) {
  const options = parse(args);
  if (!existsSync(join(packageRoot, 'vendor', 'llama.cpp', 'CMakeLists.txt'))) {
    throw new Error(
      `Expected sources of llama.cpp in ${packageRoot}, found none. Install the package again, or run \`npm run vendor\` there.`,
    );
  }
  const { key, noGpuHere, ...buildOptions } = options;
  // `buildNative` repeats this check. Here a missing tool is reported before any directory is created.
  await checkTools({ ...(buildOptions.accelerator && { accelerator: buildOptions.accelerator }), compiler: true });
  const trees = join(userCache(), 'build-trees');
  for (const directory of [trees, buildsDirectory()]) await makeFolder(directory);
  const tree = join(trees, `${packageVersion}-${platformName}-${key}`);
  const { path, trial } = await whileLocked(`${tree}.lock`, () => compile(tree, key, buildOptions));
  await rmdir(trees).catch(() => {}); // fails if the directory contains the tree of another build
  process.stdout.write(`${path}\n`);
  await report(path, trial, noGpuHere);
}

/**
 * @param {string} tree the build directory
 * @param {string} key the name of the folder for these options
 * @param {import('./lib/build-native.mjs').BuildOptions} buildOptions
 * @returns {Promise<{ path: string, trial: import('./try-build.mjs').Trial }>} the addon's path in the user's cache
 *   directory, and the result of loading the addon
 */
async function compile(tree, key, buildOptions) {
  const log = join(buildsDirectory(), `${key}.log`);
  process.stderr.write(`llama.cpp is compiled in ${tree}\nThe log will be in ${log}\n`);
  const finished = join(tree, 'finished');
  await rm(finished, { recursive: true, force: true });
  const { path } = await step(
    `native addon (${key})`,
    {},
    (progress) => {
      const directories = { directory: tree, output: finished };
      return buildNative({
        ...buildOptions,
        ...directories,
        plain: true,
        onProgress: (state) => progress.update(state),
      });
    },
    ({ compiled }) => (compiled === 0 ? 'nothing to compile' : `${compiled} steps`),
  );
  const trial = await tryBuild(path, buildOptions.accelerator);
  if (trial.harmful) {
    throw new Error(
      `The build succeeded, but this machine cannot use it: ${trial.problem}.\n` +
        `  The build was not installed. Programs load the same addon as before. The built files are in ${finished}`,
    );
  }
  const output = join(buildsDirectory(), key);
  await replaceFolder(output, finished, join(tree, 'replaced'));
  await rename(join(tree, 'build.log'), log);
  await rm(tree, { recursive: true, force: true });
  return { path: join(output, basename(path)), trial };
}

/**
 * Replaces a folder by two renames. A program that starts during the replacement finds the old folder, the new folder
 * or no folder. It never finds an incomplete addon.
 * @param {string} target @param {string} replacement @param {string} old the path to which the old folder is moved
 */
async function replaceFolder(target, replacement, old) {
  await rm(old, { recursive: true, force: true });
  try {
    if (existsSync(target)) await rename(target, old);
    await rename(replacement, target);
  } catch (cause) {
    const { message } = /** @type {Error} */ (cause);
    throw new Error(
      `Could not replace ${target} (${message}). Stop the programs that use it, and run this command again.`,
    );
  }
}

/** @param {string} path */
async function makeFolder(path) {
  try {
    await makeDirectory(path);
    accessSync(path, constants.W_OK);
  } catch (cause) {
    const { message } = /** @type {Error} */ (cause);
    throw new Error(
      `Expected your cache directory ${userCache()} to be writable: ${message}.\n` +
        `  Set ${CACHE_VARIABLE} to a writable folder, for this command and for the programs that will load the build.`,
    );
  }
}

/** @param {string[]} args */
function parse(args) {
  const { values } = parseArgs({
    args,
    options: {
      cuda: { type: 'boolean' },
      metal: { type: 'boolean' },
      vulkan: { type: 'boolean' },
      native: { type: 'boolean' },
      debug: { type: 'boolean' },
      clean: { type: 'boolean' },
      'no-gpu-here': { type: 'boolean' },
      jobs: { type: 'string' },
      define: { type: 'string', multiple: true },
    },
  });
  const accelerators = ACCELERATORS.filter((name) => values[name]);
  if (accelerators.length > 1) {
    throw new Error(`Expected at most one accelerator, got --${accelerators.join(' and --')}.`);
  }
  const jobs = parseJobs(values.jobs);
  const definitions = values.define ?? [];
  for (const definition of definitions) {
    if (!/^\w+=/.test(definition)) throw new Error(`Expected --define NAME=VALUE, got "${definition}".`);
  }
  const shape = values.native ? 'native' : 'portable';
  // A build with other CMake settings gets its own build directory and its own folder in the cache.
  const hash = createHash('sha256').update(JSON.stringify(definitions)).digest('hex');
  const defined = definitions.length > 0 ? hash.slice(0, 8) : '';
  return {
    key: [accelerators[0], shape, values.debug && 'debug', defined].filter(Boolean).join('-'),
    noGpuHere: values['no-gpu-here'] ?? false,
    portable: !values.native,
    debug: values.debug ?? false,
    clean: values.clean ?? false,
    ...(accelerators[0] && { accelerator: accelerators[0] }),
    ...(jobs && { jobs }),
    ...(definitions.length > 0 && { definitions }),
  };
}

/**
 * Prints which devices the build can use, and whether programs will load the build.
 * @param {string} path
 * @param {import('./try-build.mjs').Trial} trial
 * @param {boolean} noGpuHere whether the build is for other machines. This machine then needs no GPU.
 */
async function report(path, { devices, problem }, noGpuHere) {
  if (problem !== null) {
    process.stderr.write(`! The build is installed, but it cannot use a GPU of this machine: ${problem}\n`);
    if (!noGpuHere) {
      process.stderr.write(
        `  If you build for other machines, pass --no-gpu-here. Without this option the exit code is ${NO_GPU}.\n`,
      );
      process.exitCode = NO_GPU;
    }
  }
  if (devices.length === 0) return;
  process.stderr.write(`The build can compute on ${devices.join(', ')}. `);
  const next = await nextLoaded();
  process.stderr.write(
    next.path === path
      ? 'The next start of your program loads it.\n'
      : `But the next start of your program loads ${next.path ?? 'no addon'}${next.source ? ` (${next.source})` : ''}. \`npx llama-headstart doctor\` says why.\n`,
  );
  for (const { name, gpu } of next.unused) {
    process.stderr.write(
      `  The package ${name} is not loaded. To load it, set \`gpu: '${gpu}'\` or LLAMA_HEADSTART_VARIANT=${gpu}.\n`,
    );
  }
}
