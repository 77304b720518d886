// `llama-headstart build`: compiles the addon from the packed sources into the user's cache, where the loader looks first.

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

/** The exit code where the build is there, and the GPU that it is for is not. */
const NO_GPU = 3;
const ACCELERATORS = /** @type {const} */ (['cuda', 'metal', 'vulkan']);

/** @param {string[]} args */
export async function build(args) {
  const options = parse(args);
  if (!existsSync(join(packageRoot, 'vendor', 'llama.cpp', 'CMakeLists.txt'))) {
    throw new Error(
      `${packageRoot} holds no sources of llama.cpp: install the package anew, or run \`npm run vendor\` there.`,
    );
  }
  const { key, elsewhere, ...how } = options;
  // Here too: a machine that cannot build gets advice, and no folders.
  await checkTools({ ...(how.accelerator && { accelerator: how.accelerator }), compiler: true });
  const trees = join(userCache(), 'build-trees');
  for (const directory of [trees, buildsDirectory()]) await makeFolder(directory);
  const tree = join(trees, `${packageVersion}-${platformName}-${key}`);
  const { path, trial } = await whileLocked(`${tree}.lock`, () => compile(tree, key, how));
  await rmdir(trees).catch(() => {}); // where no other build is under way, or left half done
  process.stdout.write(`${path}\n`);
  await report(path, trial, elsewhere);
}

/**
 * @param {string} tree where to compile
 * @param {string} key the folder's name for these options
 * @param {import('./lib/build-native.mjs').BuildOptions} how
 * @returns {Promise<{ path: string, trial: import('./try-build.mjs').Trial }>} the addon's path in the user's cache, and what it is good for
 */
async function compile(tree, key, how) {
  const log = join(buildsDirectory(), `${key}.log`);
  process.stderr.write(`llama.cpp is compiled in ${tree}\nIts log will be ${log}\n`);
  const finished = join(tree, 'finished');
  await rm(finished, { recursive: true, force: true });
  const { path } = await step(
    `native addon (${key})`,
    {},
    (progress) => {
      const places = { directory: tree, output: finished };
      return buildNative({ ...how, ...places, plain: true, onProgress: (state) => progress.update(state) });
    },
    ({ compiled }) => (compiled === 0 ? 'nothing to compile' : `${compiled} steps`),
  );
  const trial = await tryBuild(path, how.accelerator);
  if (trial.harmful) {
    throw new Error(
      `It was built, but this machine cannot use it: ${trial.problem}.\n` +
        `  So no program will load it, and what was loaded before is loaded still. It lies in ${finished}`,
    );
  }
  const output = join(buildsDirectory(), key);
  await replaceFolder(output, finished, join(tree, 'replaced'));
  await rename(join(tree, 'build.log'), log);
  await rm(tree, { recursive: true, force: true });
  return { path: join(output, basename(path)), trial };
}

/**
 * By two renames: whoever looks for an addon meanwhile finds the old one, the new one or another that is whole, never half of one.
 * @param {string} target @param {string} next @param {string} aside where what was there goes
 */
async function replaceFolder(target, next, aside) {
  await rm(aside, { recursive: true, force: true });
  try {
    if (existsSync(target)) await rename(target, aside);
    await rename(next, target);
  } catch (cause) {
    const { message } = /** @type {Error} */ (cause);
    throw new Error(`${target} could not be replaced (${message}). Stop the programs that use it and run this again.`);
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
      `A build needs to write to your cache directory, ${userCache()}: ${message}.\n` +
        `  Set ${CACHE_VARIABLE} to a folder of yours, for the build and for the programs that are to find it.`,
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
  if (accelerators.length > 1) throw new Error(`Expected one of --${accelerators.join(' and --')}.`);
  const jobs = parseJobs(values.jobs);
  const definitions = values.define ?? [];
  for (const definition of definitions) {
    if (!/^\w+=/.test(definition)) throw new Error(`Expected --define NAME=VALUE, got "${definition}".`);
  }
  const shape = values.native ? 'native' : 'portable';
  // What is compiled otherwise is another build: it neither goes on in the same folder, nor takes the other's place.
  const hash = createHash('sha256').update(JSON.stringify(definitions)).digest('hex');
  const defined = definitions.length > 0 ? hash.slice(0, 8) : '';
  return {
    key: [accelerators[0], shape, values.debug && 'debug', defined].filter(Boolean).join('-'),
    elsewhere: values['no-gpu-here'] ?? false,
    portable: !values.native,
    debug: values.debug ?? false,
    clean: values.clean ?? false,
    ...(accelerators[0] && { accelerator: accelerators[0] }),
    ...(jobs && { jobs }),
    ...(definitions.length > 0 && { definitions }),
  };
}

/**
 * What it is good for here, and whether programs will load it.
 * @param {string} path
 * @param {import('./try-build.mjs').Trial} trial
 * @param {boolean} elsewhere it is for machines that have a GPU, and this one need not
 */
async function report(path, { devices, problem }, elsewhere) {
  if (problem !== null) {
    process.stderr.write(`! It is built and kept, but no GPU can be used by it on this machine: ${problem}\n`);
    if (!elsewhere) {
      process.stderr.write(
        `  An image for machines with a GPU is built so too: with --no-gpu-here that is no failure (exit code ${NO_GPU}).\n`,
      );
      process.exitCode = NO_GPU;
    }
  }
  if (devices.length === 0) return;
  process.stderr.write(`It computes on ${devices.join(', ')}. `);
  const next = await nextLoaded();
  process.stderr.write(
    next.path === path
      ? 'The next start of your program loads it.\n'
      : `The next start of your program loads ${next.path ?? 'none'} all the same (${next.source ?? 'see'}): \`npx llama-headstart doctor\` says why.\n`,
  );
  for (const { name, gpu } of next.left) {
    process.stderr.write(
      `  ${name} comes after it: \`gpu: '${gpu}'\` or LLAMA_HEADSTART_VARIANT=${gpu} asks for that.\n`,
    );
  }
}
