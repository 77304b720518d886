// Runs vitest and collects the counts that tests report through test/helpers/soak.ts: the number of tries and the
// number of failures.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, run } from '../../bin/lib/run.mjs';

/**
 * @typedef {object} Tally
 * @property {string} what a noun in the plural: "kills during a save"
 * @property {number} tried
 * @property {number} wrong
 */

/**
 * @param {string[]} args arguments of `vitest run`
 * @param {NodeJS.ProcessEnv} env additional environment variables for the tests
 * @returns {Promise<{ code: number, tallies: Tally[] }>}
 */
export async function runWithTallies(args, env) {
  const directory = await mkdtemp(join(tmpdir(), 'headstart-tallies-'));
  const report = join(directory, 'report.jsonl');
  try {
    const { code } = await run(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...args], {
      cwd: root,
      inherit: true,
      env: { ...env, LLAMA_HEADSTART_SOAK_REPORT: report },
    });
    const lines = (await readFile(report, 'utf8').catch(() => '')).split('\n').filter((line) => line !== '');
    return { code, tallies: lines.map((line) => JSON.parse(line)) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Returns the sum of one count over all tallies. @param {readonly Tally[]} tallies @param {'tried' | 'wrong'} name */
export const sumOf = (tallies, name) => tallies.reduce((sum, tally) => sum + tally[name], 0);
