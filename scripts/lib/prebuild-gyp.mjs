// prebuildify runs this program in place of node-gyp. The program compiles the portable addon for the platform in
// PREBUILD_PLATFORM and PREBUILD_ARCH, into build/Release of the current directory.

import { join } from 'node:path';
import { buildNative } from '../../bin/lib/build-native.mjs';
import { isMusl } from '../../bin/lib/libc.mjs';
import { step } from '../../bin/lib/progress.mjs';
import { runMain } from '../../bin/lib/run.mjs';
import { ensureZig, TARGETS, zigToolchain } from './zig.mjs';

await runMain(async () => {
  const platform = `${process.env.PREBUILD_PLATFORM}-${process.env.PREBUILD_ARCH}`;
  const cross =
    platform in TARGETS && !isMusl ? await toolchain(/** @type {keyof typeof TARGETS} */ (platform)) : undefined;
  if (!cross && platform !== `${process.platform}-${process.arch}`) {
    throw new Error(
      `Expected a machine with ${platform}, got ${process.platform}-${process.arch}. Binaries for ${platform} cannot be cross-compiled.`,
    );
  }
  const isMac = process.platform === 'darwin';
  await step(`addon for ${platform}`, {}, (progress) =>
    buildNative({
      portable: true,
      ...(cross && { cross }),
      // Every Mac supports Metal. The deployment target is the oldest supported macOS.
      ...(isMac && {
        accelerator: /** @type {const} */ ('metal'),
        definitions: ['CMAKE_OSX_DEPLOYMENT_TARGET=13.3'],
      }),
      output: join(process.cwd(), 'build', 'Release'),
      onProgress: (state) => progress.update(state),
    }),
  );
});

/** @param {keyof typeof TARGETS} platform */
async function toolchain(platform) {
  const zig = await step('zig', { quiet: true }, (progress) => ensureZig((state) => progress.update(state)));
  return zigToolchain(zig, platform);
}
