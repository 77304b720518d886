// `npm run update:llama -- v0.6.0 [--commit SHA] [--npm node-llama-cpp@X.Y.Z] [--no-tests]`: moves the llama.cpp pin in one step: the
// submodule's commit, the npm package that carries the same tree, the tree's hash. Fetches the tree, compiles, and runs the tests.
//
// The package's bundle has a commit of its own, so the tag's commit comes from upstream, or from --commit where upstream cannot be reached;
// the tree must call itself by the tag's version. Without --npm, the newest node-llama-cpp is taken.

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { step } from '../bin/lib/progress.mjs';
import { isMain, mustRun, npm, quoteTail, root, run, runMain } from '../bin/lib/run.mjs';

const pinFile = join(root, 'scripts', 'llama-pin.json');

/**
 * What the npm package's bundle holds.
 * @param {string} npmPackage
 * @param {string} bundlePath
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
 * A tag of builds (b6789) says nothing of the version that the tree calls itself by.
 * @param {string} tag @param {string} npmPackage @param {string} found
 */
export function requireVersion(tag, npmPackage, found) {
  if (tag.startsWith('v') && found !== tag) {
    throw new Error(`${npmPackage} carries llama.cpp ${found}, not ${tag}: name another package with --npm.`);
  }
}

/** @param {string} wanted a package name, with or without its version */
async function exactVersion(wanted) {
  if (/^[^@]+@\d+\.\d+\.\d+/.test(wanted)) return wanted;
  const view = await npm(['view', wanted, 'version']);
  if (view.code !== 0) throw new Error(`\`npm view ${wanted}\` failed${quoteTail(view.output)}`);
  return `${wanted.split('@')[0]}@${view.stdout.trim()}`;
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
      `${upstream} does not tell the commit of ${tag}: name it with --commit SHA${quoteTail(listed.output, 2)}`,
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
  const found = await step(`bundle of ${npmPackage}`, {}, () => readBundle(npmPackage, before.npmBundle));
  requireVersion(version, npmPackage, found.version);
  const commit = values.commit ?? (await upstreamCommit(before.upstream, version));
  if (!/^[0-9a-f]{40}$/.test(commit)) throw new Error(`Expected --commit to be a commit's 40 digits, got "${commit}".`);
  const after = { ...before, version, commit, tree: found.tree, npmPackage };
  await writeFile(pinFile, `${JSON.stringify(after, null, 2)}\n`);
  await rewrite('CMakeLists.txt', before.version, version);
  await mustRun('git', ['update-index', '--add', '--cacheinfo', `160000,${commit},vendor/llama.cpp`]);
  process.stderr.write(`${before.version} (${before.commit}) -> ${version} (${commit})\n`);
  // In a process of its own: vendor.mjs has read the old pin when it was loaded.
  await mustRun(process.execPath, ['scripts/vendor.mjs'], { inherit: true });
  if (values['no-tests']) return;
  for (const script of ['check', 'test']) {
    const { code } = await run(process.platform === 'win32' ? 'npm.cmd' : 'npm', ['run', script], { inherit: true });
    if (code !== 0)
      throw new Error(`The pin is moved, but \`npm run ${script}\` fails. \`git diff\` shows the pin's files.`);
  }
}

/** The version that binaries tell, in CMakeLists.txt. @param {string} file @param {string} from @param {string} to */
async function rewrite(file, from, to) {
  const path = join(root, file);
  const text = await readFile(path, 'utf8');
  if (!text.includes(`"${from}"`)) throw new Error(`Expected ${file} to name "${from}".`);
  await writeFile(path, text.replaceAll(`"${from}"`, `"${to}"`));
}

if (isMain(import.meta)) await runMain(main);
