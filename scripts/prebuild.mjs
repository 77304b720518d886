// `npm run build:prebuilt [-- --platform linux-arm64] [--again]`: makes the binaries that the package carries, in
// prebuilds/<platform>, where node-gyp-build finds them. prebuildify lays them out; scripts/lib/prebuild-gyp.mjs compiles.
//
// Linux binaries for glibc 2.28 and later are made on any Linux, by zig, and kept in the user's cache: the same sources are
// not compiled twice, in another clone neither, unless --again says so. Those of other systems are made on such a system.

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
 * @param {{ again?: boolean }} [options] again: compile, whatever was made earlier
 * @returns {Promise<{ directory: string, bytes: number, files: number, compiled: boolean }>} compiled: now, and not earlier
 */
export async function prebuild(platform, { again = false } = {}) {
  await ensureDependencies({ quiet: true });
  const directory = join(root, 'prebuilds', platform);
  let compiled = false;
  if (platform in TARGETS && !isMusl) {
    const name = await keptName(platform);
    if (again) await rm(join(toolsDirectory(), name), { recursive: true, force: true });
    // zig and its headers are the same everywhere, so what it made anywhere will do.
    await ensureTool(name, (empty) => {
      compiled = true;
      return compileInto(platform, empty);
    });
    await removeOlder(platform, name);
    await place(name, directory);
  } else {
    await compile(platform);
    compiled = true;
  }
  return { ...(await measure(directory)), compiled };
}

/**
 * Whether a platform's binaries were made earlier from the same sources, in whichever clone: then `prebuild` compiles nothing.
 * @param {string} platform
 */
export const isMade = async (platform) => existsSync(join(toolsDirectory(), await keptName(platform)));

/** Takes a platform's binaries out of prebuilds/, whatever they were made from: what lies there is packed. @param {string} platform */
export const leaveOut = (platform) => removeLibc(join(root, 'prebuilds', platform));

/** Of the folder in the user's cache. @param {string} platform */
const keptName = async (platform) => `prebuilt-${platform}-${await prebuildInputs(platform)}`;

/** @param {string} name of the folder in the user's cache @param {string} directory prebuilds/<platform> */
async function place(name, directory) {
  await removeLibc(directory);
  await cp(join(toolsDirectory(), name), directory, { recursive: true });
}

/** @param {string} platform @param {string} empty a folder that receives the binaries */
async function compileInto(platform, empty) {
  const directory = await compile(platform);
  const names = (await readdir(directory)).filter((name) => !isForMusl(name));
  for (const name of names) await cp(join(directory, name), join(empty, name));
}

/** The binaries of other inputs, which nobody comes back to. @param {string} platform @param {string} kept */
async function removeOlder(platform, kept) {
  const names = (await readdir(toolsDirectory())).filter((name) => name.startsWith(`prebuilt-${platform}-`));
  for (const name of names.filter((each) => each !== kept))
    await rm(join(toolsDirectory(), name), { recursive: true, force: true });
}

/** @param {string} platform @returns {Promise<string>} prebuilds/<platform> */
async function compile(platform) {
  const [os, arch] = platform.split('-');
  await step(`llama.cpp ${pin.version}`, { quiet: true }, (progress) =>
    ensureVendor({ onProgress: (detail) => progress.update({ detail }) }),
  );
  // prebuildify takes what it finds in build/Release, which in the checkout is the developer's own build.
  const stage = join(root, '.build', `prebuild-${platform}`);
  await makeDirectory(stage);
  await rm(join(stage, 'build'), { recursive: true, force: true });
  const directory = join(root, 'prebuilds', platform);
  if (os !== 'linux') await rm(directory, { recursive: true, force: true });
  else await removeLibc(directory);
  const shim = join(root, 'scripts', 'lib', 'prebuild-gyp.mjs');
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
    prebuildify({ ...options, platform: os, nodeGyp: `"${process.execPath}" "${shim}"`, shell: true }, done);
  });
  return directory;
}

const isForMusl = (/** @type {string} */ name) => /\bmusl\b/.test(name);

/** Both libcs of a platform share a folder. @param {string} directory */
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
      const how = compiled ? '' : ', compiled earlier from the same sources';
      process.stdout.write(`${directory}: ${files} files, ${megabytes(bytes)}${how}\n`);
    }
  });
}
