// `npm run check`: what can be said about a change without compiling or running a model. Needs only `npm ci`.

import { isMain, run, runMain } from '../bin/lib/run.mjs';
import { ensureDependencies } from './setup.mjs';

const CHECKS = [
  { title: 'types (tsc)', script: 'typescript/bin/tsc', args: ['--noEmit'] },
  {
    title: 'lint and format (biome; `npm run format` mends most)',
    script: '@biomejs/biome/bin/biome',
    args: ['check'],
  },
  {
    title: 'doc comments (typedoc: every public declaration and property has one)',
    script: 'typedoc/bin/typedoc',
    args: ['--emit', 'none', '--logLevel', 'Warn'],
  },
  {
    title: 'layering; the reference page of options is what the schemas say (vitest; `npm run docs` writes it)',
    script: 'vitest/vitest.mjs',
    args: ['run', 'test/unit/layering.test.ts', 'test/unit/options-reference.test.ts'],
  },
];

if (isMain(import.meta)) {
  await runMain(async () => {
    await ensureDependencies({ quiet: true });
    const failed = [];
    for (const { title, script, args } of CHECKS) {
      process.stderr.write(`\n── ${title}\n`);
      const { code } = await run(process.execPath, [`node_modules/${script}`, ...args], { inherit: true });
      process.stderr.write(code === 0 ? '✓ passed\n' : `✗ failed (${code})\n`);
      if (code !== 0) failed.push(title);
    }
    if (failed.length > 0) throw new Error(`${failed.length} of ${CHECKS.length} checks failed: ${failed.join(', ')}`);
  });
}
