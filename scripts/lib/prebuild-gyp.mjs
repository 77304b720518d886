// What prebuildify runs as node-gyp: compiles the portable shape for the platform it asks for, into build/Release below the
// current directory.

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
      `Expected ${platform} to be built on such a machine: this one is ${process.platform}-${process.arch}.`,
    );
  }
  const isMac = process.platform === 'darwin';
  await step(`addon for ${platform}`, {}, (progress) =>
    buildNative({
      portable: true,
      ...(cross && { cross }),
      // What every Mac with that processor has.
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
