// `npm run test:soak [-- vitest arguments]`: runs the fault tests of test/soak with their full counts, which takes
// several minutes. The last line has the number of tries and the number of failures.

import { isMain, runMain } from '../bin/lib/run.mjs';
import { runWithTallies, sumOf } from './lib/tallies.mjs';
import { setup } from './setup.mjs';

async function main() {
  const { microModels } = await setup({ microModels: true, quiet: true });
  const args = ['test/soak', '--testTimeout=1800000', ...process.argv.slice(2)];
  const { code, tallies } = await runWithTallies(args, {
    LLAMA_HEADSTART_MICRO_MODELS: microModels ?? '',
    LLAMA_HEADSTART_TEST_MODEL: '',
    LLAMA_HEADSTART_SOAK: '1',
  });
  process.stdout.write(`${summary(tallies)}\n`);
  process.exitCode = code;
}

/** @param {import('./lib/tallies.mjs').Tally[]} tallies */
function summary(tallies) {
  const tried = tallies.map(({ what, tried }) => `${tried.toLocaleString('en')} ${what}`).join(', ');
  return tallies.length === 0 ? 'soak: nothing was tried' : `soak: ${tried}: ${sumOf(tallies, 'wrong')} went wrong`;
}

if (isMain(import.meta)) {
  await runMain(main);
}
