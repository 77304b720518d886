// Downloads NVIDIA's CUDA compiler as Python packages, to compile the GPU package for CUDA on a machine without a CUDA
// toolkit. The compiler needs no GPU. If a toolkit is installed (nvcc on PATH, or CUDACXX), scripts/gpu-package.mjs
// uses that toolkit and downloads nothing.

import { existsSync } from 'node:fs';
import { chmod, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeDirectory } from '../../bin/lib/make-directory.mjs';
import { mustRun } from '../../bin/lib/run.mjs';
import { downloadWheel, unpackWheel } from './python-package.mjs';
import { ensureTool } from './tools.mjs';

const VERSION = '13.0';
const WHEELS = [
  'nvidia-cuda-nvcc==13.0.88',
  'nvidia-cuda-crt==13.0.88',
  'nvidia-nvvm==13.0.88',
  'nvidia-cuda-runtime==13.0.96',
  'nvidia-cuda-cccl==13.0.85',
  'nvidia-cublas==13.0.2.14',
];

/**
 * @param {(state: { fraction?: number, detail?: string }) => void} [onProgress]
 * @returns {Promise<string>} the toolkit's directory, with bin/nvcc
 */
export async function ensureCuda(onProgress = () => {}) {
  const toolkit = await ensureTool(`cuda-${VERSION}`, async (empty) => {
    const work = dirname(empty);
    for (const [index, wheel] of WHEELS.entries()) {
      onProgress({ fraction: index / WHEELS.length, detail: wheel });
      await unpackWheel(await downloadWheel(wheel, work), work);
    }
    const toolkit = join(work, 'nvidia', 'cu13');
    for (const name of await readdir(toolkit)) await rename(join(toolkit, name), join(empty, name));
    await completeToolkit(empty);
  });
  await ensureDriverStub(toolkit);
  return toolkit;
}

/**
 * Adds executable bits, lib64, and library names without a version. The compiler needs these additions. The Python
 * packages lack them, because the packages are meant for running compiled programs.
 * @param {string} directory
 */
async function completeToolkit(directory) {
  for (const folder of ['bin', join('nvvm', 'bin')]) {
    for (const name of await readdir(join(directory, folder))) {
      await chmod(join(directory, folder, name), 0o755);
    }
  }
  await symlink('lib', join(directory, 'lib64'));
  for (const name of await readdir(join(directory, 'lib'))) {
    const [, unversioned] = /^(.*\.so)\.\d+$/.exec(name) ?? [];
    if (unversioned) await symlink(name, join(directory, 'lib', unversioned));
  }
}

/**
 * Compiles a stub of the driver's library, libcuda.so. Only machines with a GPU have the real library. The linker needs
 * the names of the library and of its functions. Without these names, the module would not depend on the library and
 * could not be loaded. `ensureTool` does not create the stub, because the stub needs this machine's C compiler.
 * @param {string} directory
 */
async function ensureDriverStub(directory) {
  const stubs = join(directory, 'lib', 'stubs');
  const library = join(stubs, 'libcuda.so');
  if (existsSync(library)) return;
  const header = await readFile(join(directory, 'include', 'cuda.h'), 'utf8');
  const declared = header.matchAll(/\bCUDAAPI\s+(cu\w+)\s*\(/g);
  const renamed = header.matchAll(/^\s*#\s*define\s+cu\w+\s+(?:__CUDA_API_PT[DS][SZ]\()?(cu\w+)\)?\s*$/gm);
  const names = new Set([...declared, ...renamed].map(([, name]) => name));
  await makeDirectory(stubs);
  const [source, stub] = ['c', 'so'].map((suffix) => join(stubs, `cuda.${process.pid}.${suffix}`));
  await writeFile(source, [...names].map((name) => `void ${name}(void) {}\n`).join(''));
  await mustRun('cc', ['-shared', '-fPIC', source, '-Wl,-soname,libcuda.so.1', '-o', stub]);
  await rename(stub, library);
  await rm(source);
}
