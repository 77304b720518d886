// `npm run check`: runs all checks that need neither a compiler nor a model. The first run downloads the npm packages
// and a Python wheel with clang-format. The checks run in parallel. The output of a check appears when the check has
// ended.

import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { isMain, run, runMain } from '../bin/lib/run.mjs';
import { ensureClang, nativeSources } from './lib/clang.mjs';
import { ensureDependencies } from './setup.mjs';

/** @param {string} script @param {...string} args */
const node = (script, ...args) => run(process.execPath, [script, ...args]);

const REPOSITORY_TESTS = [
  'test/repo/layering.test.ts',
  'test/repo/options-reference.test.ts',
  'test/repo/cli-reference.test.ts',
  'test/repo/http-reference.test.ts',
];

/** tsc checks only what has changed since its last run. */
const REUSE = ['--incremental', '--tsBuildInfoFile', '.build/check.tsbuildinfo'];

/** The checks start in this order. The slowest check comes first. */
const CHECKS = [
  {
    title: 'public declarations (api-extractor; `npm run check -- --write` accepts the changes)',
    check: async () => comparePublicApi(),
  },
  {
    title: 'doc comments (typedoc: every public declaration and property has a comment)',
    check: () => node('node_modules/typedoc/bin/typedoc', '--emit', 'none', '--logLevel', 'Warn'),
  },
  { title: 'types (tsc)', check: () => node('node_modules/typescript/bin/tsc', '--noEmit', ...REUSE) },
  {
    title: 'layers, and the generated pages (vitest; `npm run docs` writes the pages)',
    check: () => node('node_modules/vitest/vitest.mjs', 'run', ...REPOSITORY_TESTS),
  },
  {
    title: 'lint and format (biome; `npm run format` fixes most problems)',
    check: () => node('node_modules/@biomejs/biome/bin/biome', 'check'),
  },
  {
    title: 'C++ format (clang-format; `npm run format` fixes it)',
    check: async () => {
      const files = await nativeSources();
      return run(await ensureClang('clang-format'), ['--dry-run', '--Werror', ...files]);
    },
  },
];

async function comparePublicApi() {
  const { compareReports } = await import('./lib/public-api.mjs');
  const stale = await compareReports({ write: false });
  const output = stale.map((name) => `${name} differs from the public declarations\n`).join('');
  return { code: stale.length, output };
}

/**
 * @param {(typeof CHECKS)[number]} check
 * @returns {Promise<string[]>} a list with the title of the check if it failed, else an empty list
 */
async function runCheck({ title, check }) {
  const begin = performance.now();
  const { code, output } = await check();
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  process.stderr.write(`\n── ${title}\n${output}${code === 0 ? `✓ passed (${seconds} s)` : `✗ failed (${code})`}\n`);
  return code === 0 ? [] : [title];
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const { values } = parseArgs({ options: { write: { type: 'boolean' } } });
    await ensureDependencies({ quiet: true });
    if (values.write) {
      const { compareReports } = await import('./lib/public-api.mjs');
      const written = await compareReports({ write: true });
      process.stderr.write(`Written: ${written.join(', ') || 'nothing, all reports were up to date'}\n`);
      return;
    }
    const waiting = [...CHECKS];
    /** @type {string[]} */
    const failed = [];
    const work = async () => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift())
        failed.push(...(await runCheck(next)));
    };
    await Promise.all(Array.from({ length: Math.max(1, Math.min(availableParallelism(), 4)) }, work));
    if (failed.length > 0) throw new Error(`${failed.length} of ${CHECKS.length} checks failed: ${failed.join('; ')}`);
  });
}
