// `npm run test:soak [-- vitest arguments]`: runs the fault tests of test/soak, and all other tests that `npm test`
// shortens, with their full counts and all their variants. This takes about half an hour. With files among the
// arguments, runs only these files. The last line has the number of tries and the number of failures.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMain, root, runMain } from '../bin/lib/run.mjs';
import { runWithTallies, sumOf } from './lib/tallies.mjs';
import { setup } from './setup.mjs';

async function main() {
  const { microModels } = await setup({ microModels: true, quiet: true });
  const given = process.argv.slice(2);
  const files = given.some((argument) => argument.startsWith('test/')) ? [] : longTests();
  const args = [...files, '--testTimeout=1800000', ...given];
  const { code, tallies } = await runWithTallies(args, {
    LLAMA_HEADSTART_MICRO_MODELS: microModels ?? '',
    LLAMA_HEADSTART_TEST_MODEL: '',
    LLAMA_HEADSTART_SOAK: '1',
  });
  process.stdout.write(`${summary(tallies)}\n`);
  process.exitCode = code;
}

/** Returns the test files that have a longer form: those that import test/helpers/soak.ts. */
function longTests() {
  return readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => join('test', name))
    .filter((name) => readFileSync(join(root, name), 'utf8').includes("from '../helpers/soak.js'"));
}

/** @param {import('./lib/tallies.mjs').Tally[]} tallies */
function summary(tallies) {
  const tried = tallies.map(({ what, tried }) => `${tried.toLocaleString('en')} ${what}`).join(', ');
  return tallies.length === 0 ? 'soak: nothing was tried' : `soak: ${tried}: ${sumOf(tallies, 'wrong')} went wrong`;
}

if (isMain(import.meta)) {
  await runMain(main);
}
