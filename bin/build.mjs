// `llama-headstart build`: compiles the addon from the packed sources into the user's cache, where the loader looks first.

import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildsDirectory, packageRoot, packageVersion, platformName, userCache } from '../dist/native/places.js';
import { buildNative, parseJobs } from '../scripts/build-native.mjs';
import { checkTools } from '../scripts/lib/build-tools.mjs';
import { step } from '../scripts/lib/progress.mjs';
import { run } from '../scripts/lib/run.mjs';

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
  const output = join(buildsDirectory(), key);
  const tree = join(userCache(), 'build-trees', `${packageVersion}-${platformName}-${key}`);
  const log = join(buildsDirectory(), `${key}.log`);
  // Here too: a machine that cannot build gets advice, and no folders.
  await checkTools({ ...(how.accelerator && { accelerator: how.accelerator }), compiler: true });
  await mkdir(buildsDirectory(), { recursive: true });
  process.stderr.write(`llama.cpp is compiled in ${tree}\nIts log will be ${log}\n`);

  const { path } = await step(
    `native addon (${key})`,
    {},
    (progress) => buildNative({ ...how, directory: tree, output, onProgress: (state) => progress.update(state) }),
    ({ compiled }) => (compiled === 0 ? 'nothing to compile' : `${compiled} steps`),
  );
  await rename(join(tree, 'build.log'), log);
  await rm(tree, { recursive: true, force: true });
  process.stdout.write(`${path}\n`);
  await report(path);
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
