// Before a build, checks that this machine has the necessary tools. The error says how to install the tools that are
// missing or too old.

import { run } from './run.mjs';

/** The oldest tools that can compile llama.cpp. Its sources use C++17 with <filesystem>, and C++17 in CUDA code. */
const MINIMUM = { cmake: [3, 21], gcc: 9, clang: 10, cuda: [11, 7] };

const INSTALL_HINT =
  {
    darwin: 'xcode-select --install, and CMake with Homebrew: brew install cmake ninja',
    win32: 'Visual Studio Build Tools 2022 with the workload "Desktop development with C++", and CMake 3.21 or newer',
    linux:
      'Debian, Ubuntu: apt install build-essential cmake ninja-build\n' +
      '    Fedora: dnf install gcc-c++ cmake ninja-build\n' +
      '    Alpine: apk add build-base cmake samurai linux-headers',
  }[/** @type {string} */ (process.platform)] ?? 'a C++17 compiler, CMake 3.21 or newer, and ninja or make';

const ACCELERATOR_HINTS = {
  cuda: 'the CUDA toolkit 11.7 or newer (https://developer.nvidia.com/cuda-downloads), with nvcc on PATH or its path in CUDACXX',
  vulkan:
    'the Vulkan SDK: Debian, Ubuntu: apt install libvulkan-dev glslc spirv-headers; else https://vulkan.lunarg.com',
};

/**
 * @typedef {object} Needs
 * @property {'cuda' | 'metal' | 'vulkan'} [accelerator]
 * @property {boolean} compiler whether the build uses this machine's C++ compiler
 */

/** Throws an error that names every tool that is missing or too old. @param {Needs} needs */
export async function checkTools(needs) {
  const { accelerator, compiler } = needs;
  if (accelerator === 'metal' && process.platform !== 'darwin') {
    throw new Error(
      'Metal is for Macs. On this machine use --cuda or --vulkan for a GPU, or neither to compute on the CPU.',
    );
  }
  const missing = await toolProblems({ compiler });
  const missingForGpu = await acceleratorProblem(accelerator);
  if (missing.length === 0 && missingForGpu === undefined) return;
  const hints = [
    ...(missing.length > 0 ? [INSTALL_HINT] : []),
    ...(missingForGpu !== undefined && accelerator && accelerator !== 'metal' ? [ACCELERATOR_HINTS[accelerator]] : []),
  ];
  throw new Error(
    `To compile llama.cpp this machine lacks: ${[...missing, missingForGpu].filter(Boolean).join(', ')}.\n` +
      `  Install:\n    ${hints.join('\n    ')}`,
  );
}

/**
 * @param {{ compiler: boolean }} needs
 * @returns {Promise<string[]>} the tools that are missing or too old: "CMake 3.21 or newer (found 3.16)"
 */
export async function toolProblems({ compiler }) {
  const problems = [await cmakeProblem()];
  if (process.platform !== 'win32') {
    if (compiler) problems.push(await compilerProblem());
    if (!(await runs('ninja')) && !(await runs('make'))) problems.push('ninja or make');
  }
  return problems.filter((problem) => problem !== undefined);
}

/** @param {Needs['accelerator']} accelerator */
async function acceleratorProblem(accelerator) {
  if (accelerator === 'cuda') return cudaProblem();
  if (accelerator === 'vulkan' && !(await runs('glslc'))) return 'the Vulkan SDK (glslc)';
  return undefined;
}

/** Returns the version of each tool that `doctor` shows, by the tool's name. The version of a missing tool is null. */
export async function toolVersions() {
  const entries = await Promise.all(
    ['cmake', 'ninja', 'make', compilerCommand() ?? 'c++', nvcc(), 'glslc', 'ccache'].map(async (command) => {
      const { code, stdout } = await run(command, ['--version']);
      const version = stdout.split('\n').find((line) => /\d+\.\d+/.test(line));
      return /** @type {const} */ ([command, code === 0 && version ? version.trim() : null]);
    }),
  );
  return Object.fromEntries(entries);
}

const compilerCommand = () => process.env.CXX;
const nvcc = () => process.env.CUDACXX ?? 'nvcc';
const runs = async (/** @type {string} */ command) => (await run(command, ['--version'])).code !== 127;

const olderThan = (/** @type {RegExpExecArray | null} */ version, /** @type {number[]} */ [major = 0, minor = 0]) =>
  version !== null && Number(version[1]) * 1000 + Number(version[2]) < major * 1000 + minor;

async function cmakeProblem() {
  const { code, stdout } = await run('cmake', ['--version']);
  const version = /version (\d+)\.(\d+)/.exec(stdout);
  if (code !== 0) return 'CMake';
  if (olderThan(version, MINIMUM.cmake)) return `CMake 3.21 or newer (found ${version?.[1]}.${version?.[2]})`;
  return undefined;
}

async function compilerProblem() {
  const candidates = [compilerCommand(), 'c++', 'g++', 'clang++'].filter((command) => command !== undefined);
  for (const command of candidates) {
    const { code, stdout } = await run(command, ['--version']);
    // A Mac without a compiler has a `c++` that fails and prints what to install.
    if (code !== 0) continue;
    // Apple numbers its clang versions differently. Every version that Xcode still offers is new enough.
    const clang = /(?<!Apple )clang version (\d+)/.exec(stdout);
    const gcc = /^\S*(?:g\+\+|c\+\+|gcc)[^\n]* (\d+)\.\d+\.\d+/.exec(stdout);
    if (clang && Number(clang[1]) < MINIMUM.clang) return `clang ${MINIMUM.clang} or newer (${command} is ${clang[1]})`;
    if (gcc && Number(gcc[1]) < MINIMUM.gcc) return `GCC ${MINIMUM.gcc} or newer (${command} is ${gcc[1]})`;
    return undefined;
  }
  return 'a C++ compiler';
}

async function cudaProblem() {
  const { code, stdout } = await run(nvcc(), ['--version']);
  if (code !== 0) return 'the CUDA toolkit (nvcc)';
  const version = /release (\d+)\.(\d+)/.exec(stdout);
  if (olderThan(version, MINIMUM.cuda)) return `CUDA 11.7 or newer (nvcc is ${version?.[1]}.${version?.[2]})`;
  return undefined;
}
