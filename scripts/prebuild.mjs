// `npm run build:prebuilt [-- --platform linux-arm64] [--again]`: builds the binaries of the package in
// prebuilds/<platform>. node-gyp-build finds them there. prebuildify runs scripts/lib/prebuild-gyp.mjs, which compiles
// the addon. Then prebuildify puts the files in place.
//
// Any Linux machine can build the Linux binaries (for glibc 2.28 or newer), because zig cross-compiles them. This
// script stores these binaries in the user's cache, so that no clone compiles the same sources again. `--again`
// compiles the sources even if the cache has their binaries. The binaries for another operating system must be built on
// that system.

import { existsSync } from 'node:fs';
import { cp, readdir, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { isMusl } from '../bin/lib/libc.mjs';
import { makeDirectory } from '../bin/lib/make-directory.mjs';
import { megabytes, step } from '../bin/lib/progress.mjs';
import { isMain, root, runMain } from '../bin/lib/run.mjs';
import { toolsDirectory } from './lib/caches.mjs';
import { prebuildInputs } from './lib/prebuild-inputs.mjs';
import { ensureTool } from './lib/tools.mjs';
import { TARGETS } from './lib/zig.mjs';
import { ensureDependencies } from './setup.mjs';
import { ensureVendor, pin } from './vendor.mjs';

/**
 * @param {string} platform "linux-x64"
 * @param {{ again?: boolean }} [options] again: compile even if the cache has binaries of the same sources
 * @returns {Promise<{ directory: string, bytes: number, files: number, compiled: boolean }>} compiled: false if the
 *   binaries came from the cache
 */
export async function prebuild(platform, { again = false } = {}) {
  await ensureDependencies({ quiet: true });
  const directory = join(root, 'prebuilds', platform);
  let compiled = false;
  if (platform in TARGETS && !isMusl) {
    const name = await cachedName(platform);
    if (again) await rm(join(toolsDirectory(), name), { recursive: true, force: true });
    // zig and its headers are the same on every machine, so cached binaries of any clone can be used.
    await ensureTool(name, (empty) => {
      compiled = true;
      return compileInto(platform, empty);
    });
    await removeOlder(platform, name);
    await copyFromCache(name, directory);
  } else {
    await compile(platform);
    compiled = true;
  }
  return { ...(await measure(directory)), compiled };
}

/**
 * Returns whether the user's cache has a platform's binaries of the same sources. If it has, `prebuild` compiles
 * nothing.
 * @param {string} platform
 */
export const isCached = async (platform) => existsSync(join(toolsDirectory(), await cachedName(platform)));

/** Removes a platform's binaries from prebuilds/, so that they are not packed. @param {string} platform */
export const removePrebuilt = (platform) => removeLibc(join(root, 'prebuilds', platform));

/** Returns the name of the binaries' directory in the user's cache. @param {string} platform */
const cachedName = async (platform) => `prebuilt-${platform}-${await prebuildInputs(platform)}`;

/** @param {string} name name of the directory in the user's cache @param {string} directory prebuilds/<platform> */
async function copyFromCache(name, directory) {
  await removeLibc(directory);
  await cp(join(toolsDirectory(), name), directory, { recursive: true });
}

/** @param {string} platform @param {string} empty an empty directory for the binaries */
async function compileInto(platform, empty) {
  const directory = await compile(platform);
  const names = (await readdir(directory)).filter((name) => !isForMusl(name));
  for (const name of names) await cp(join(directory, name), join(empty, name));
}

/**
 * Removes a platform's cached binaries of other sources.
 * @param {string} platform
 * @param {string} current the name to keep
 */
async function removeOlder(platform, current) {
  const names = (await readdir(toolsDirectory())).filter((name) => name.startsWith(`prebuilt-${platform}-`));
  for (const name of names.filter((name) => name !== current))
    await rm(join(toolsDirectory(), name), { recursive: true, force: true });
}

/** @param {string} platform @returns {Promise<string>} prebuilds/<platform> */
async function compile(platform) {
  const [os, arch] = platform.split('-');
  await step(`llama.cpp ${pin.version}`, { quiet: true }, (progress) =>
    ensureVendor({ onProgress: (detail) => progress.update({ detail }) }),
  );
  // prebuildify packs build/Release of its working directory. The checkout cannot be the working directory, because its
  // build/Release contains the developer's build.
  const stage = join(root, '.build', `prebuild-${platform}`);
  await makeDirectory(stage);
  await rm(join(stage, 'build'), { recursive: true, force: true });
  const directory = join(root, 'prebuilds', platform);
  if (os !== 'linux') await rm(directory, { recursive: true, force: true });
  else await removeLibc(directory);
  const nodeGyp = join(root, 'scripts', 'lib', 'prebuild-gyp.mjs');
  const options = {
    cwd: stage,
    out: root,
    name: 'llama-headstart',
    napi: true,
    tagLibc: os === 'linux',
    arch,
    libc: isMusl ? 'musl' : 'glibc',
  };
  const prebuildify = createRequire(import.meta.url)('prebuildify');
  await new Promise((resolve, reject) => {
    const done = (/** @type {Error | null} */ error) => (error ? reject(error) : resolve(undefined));
    prebuildify({ ...options, platform: os, nodeGyp: `"${process.execPath}" "${nodeGyp}"`, shell: true }, done);
  });
  return directory;
}

const isForMusl = (/** @type {string} */ name) => /\bmusl\b/.test(name);

/**
 * Removes the binaries for this machine's libc. Keeps the binaries for the other libc in the same directory.
 * @param {string} directory
 */
async function removeLibc(directory) {
  const names = await readdir(directory).catch(() => []);
  for (const name of names) if (isForMusl(name) === isMusl) await rm(join(directory, name));
}

/** @param {string} directory */
export async function measure(directory) {
  const sizes = await Promise.all((await readdir(directory)).map((name) => stat(join(directory, name))));
  return { directory, files: sizes.length, bytes: sizes.reduce((sum, { size }) => sum + size, 0) };
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const { values } = parseArgs({
      options: { platform: { type: 'string', multiple: true }, again: { type: 'boolean', default: false } },
    });
    for (const platform of values.platform ?? [`${process.platform}-${process.arch}`]) {
      const { directory, bytes, files, compiled } = await prebuild(platform, { again: values.again });
      const origin = compiled ? '' : ', compiled earlier from the same sources';
      process.stdout.write(`${directory}: ${files} files, ${megabytes(bytes)}${origin}\n`);
    }
  });
}
