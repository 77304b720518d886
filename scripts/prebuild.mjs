// `npm run build:prebuilt [-- --platform linux-arm64]`: makes the binaries that the package carries, in
// prebuilds/<platform>, where node-gyp-build finds them. prebuildify lays them out; scripts/lib/prebuild-gyp.mjs compiles.
//
// Linux binaries for glibc 2.28 and later are made on any Linux, by zig; those of other systems on such a system.

import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { megabytes, step } from './lib/progress.mjs';
import { isMain, root, runMain } from './lib/run.mjs';
import { ensureDependencies } from './setup.mjs';
import { ensureVendor, pin } from './vendor.mjs';

const libc = existsSync('/etc/alpine-release') ? 'musl' : 'glibc';

/**
 * @param {string} platform "linux-x64"
 * @returns {Promise<{ directory: string, bytes: number, files: number }>}
 */
export async function prebuild(platform) {
  const [os, arch] = platform.split('-');
  await ensureDependencies({ quiet: true });
  await step(`llama.cpp ${pin.version}`, { quiet: true }, (progress) =>
    ensureVendor({ onProgress: (detail) => progress.update({ detail }) }),
  );
  // prebuildify takes what it finds in build/Release, which in the checkout is the developer's own build.
  const stage = join(root, '.build', `prebuild-${platform}`);
  await mkdir(stage, { recursive: true });
  await rm(join(stage, 'build'), { recursive: true, force: true });
  const directory = join(root, 'prebuilds', platform);
  if (os !== 'linux') await rm(directory, { recursive: true, force: true });
  else await removeLibc(directory);
  const shim = join(root, 'scripts', 'lib', 'prebuild-gyp.mjs');
  const options = { cwd: stage, out: root, name: 'llama-headstart', napi: true, tagLibc: os === 'linux', arch, libc };
  const prebuildify = createRequire(import.meta.url)('prebuildify');
  await new Promise((resolve, reject) => {
    const done = (/** @type {Error | null} */ error) => (error ? reject(error) : resolve(undefined));
    prebuildify({ ...options, platform: os, nodeGyp: `"${process.execPath}" "${shim}"`, shell: true }, done);
  });
  return measure(directory);
}

/** Both libcs of a platform share a folder. @param {string} directory */
async function removeLibc(directory) {
  const isMusl = (/** @type {string} */ name) => /\bmusl\b/.test(name);
  const names = await readdir(directory).catch(() => []);
  for (const name of names) if (isMusl(name) === (libc === 'musl')) await rm(join(directory, name));
}

/** @param {string} directory */
export async function measure(directory) {
  const sizes = await Promise.all((await readdir(directory)).map((name) => stat(join(directory, name))));
  return { directory, files: sizes.length, bytes: sizes.reduce((sum, { size }) => sum + size, 0) };
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const { values } = parseArgs({ options: { platform: { type: 'string', multiple: true } } });
    for (const platform of values.platform ?? [`${process.platform}-${process.arch}`]) {
      const { directory, bytes, files } = await prebuild(platform);
      process.stdout.write(`${directory}: ${files} files, ${megabytes(bytes)}\n`);
    }
  });
}
