// `npm run build:gpu-package -- cuda|vulkan [--architectures "80;90"] [--jobs N]`: builds the optional GPU package for
// this platform in .build/gpu-packages, ready for `npm publish`. The package contains ggml's module for CUDA or Vulkan.
// Only the prebuilt addon of the same version loads this module. If no CUDA toolkit is installed, the script downloads
// the compiler from NVIDIA's Python packages.

import { copyFile, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildNative, parseJobs } from '../bin/lib/build-native.mjs';
import { moduleFile, platformName } from '../bin/lib/libc.mjs';
import { makeDirectory } from '../bin/lib/make-directory.mjs';
import { megabytes, step } from '../bin/lib/progress.mjs';
import { isMain, root, run, runMain } from '../bin/lib/run.mjs';
import { ensureCuda } from './lib/cuda.mjs';
import { ensureDependencies } from './setup.mjs';
import { ensureVendor } from './vendor.mjs';

const NEEDS = {
  cuda: "NVIDIA's driver, and the CUDA runtime and cuBLAS of the CUDA major version that the package was built with",
  vulkan: 'the Vulkan loader (libvulkan.so.1) and a driver',
};

/**
 * @param {'cuda' | 'vulkan'} gpu
 * @param {{ architectures?: string, definitions?: string[], jobs?: number }} [options] architectures: the value of
 *   CMAKE_CUDA_ARCHITECTURES; default: llama.cpp's list
 * @returns {Promise<{ directory: string, bytes: number, seconds: number }>}
 */
export async function buildGpuPackage(gpu, { architectures, definitions = [], jobs } = {}) {
  const begin = performance.now();
  await ensureDependencies({ quiet: true });
  await ensureVendor();
  const settings = [...definitions];
  if (gpu === 'cuda') {
    const toolkit = await findCuda();
    if (toolkit) settings.push(`CMAKE_CUDA_COMPILER=${join(toolkit, 'bin', 'nvcc')}`, `CUDAToolkit_ROOT=${toolkit}`);
    if (architectures) settings.push(`CMAKE_CUDA_ARCHITECTURES=${architectures}`);
  }
  const built = await step(`ggml's ${gpu} module`, {}, (progress) =>
    buildNative({
      portable: true,
      accelerator: gpu,
      definitions: settings,
      module: gpu,
      ...(jobs && { jobs }),
      onProgress: (state) => progress.update(state),
    }),
  );
  const seconds = Math.round((performance.now() - begin) / 1000);
  return { ...(await writePackage(gpu, built.path)), seconds };
}

/** @returns {Promise<string | undefined>} the directory of a downloaded toolkit; undefined if a toolkit is installed */
async function findCuda() {
  if ((await run(process.env.CUDACXX ?? 'nvcc', ['--version'])).code === 0) return undefined;
  const toolkit = await step('CUDA compiler', { quiet: true }, (progress) =>
    ensureCuda((state) => progress.update(state)),
  );
  process.env.CUDACXX = join(toolkit, 'bin', 'nvcc');
  return toolkit;
}

/**
 * @param {'cuda' | 'vulkan'} gpu
 * @param {string} module path of the built module
 */
async function writePackage(gpu, module) {
  const { version, license, repository, engines } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  const name = `@llama-headstart/${platformName}-${gpu}`;
  const directory = join(root, '.build', 'gpu-packages', ...name.split('/'));
  await rm(directory, { recursive: true, force: true });
  await makeDirectory(directory);
  const file = moduleFile(gpu);
  await copyFile(module, join(directory, file));
  await copyFile(join(root, 'LICENSE'), join(directory, 'LICENSE'));
  const manifest = {
    name,
    version,
    description: `${gpu.toUpperCase()} for llama-headstart ${version} on ${platformName}`,
    license,
    repository,
    engines,
    os: [process.platform],
    cpu: [process.arch],
    files: [file],
    peerDependencies: { 'llama-headstart': version },
  };
  await writeFile(join(directory, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  await writeFile(
    join(directory, 'README.md'),
    `# ${name}\n\nllama-headstart ${version} uses this package if both are installed. No import or option is necessary.\n` +
      `This package needs ${[NEEDS[gpu], ...libc()].join(', and ')}.\n` +
      '`npx llama-headstart doctor` shows whether this package is in use and, if it is not, the reason.\n',
  );
  return { directory, bytes: (await stat(join(directory, file))).size };
}

/**
 * Returns the glibc that the module needs: the build machine's version or a newer one. Returns an empty list if the
 * build machine has another libc.
 */
function libc() {
  const { header } = /** @type {{ header: { glibcVersionRuntime?: string } }} */ (process.report.getReport());
  return header.glibcVersionRuntime ? [`glibc ${header.glibcVersionRuntime} or newer`] : [];
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        architectures: { type: 'string' },
        define: { type: 'string', multiple: true },
        jobs: { type: 'string' },
      },
    });
    const [gpu = ''] = positionals;
    if (gpu !== 'cuda' && gpu !== 'vulkan')
      throw new Error(`Expected the first argument to be cuda or vulkan, got "${gpu}".`);
    const { architectures, define: definitions } = values;
    const jobs = parseJobs(values.jobs);
    const { directory, bytes, seconds } = await buildGpuPackage(gpu, {
      ...(jobs && { jobs }),
      ...(architectures && { architectures }),
      ...(definitions && { definitions }),
    });
    process.stdout.write(`${directory}: ${megabytes(bytes)}, ${seconds} s\n`);
  });
}
