// Prepares a fresh clone: npm packages, llama.cpp, the addon, dist and the models. Each step first checks whether it is
// needed, so a second run takes less than two seconds.
//
// This file must not import from node_modules or dist at its top, because neither exists in a fresh clone.

import { createHash } from 'node:crypto';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { megabytes, step } from '../bin/lib/progress.mjs';
import { isMain, npm, quoteTail, root, run, runMain } from '../bin/lib/run.mjs';

const MINIMUM_NODE = [20, 19];

/**
 * @typedef {object} SetupOptions
 * @property {boolean} [model] download SmolLM2
 * @property {boolean} [microModels] generate the micro models
 * @property {boolean} [quiet] print nothing about steps that take less than a second
 *
 * @typedef {object} SetupResult
 * @property {{ path: string, name: string, source: string } | null} model null if not requested or if no source could
 *   be reached
 * @property {string | null} microModels the directory of the micro models; null if not requested
 */

/**
 * @param {SetupOptions} [options]
 * @returns {Promise<SetupResult>}
 */
export async function setup({ model = false, microModels = false, quiet = false } = {}) {
  await ensureDependencies({ quiet });

  const { ensureVendor, pin } = await import('./vendor.mjs');
  await step(`llama.cpp ${pin.version}`, { quiet }, (progress) =>
    ensureVendor({ onProgress: (detail) => progress.update({ detail }) }),
  );

  const { buildNative } = await import('../bin/lib/build-native.mjs');
  await step('native addon', { quiet }, (progress) => buildNative({ onProgress: (state) => progress.update(state) }));
  await step('TypeScript', { quiet }, buildTypeScript);

  return {
    model: model ? await ensureModel(quiet) : null,
    microModels: microModels ? await ensureMicroModels(quiet) : null,
  };
}

/**
 * Checks the version of Node.js, and runs `npm ci` if node_modules is missing or belongs to another lockfile.
 * @param {{ quiet?: boolean }} [options]
 */
export async function ensureDependencies({ quiet = false } = {}) {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const [minimumMajor = 0, minimumMinor = 0] = MINIMUM_NODE;
  if (major < minimumMajor || (major === minimumMajor && minor < minimumMinor)) {
    throw new Error(
      `Expected Node.js ${MINIMUM_NODE.join('.')} or newer, got ${process.versions.node}. Install a newer version.`,
    );
  }

  await step('npm packages', { quiet }, async () => {
    const lockfile = join(root, 'package-lock.json');
    const stampFile = join(root, 'node_modules', '.llama-headstart-lock');
    const wanted = createHash('sha256')
      .update(await readFile(lockfile))
      .digest('hex');
    if ((await readFile(stampFile, 'utf8').catch(() => '')) === wanted) return;

    // If the user has already run `npm ci` or `npm install`, npm's record of the installed packages is newer than the
    // lockfile.
    const [installed, locked] = await Promise.all([
      modifiedAt(join(root, 'node_modules', '.package-lock.json')),
      modifiedAt(lockfile),
    ]);
    if (installed < locked) {
      const result = await npm(['ci', '--include=dev', '--loglevel=error']);
      if (result.code !== 0) throw new Error(`\`npm ci\` failed (${result.code})${quoteTail(result.output, 20)}`);
    }
    await writeFile(stampFile, wanted);
  });
}

/** The folders with a lib/ that is compiled to dist/. A package uses the declarations of the folders before it. */
const COMPILED = ['.', 'packages/ai-sdk'];

/** Compiles each lib/ only if a source or a tsconfig file is newer than a compiled file, because tsc takes seconds. */
async function buildTypeScript() {
  for (const folder of COMPILED) {
    if (await isCompiled(join(root, folder))) continue;
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    const result = await run(process.execPath, [tsc, '-p', join(folder, 'tsconfig.build.json')]);
    if (result.code !== 0) throw new Error(`\`npm run build\` failed (${result.code})${quoteTail(result.output, 30)}`);
  }
}

/** @param {string} folder */
async function isCompiled(folder) {
  const sources = (await readdir(join(folder, 'lib'), { recursive: true })).filter((name) => name.endsWith('.ts'));
  const configured = await newest([join(root, 'tsconfig.json'), join(folder, 'tsconfig.build.json')]);
  const fresh = await Promise.all(
    sources.map(async (name) => {
      const compiled = await modifiedAt(join(folder, 'dist', name.replace(/\.ts$/, '.js')));
      return compiled > Math.max(configured, await modifiedAt(join(folder, 'lib', name)));
    }),
  );
  return fresh.every(Boolean);
}

/** @param {boolean} quiet */
async function ensureModel(quiet) {
  const { fetchSmolLM2 } = await import('./fetch-model.mjs');
  return step(
    'SmolLM2-135M-Instruct',
    { quiet },
    (progress) =>
      fetchSmolLM2({
        log: (line) => progress.note(line),
        onProgress: (bytes, total) =>
          progress.update({ fraction: bytes / total, detail: `${megabytes(bytes)} of ${megabytes(total)}` }),
      }),
    (fetched) => fetched?.source ?? 'could not be downloaded, continuing without it',
  );
}

/** @param {boolean} quiet */
async function ensureMicroModels(quiet) {
  const { modelsDirectory } = await import('./fetch-model.mjs');
  const { generateMicroModels } = await import('../test/fixtures/micro-models/models.mjs');
  const directory = join(modelsDirectory(), 'micro');
  await step('micro models', { quiet }, () => generateMicroModels(directory));
  return directory;
}

/** Returns the modification time in milliseconds, or 0 if the file does not exist. @param {string} path */
const modifiedAt = (path) =>
  stat(path).then(
    (entry) => entry.mtimeMs,
    () => 0,
  );

/** @param {string[]} paths */
const newest = async (paths) => Math.max(...(await Promise.all(paths.map(modifiedAt))));

if (isMain(import.meta)) {
  await runMain(async () => {
    const { values } = parseArgs({ options: { 'no-models': { type: 'boolean' } } });
    const models = values['no-models'] !== true;
    await setup({ model: models, microModels: models });
  });
}
