// `llama-headstart build`: compiles the addon from the packed sources into the user's cache, where the loader looks first.

import { accessSync, constants, existsSync } from 'node:fs';
import { mkdir, rename, rm, rmdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  buildsDirectory,
  CACHE_VARIABLE,
  packageRoot,
  packageVersion,
  platformName,
  userCache,
} from '../dist/native/places.js';
import { buildNative, parseJobs } from '../scripts/build-native.mjs';
import { checkTools } from '../scripts/lib/build-tools.mjs';
import { step } from '../scripts/lib/progress.mjs';
import { run } from '../scripts/lib/run.mjs';
import { whileLocked } from './lock.mjs';

const ACCELERATORS = /** @type {const} */ (['cuda', 'metal', 'vulkan']);

/** @param {string[]} args */
export async function build(args) {
  const options = parse(args);
  if (!existsSync(join(packageRoot, 'vendor', 'llama.cpp', 'CMakeLists.txt'))) {
    throw new Error(
      `${packageRoot} holds no sources of llama.cpp: install the package anew, or run \`npm run vendor\` there.`,
    );
  }
  const { key, ...how } = options;
  // Here too: a machine that cannot build gets advice, and no folders.
  await checkTools({ ...(how.accelerator && { accelerator: how.accelerator }), compiler: true });
  const trees = join(userCache(), 'build-trees');
  for (const directory of [trees, buildsDirectory()]) await makeFolder(directory);
  const tree = join(trees, `${packageVersion}-${platformName}-${key}`);
  const path = await whileLocked(`${tree}.lock`, () => compile(tree, key, how));
  await rmdir(trees).catch(() => {}); // where no other build is under way, or left half done
  process.stdout.write(`${path}\n`);
  await report(path);
}

/**
 * @param {string} tree where to compile
 * @param {string} key the folder's name for these options
 * @param {import('../scripts/build-native.mjs').BuildOptions} how
 * @returns {Promise<string>} the addon's path in the user's cache
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
  const output = join(buildsDirectory(), key);
  await replaceFolder(output, finished, join(tree, 'replaced'));
  await rename(join(tree, 'build.log'), log);
  await rm(tree, { recursive: true, force: true });
  return join(output, basename(path));
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
    await mkdir(path, { recursive: true });
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
      jobs: { type: 'string' },
      define: { type: 'string', multiple: true },
    },
  });
  const accelerators = ACCELERATORS.filter((name) => values[name]);
  if (accelerators.length > 1) throw new Error(`Expected one of --${accelerators.join(' and --')}.`);
  const jobs = parseJobs(values.jobs);
  for (const definition of values.define ?? []) {
    if (!/^\w+=/.test(definition)) throw new Error(`Expected --define NAME=VALUE, got "${definition}".`);
  }
  const shape = values.native ? 'native' : 'portable';
  return {
    key: [accelerators[0], shape, values.debug && 'debug'].filter(Boolean).join('-'),
    portable: !values.native,
    debug: values.debug ?? false,
    clean: values.clean ?? false,
    ...(accelerators[0] && { accelerator: accelerators[0] }),
    ...(jobs && { jobs }),
    ...(values.define && { definitions: values.define }),
  };
}

/** Loads what was built, in a process of its own: a build that cannot be loaded here may be meant for elsewhere. @param {string} path */
async function report(path) {
  const doctor = join(packageRoot, 'bin', 'llama-headstart.mjs');
  const { code, stdout } = await run(process.execPath, [doctor, 'doctor', '--json'], {
    env: { LLAMA_HEADSTART_ADDON: path },
  });
  const { loaded, problem } = JSON.parse(stdout);
  if (code !== 0) {
    process.stderr.write(`! It was built, but this machine cannot load it: ${problem}\n`);
    process.exitCode = 1;
    return;
  }
  const devices = loaded.devices.map(
    (/** @type {{ name: string, description: string }} */ d) => `${d.name} (${d.description})`,
  );
  process.stderr.write(`It computes on ${devices.join(', ')}. The next start of your program loads it.\n`);
}
