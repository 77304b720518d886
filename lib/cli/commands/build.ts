// Compiles the addon from the package's sources into the user's cache directory. In an installed package, the loader
// searches that directory first.
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync } from 'node:fs';
import { rename, rm, rmdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { HeadstartError } from '../../errors.js';
import { makeDirectory } from '../../files.js';
import {
  buildsDirectory,
  CACHE_VARIABLE,
  GPUS,
  type GpuKind,
  packageRoot,
  packageVersion,
  platformName,
  userCache,
} from '../../native/places.js';
import { integer } from '../../option-types.js';
import { whileLocked } from '../build-lock.js';
import { type Call, command } from '../command.js';
import { flag, listOption, numberOption, type OptionValues } from '../option.js';
import type { Output } from '../output.js';
import { type NativeBuild, packageScript } from '../package-scripts.js';
import { nextLoaded, type Trial, tryBuild } from '../try-build.js';

/** The exit code if the build succeeded but cannot use a GPU of this machine. */
const NO_GPU = 3;

const OPTIONS = {
  cuda: flag('compute on an NVIDIA GPU'),
  metal: flag('compute on an Apple GPU'),
  vulkan: flag('compute on a GPU through Vulkan'),
  noGpuHere: flag('build for other machines, even if this machine has no GPU'),
  native: flag('build one file for this CPU: it compiles faster but runs only on this machine'),
  debug: flag('compile without optimization and with symbols'),
  jobs: numberOption('number', integer(1), 'compile this many files at a time', { defaultAbout: 'one per core' }),
  clean: flag('compile everything again'),
  // A setting can make CMake run a program.
  define: listOption('name=value', 'pass a setting to CMake, such as `CMAKE_CUDA_ARCHITECTURES=89`', {
    isConfigurable: false,
  }),
};

/** What to build. */
interface Plan {
  /** The name of the folder for these options. */
  key: string;
  settings: Pick<NativeBuild, 'accelerator' | 'portable' | 'debug' | 'clean' | 'jobs' | 'definitions'>;
}

export const build = command({
  name: 'build',
  summary: 'compiles the native addon from the sources in this package, without network access',
  details: [
    '`build` stores the addon in your cache directory. The loader tries the newest build first and the prebuilt addon ' +
      'last. If `gpu` in your program or LLAMA_HEADSTART_VARIANT names a GPU, the loader tries only builds for that GPU.',
  ],
  arguments: {},
  options: OPTIONS,
  examples: [
    { line: 'build', about: 'Compile the addon for the CPU.' },
    {
      line: 'build --cuda --define CMAKE_CUDA_ARCHITECTURES=89',
      about: 'Compile the addon for one kind of NVIDIA GPU.',
    },
  ],
  json: {
    path: 'the path of the addon',
    devices: 'the devices that the addon can compute on',
    problem: 'why it cannot use a GPU of this machine, or null',
  },
  exitCodes: { [NO_GPU]: 'the build succeeded, but it cannot use a GPU of this machine' },
  async run(call) {
    const { options, output } = call;
    const { key, settings } = planOf(options);
    if (!existsSync(join(packageRoot, 'vendor', 'llama.cpp', 'CMakeLists.txt'))) {
      throw new Error(
        `Expected sources of llama.cpp in ${packageRoot}, found none. Install the package again, or run \`npm run vendor\` there.`,
      );
    }
    const { checkTools } = await packageScript('build-tools.mjs');
    const { accelerator } = settings;
    // `buildNative` repeats this check. Here a missing tool is reported before any directory is created.
    await checkTools({ ...(accelerator && { accelerator }), compiler: true });
    const trees = join(userCache(), 'build-trees');
    for (const directory of [trees, buildsDirectory()]) {
      await makeFolder(directory);
    }
    const tree = join(trees, `${packageVersion}-${platformName}-${key}`);
    const { path, trial } = await whileLocked(`${tree}.lock`, () => compile(tree, key, settings, call));
    await rmdir(trees).catch(() => undefined); // fails if the directory contains the tree of another build
    output.result({ path, devices: trial.devices, problem: trial.problem }, () => path);
    await report(path, trial, options.noGpuHere, call);
  },
});

/**
 * @param tree the build directory
 * @returns the addon's path in the user's cache directory, and the result of loading the addon
 */
async function compile(
  tree: string,
  key: string,
  settings: Plan['settings'],
  { output, step }: Pick<Call, 'output' | 'step'>,
): Promise<{ path: string; trial: Trial }> {
  const log = join(buildsDirectory(), `${key}.log`);
  output.note(`llama.cpp is compiled in ${tree}\nThe log will be in ${log}`);
  const finished = join(tree, 'finished');
  await rm(finished, { recursive: true, force: true });
  const { buildNative } = await packageScript('build-native.mjs');
  const { path } = await step(
    `native addon (${key})`,
    (progress) =>
      buildNative({
        ...settings,
        directory: tree,
        output: finished,
        plain: true,
        onProgress: (state) => progress.update(state),
      }),
    ({ compiled }) => (compiled === 0 ? 'nothing to compile' : `${compiled} steps`),
  );
  const trial = await tryBuild(path, settings.accelerator);
  if (trial.harmful) {
    throw new Error(
      `The build succeeded, but this machine cannot use it: ${trial.problem}.\n` +
        `  The build was not installed. Programs load the same addon as before. The built files are in ${finished}`,
    );
  }
  const target = join(buildsDirectory(), key);
  await replaceFolder(target, finished, join(tree, 'replaced'));
  await rename(join(tree, 'build.log'), log);
  await rm(tree, { recursive: true, force: true });
  return { path: join(target, basename(path)), trial };
}

/**
 * Replaces a folder by two renames. A program that starts during the replacement finds the old folder, the new folder
 * or no folder. It never finds an incomplete addon.
 *
 * @param old the path to which the old folder is moved
 */
async function replaceFolder(target: string, replacement: string, old: string): Promise<void> {
  await rm(old, { recursive: true, force: true });
  try {
    if (existsSync(target)) {
      await rename(target, old);
    }
    await rename(replacement, target);
  } catch (cause) {
    throw new Error(
      `Could not replace ${target} (${(cause as Error).message}). Stop the programs that use it, and run this command again.`,
    );
  }
}

async function makeFolder(path: string): Promise<void> {
  try {
    await makeDirectory(path);
    accessSync(path, constants.W_OK);
  } catch (cause) {
    throw new Error(
      `Expected your cache directory ${userCache()} to be writable: ${(cause as Error).message}.\n` +
        `  Set ${CACHE_VARIABLE} to a writable folder, for this command and for the programs that will load the build.`,
    );
  }
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
function planOf(options: OptionValues<typeof OPTIONS>): Plan {
  const { native, debug, clean, jobs, define: definitions } = options;
  const accelerators = GPUS.filter((name) => options[name]);
  if (accelerators.length > 1) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected at most one accelerator, got --${accelerators.join(' and --')}.`,
    );
  }
  for (const definition of definitions) {
    if (!/^\w+=/.test(definition)) {
      throw new HeadstartError('INVALID_ARGUMENT', `Expected --define NAME=VALUE, got "${definition}".`);
    }
  }
  const accelerator: GpuKind | undefined = accelerators[0];
  // A build with other CMake settings gets its own build directory and its own folder in the cache.
  const hash = createHash('sha256').update(JSON.stringify(definitions)).digest('hex');
  const defined = definitions.length > 0 ? hash.slice(0, 8) : '';
  return {
    key: [accelerator, native ? 'native' : 'portable', debug && 'debug', defined].filter(Boolean).join('-'),
    settings: {
      portable: !native,
      debug,
      clean,
      ...(accelerator && { accelerator }),
      ...(jobs && { jobs }),
      ...(definitions.length > 0 && { definitions }),
    },
  };
}

/**
 * Prints which devices the build can use, and whether programs will load the build.
 *
 * @param noGpuHere whether the build is for other machines. This machine then needs no GPU.
 */
async function report(
  path: string,
  { devices, problem }: Trial,
  noGpuHere: boolean,
  call: { output: Output; exitCode: number },
): Promise<void> {
  const { output } = call;
  if (problem !== null) {
    output.warn(`The build is installed, but it cannot use a GPU of this machine: ${problem}`);
    if (!noGpuHere) {
      output.note(
        `  If you build for other machines, pass --no-gpu-here. Without this option the exit code is ${NO_GPU}.`,
      );
      call.exitCode = NO_GPU;
    }
  }
  if (devices.length === 0) {
    return;
  }
  const next = await nextLoaded();
  output.note(
    `The build can compute on ${devices.join(', ')}. ${
      next.path === path
        ? 'The next start of your program loads it.'
        : `But the next start of your program loads ${next.path ?? 'no addon'}${next.source ? ` (${next.source})` : ''}. \`npx llama-headstart doctor\` says why.`
    }`,
  );
  for (const { name, gpu } of next.unused) {
    output.note(
      `  The package ${name} is not loaded. To load it, set \`gpu: '${gpu}'\` or LLAMA_HEADSTART_VARIANT=${gpu}.`,
    );
  }
}
