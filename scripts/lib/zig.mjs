// Downloads `zig c++`, the C++ compiler of prebuilt binaries, as a Python package. The compiler contains the
// symbol versions of every glibc and the headers of every target, so that any Linux machine can build for another
// platform.

import { chmod, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeDirectory } from '../../bin/lib/make-directory.mjs';
import { toolsDirectory } from './caches.mjs';
import { downloadWheel, unpackWheel } from './python-package.mjs';
import { ensureTool } from './tools.mjs';

const VERSION = '0.15.2';
const WHEEL_BYTES = 93_500_000;
/** The oldest supported version of glibc. Debian 10 and RHEL 8 have this version. Amazon Linux 2023 has a newer one. */
export const GLIBC = '2.28';

/** The platforms that zig builds prebuilt binaries for, with their names in zig and in CMake. */
export const TARGETS = {
  'linux-x64': { triple: `x86_64-linux-gnu.${GLIBC}`, processor: 'x86_64' },
  'linux-arm64': { triple: `aarch64-linux-gnu.${GLIBC}`, processor: 'aarch64' },
};

/**
 * @param {(state: { fraction?: number, detail?: string }) => void} [onProgress]
 * @returns {Promise<string>} the path of the zig program
 */
export async function ensureZig(onProgress = () => {}) {
  const directory = await ensureTool(`zig-${VERSION}`, async (empty) => {
    const onBytes = (/** @type {number} */ bytes) => onProgress({ fraction: Math.min(1, bytes / WHEEL_BYTES) });
    const wheel = await downloadWheel(`ziglang==${VERSION}`, dirname(empty), { onBytes });
    await unpackWheel(wheel, dirname(empty));
    await rename(join(dirname(empty), 'ziglang'), join(empty, 'ziglang'));
    await chmod(join(empty, 'ziglang', 'zig'), 0o755);
  });
  return join(directory, 'ziglang', 'zig');
}

/**
 * Writes a CMake toolchain file for a platform. CMake and ccache expect the path of a compiler without arguments.
 * Therefore a small script per tool runs zig with the arguments of that tool, such as `c++ -target ...`.
 * @param {string} zig path of the zig program
 * @param {keyof typeof TARGETS} platform
 * @returns {Promise<{ name: string, toolchain: string, env: NodeJS.ProcessEnv }>} the `cross` option of `buildNative`
 */
export async function zigToolchain(zig, platform) {
  const { triple, processor } = TARGETS[platform];
  const directory = join(toolsDirectory(), `zig-${VERSION}-${platform}`);
  await makeDirectory(directory);
  const wrap = async (/** @type {string} */ name, /** @type {string} */ command) => {
    const path = join(directory, name);
    await writeFile(path, wrapper(zig, command), { mode: 0o755 });
    return path;
  };
  const tools = {
    CMAKE_C_COMPILER: await wrap('cc', `cc -target ${triple}`),
    CMAKE_CXX_COMPILER: await wrap('c++', `c++ -target ${triple}`),
    CMAKE_AR: await wrap('ar', 'ar'),
    CMAKE_RANLIB: await wrap('ranlib', 'ranlib'),
  };
  const toolchain = join(directory, 'toolchain.cmake');
  const settings = [['CMAKE_SYSTEM_NAME', 'Linux'], ['CMAKE_SYSTEM_PROCESSOR', processor], ...Object.entries(tools)];
  await writeFile(toolchain, settings.map(([name, value]) => `set(${name} "${value}")\n`).join(''));
  const cache = join(toolsDirectory(), 'zig-cache');
  return {
    name: platform,
    toolchain,
    env: {
      ZIG_GLOBAL_CACHE_DIR: cache,
      ZIG_LOCAL_CACHE_DIR: cache,
      CCACHE_COMPILERTYPE: 'clang',
      CCACHE_COMPILERCHECK: `string:zig-${VERSION}-${platform}`,
    },
  };
}

// The small script translates compiler flags for zig. zig does not know ARM architectures, only CPU features:
// "armv8.2-a+dotprod+fp16" becomes "generic+v8_2a+dotprod+fullfp16". Since clang 20, 512-bit registers are a separate
// feature of AVX-512 (evex512).
const wrapper = (/** @type {string} */ zig, /** @type {string} */ command) => `#!/bin/sh
for argument do
  shift
  case "$argument" in
    -march=armv8-a) argument=-mcpu=generic ;;
    -mavx512f) set -- "$@" -mevex512 ;;
    -march=armv*)
      argument=$(printf %s "$argument" | sed -e 's/^-march=armv\\([0-9]*\\)[.]\\([0-9]*\\)-a/-mcpu=generic+v\\1_\\2a/' -e 's/+fp16/+fullfp16/') ;;
  esac
  set -- "$@" "$argument"
done
exec "${zig}" ${command} "$@"
`;
