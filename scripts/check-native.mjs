// `npm run check:native`: runs clang-tidy on the C++ sources in native/ that differ from main, and on the sources that
// include a changed header. With `-- --all`, checks all sources in native/. clang-tidy needs the compile_commands.json
// of a build.

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { isMain, mustRun, root, run, runMain } from '../bin/lib/run.mjs';
import { affectedSources, includedHeaders } from './lib/affected-sources.mjs';
import { ensureClang, nativeSources } from './lib/clang.mjs';

const BUILD_DIRECTORY = join(root, '.build', 'release');

/** @returns {Promise<Set<string>>} the sources that the newest build has compiled, relative to the repository's root */
async function compiledSources() {
  const database = join(BUILD_DIRECTORY, 'compile_commands.json');
  if (!existsSync(database))
    throw new Error(
      `Expected the compile commands of a build at ${database}, found no file. Run \`npm run build:native\` first.`,
    );
  /** @type {{ file: string }[]} */
  const commands = JSON.parse(await readFile(database, 'utf8'));
  return new Set(commands.map(({ file }) => file.slice(root.length + 1)));
}

/** Returns the files in native/ that differ from the merge base with main, including files that are not committed. */
async function changedFiles() {
  const { stdout: base } = await mustRun('git', ['merge-base', 'HEAD', await mainBranch()]);
  const { stdout: changed } = await mustRun('git', [
    'diff',
    '--name-only',
    '--diff-filter=d',
    base.trim(),
    '--',
    'native',
  ]);
  const { stdout: added } = await mustRun('git', ['ls-files', '--others', '--exclude-standard', '--', 'native']);
  return `${changed}${added}`.split('\n').filter(Boolean);
}

/** Returns `main`, or `origin/main` if the clone has no local branch `main`. */
async function mainBranch() {
  for (const name of ['main', 'origin/main']) {
    if ((await run('git', ['rev-parse', '--verify', '--quiet', name])).code === 0) return name;
  }
  throw new Error(
    'Expected a branch main or origin/main to compare with, found neither. To check all sources, pass `-- --all`.',
  );
}

/** @param {boolean} all @returns {Promise<string[]>} the sources to check */
async function sourcesToCheck(all) {
  const changed = all ? [] : await changedFiles();
  const files = (await nativeSources()).filter((file) => file.startsWith('native/'));
  const includes = new Map(
    await Promise.all(
      [...new Set([...files, ...changed])].map(
        async (file) =>
          /** @type {const} */ ([
            file,
            includedHeaders(await readFile(join(root, file), 'utf8')).map((name) => `native/${name}`),
          ]),
      ),
    ),
  );
  return all ? files.filter((file) => file.endsWith('.cpp')) : affectedSources(changed, includes);
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const { values } = parseArgs({ options: { all: { type: 'boolean', default: false } } });
    const compiled = await compiledSources();
    const sources = await sourcesToCheck(values.all);
    const missing = sources.filter((source) => !compiled.has(source));
    if (missing.length > 0)
      throw new Error(`The newest build did not compile ${missing.join(', ')}. Run \`npm run build:native\` first.`);
    const clangTidy = await ensureClang('clang-tidy');
    const waiting = [...sources];
    /** @type {string[]} */
    const failed = [];
    const work = async () => {
      for (let source = waiting.shift(); source !== undefined; source = waiting.shift()) {
        const { code, stdout, output } = await run(clangTidy, ['-p', BUILD_DIRECTORY, '--quiet', source]);
        if (code === 0) continue;
        failed.push(basename(source));
        process.stderr.write(`\n── ${source}\n${stdout || output}`);
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, work));
    if (failed.length > 0) throw new Error(`clang-tidy found problems in ${failed.sort().join(', ')}`);
    process.stderr.write(`✓ ${sources.length} C++ sources checked${values.all ? '' : ' (`-- --all` checks all)'}\n`);
  });
}
