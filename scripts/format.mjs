// `npm run format`: formats TypeScript and JavaScript with biome, and C++ with the pinned clang-format.

import { isMain, mustRun, runMain } from '../bin/lib/run.mjs';
import { ensureClang, nativeSources } from './lib/clang.mjs';
import { ensureDependencies } from './setup.mjs';

if (isMain(import.meta)) {
  await runMain(async () => {
    await ensureDependencies({ quiet: true });
    await mustRun(process.execPath, ['node_modules/@biomejs/biome/bin/biome', 'check', '--write', '.']);
    await mustRun(await ensureClang('clang-format'), ['-i', ...(await nativeSources())]);
  });
}
