// Which libc a Linux has, by node-gyp-build's own rule, which the loader follows too (lib/native/places.ts).

import { existsSync } from 'node:fs';

export const isMusl = process.platform === 'linux' && existsSync('/etc/alpine-release');

/** The loader's name for this platform: "linux-x64", "linux-x64-musl". */
export const platformName = `${process.platform}-${process.arch}${isMusl ? '-musl' : ''}`;

/** What cmake/portable.cmake calls one of ggml's modules: "headstart-ggml-cuda.so". @param {string} module "cuda", "cpu-haswell" */
export const moduleFile = (module) =>
  `headstart-${isMusl ? 'musl-' : ''}ggml-${module}${process.platform === 'win32' ? '.dll' : '.so'}`;
