// `npm run test:package [-- vitest arguments]`: packs the package, installs the tarball where nothing of ours is, and uses it there.
// Prints what was installed, where, and the sizes. Each test says what it skips, and why. `--prebuilt` takes prebuilds/ as it is.

import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { megabytes, step } from './lib/progress.mjs';
import { isMain, npm, quoteTail, root, run, runMain } from './lib/run.mjs';
import { measure, placeEarlier, prebuild } from './prebuild.mjs';
import { setup } from './setup.mjs';

/**
 * @param {string} directory
 * @returns {Promise<{ path: string, bytes: number, unpackedBytes: number, files: { path: string, size: number }[] }>}
 */
export async function pack(directory) {
  const result = await npm(['pack', '--json', '--ignore-scripts', '--pack-destination', directory]);
  if (result.code !== 0) throw new Error(`\`npm pack\` failed (${result.code})${quoteTail(result.output)}`);
  const [{ filename, unpackedSize, files }] = JSON.parse(result.stdout);
  const path = join(directory, filename);
  return { path, bytes: (await stat(path)).size, unpackedBytes: unpackedSize, files };
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const { model, microModels } = await setup({ model: true, microModels: true, quiet: true });
    const platform = `${process.platform}-${process.arch}`;
    const given = process.argv.slice(2);
    const prebuilt = given.includes('--prebuilt')
      ? { ...(await measure(join(root, 'prebuilds', platform))), compiled: false }
      : await prebuild(platform);
    // The arm64 binaries are tested too, where somebody has made them.
    if (!given.includes('--prebuilt') && platform === 'linux-x64') await placeEarlier('linux-arm64');
    const directory = await mkdtemp(join(tmpdir(), 'llama-headstart-package-'));
    try {
      const tarball = await step(
        'npm pack',
        {},
        () => pack(directory),
        ({ bytes }) => megabytes(bytes),
      );
      const listing = join(directory, 'tarball.json');
      const report = join(directory, 'report.txt');
      await writeFile(listing, JSON.stringify(tarball));
      await writeFile(report, '');
      await mkdir(join(root, '.build'), { recursive: true });
      const args = ['node_modules/vitest/vitest.mjs', 'run', '--config', 'vitest.package.config.ts'];
      const { code } = await run(
        process.execPath,
        [...args, ...given.filter((argument) => argument !== '--prebuilt')],
        {
          inherit: true,
          env: {
            LLAMA_HEADSTART_TARBALL: listing,
            LLAMA_HEADSTART_PACKAGE_REPORT: report,
            LLAMA_HEADSTART_TEST_MODEL: model?.path ?? '',
            LLAMA_HEADSTART_MICRO_MODELS: microModels ?? '',
          },
        },
      );
      process.stdout.write(
        `\nTarball: ${megabytes(tarball.bytes)}, unpacked ${megabytes(tarball.unpackedBytes)}, ${tarball.files.length} files\n` +
          `Prebuilt for ${platform}: ${prebuilt.files} files, ${megabytes(prebuilt.bytes)}, compiled ${prebuilt.compiled ? 'now' : 'earlier'}\n${await readFile(report, 'utf8')}`,
      );
      process.exitCode = code;
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
}
