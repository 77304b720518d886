// `npm run test:package [-- --prebuilt] [-- --no-arm64] [-- vitest arguments]`: packs the package, installs the tarball
// in empty projects, and tests the installed package. Prints the installed files, the sizes, and the reason of each
// skipped test.
//
// On Linux x64 the package also contains binaries for arm64, which the tests run in an emulator. All clones share these
// binaries, so they are compiled only once. `--no-arm64` packs and tests the package without binaries for arm64.
// `--prebuilt` compiles nothing and uses the binaries that are already in prebuilds/.

import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isMusl } from '../bin/lib/libc.mjs';
import { makeDirectory } from '../bin/lib/make-directory.mjs';
import { megabytes, step } from '../bin/lib/progress.mjs';
import { isMain, npm, quoteTail, root, run, runMain } from '../bin/lib/run.mjs';
import { isCached, measure, prebuild, removePrebuilt } from './prebuild.mjs';
import { setup } from './setup.mjs';

const OWN_PLATFORM = `${process.platform}-${process.arch}`;
const EMULATED_PLATFORM = 'linux-arm64';

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

/**
 * Ensures that prebuilds/ contains exactly the binaries to pack and test. If `compile` is false, changes nothing.
 * @param {{ compile: boolean, arm64: boolean }} options
 * @returns {Promise<string[]>} lines for the report
 */
async function ensurePrebuilds({ compile, arm64 }) {
  const line = async (/** @type {string} */ platform, /** @type {string} */ origin) => {
    const { files, bytes } = await measure(join(root, 'prebuilds', platform));
    return `Prebuilt for ${platform}: ${files} files, ${megabytes(bytes)}, ${origin}`;
  };
  if (!compile) return [await line(OWN_PLATFORM, 'not compiled (--prebuilt)')];

  const emulates = OWN_PLATFORM === 'linux-x64' && !isMusl;
  const platforms = [OWN_PLATFORM, ...(emulates && arm64 ? [EMULATED_PLATFORM] : [])];
  const lines = [];
  for (const platform of platforms) {
    if (platform === EMULATED_PLATFORM && !(await isCached(platform))) {
      process.stderr.write(
        `  Also compiling for ${platform}, which doubles the time. To skip this, pass \`-- --no-arm64\`.\n`,
      );
    }
    const { compiled } = await prebuild(platform);
    lines.push(await line(platform, `compiled ${compiled ? 'now' : 'earlier from the same sources'}`));
  }
  if (emulates && !arm64) {
    await removePrebuilt(EMULATED_PLATFORM);
    lines.push(`${EMULATED_PLATFORM}: SKIPPED, neither packed nor tested (--no-arm64)`);
  }
  return lines;
}

/**
 * Packs the package and runs the tests on the tarball.
 * @param {string[]} vitestArguments
 * @param {Awaited<ReturnType<typeof setup>>} models
 * @param {string[]} lines the first lines of the report. The tests add their lines after these.
 */
async function testPackage(vitestArguments, { model, microModels }, lines) {
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
    await makeDirectory(join(root, '.build'));
    const args = ['node_modules/vitest/vitest.mjs', 'run', '--config', 'vitest.package.config.ts', ...vitestArguments];
    const { code } = await run(process.execPath, args, {
      inherit: true,
      env: {
        LLAMA_HEADSTART_TARBALL: listing,
        LLAMA_HEADSTART_PACKAGE_REPORT: report,
        LLAMA_HEADSTART_TEST_MODEL: model?.path ?? '',
        LLAMA_HEADSTART_MICRO_MODELS: microModels ?? '',
      },
    });
    const { bytes, unpackedBytes, files } = tarball;
    const size = `Tarball: ${megabytes(bytes)}, unpacked ${megabytes(unpackedBytes)}, ${files.length} files`;
    process.stdout.write(`\n${[size, ...lines, await readFile(report, 'utf8')].join('\n')}`);
    process.exitCode = code;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const scriptOptions = ['--prebuilt', '--no-arm64'];
    const args = process.argv.slice(2);
    const vitestArguments = args.filter((argument) => !scriptOptions.includes(argument));
    const models = await setup({ model: true, microModels: true, quiet: true });
    const lines = await ensurePrebuilds({
      compile: !args.includes('--prebuilt'),
      arm64: !args.includes('--no-arm64'),
    });
    await testPackage(vitestArguments, models, lines);
  });
}
