// Detects the libc of a Linux system in the same way as node-gyp-build and the loader (lib/native/places.ts).

import { existsSync } from 'node:fs';

export const isMusl = process.platform === 'linux' && existsSync('/etc/alpine-release');

/** The loader's name for this platform: "linux-x64", "linux-x64-musl". */
export const platformName = `${process.platform}-${process.arch}${isMusl ? '-musl' : ''}`;

/**
 * The file name of a ggml module, as cmake/portable.cmake sets it: "headstart-ggml-cuda.so".
 * @param {string} module "cuda", "cpu-haswell"
 */
export const moduleFile = (module) =>
  `headstart-${isMusl ? 'musl-' : ''}ggml-${module}${process.platform === 'win32' ? '.dll' : '.so'}`;
