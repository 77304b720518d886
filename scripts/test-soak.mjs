// `npm run test:soak [-- vitest arguments]`: the fault tests of test/soak with their full counts: several minutes. The last line
// says what was tried and how many went wrong.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isMain, root, run, runMain } from './lib/run.mjs';
import { setup } from './setup.mjs';

async function main() {
  const { microModels } = await setup({ microModels: true, quiet: true });
  const directory = await mkdtemp(join(tmpdir(), 'headstart-soak-'));
  const report = join(directory, 'report.jsonl');
  try {
    const { code } = await run(
      process.execPath,
      ['node_modules/vitest/vitest.mjs', 'run', 'test/soak', '--testTimeout=1800000', ...process.argv.slice(2)],
      {
        cwd: root,
        inherit: true,
        env: {
          LLAMA_HEADSTART_MICRO_MODELS: microModels ?? '',
          LLAMA_HEADSTART_TEST_MODEL: '',
          LLAMA_HEADSTART_SOAK: '1',
          LLAMA_HEADSTART_SOAK_REPORT: report,
        },
      },
    );
    process.stdout.write(`${summary(await readFile(report, 'utf8').catch(() => ''))}\n`);
    process.exitCode = code;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** @param {string} lines one JSON object each */
function summary(lines) {
  const tallies = lines
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
  const tried = tallies.map(({ what, tried }) => `${tried.toLocaleString('en')} ${what}`).join(', ');
  const wrong = tallies.reduce((sum, tally) => sum + tally.wrong, 0);
  return tallies.length === 0 ? 'soak: nothing was tried' : `soak: ${tried}: ${wrong} went wrong`;
}

if (isMain(import.meta)) {
  await runMain(main);
}
