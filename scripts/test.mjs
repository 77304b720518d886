// `npm test [-- vitest arguments]`: prepares this checkout, then runs the tests.

import { isMain, root, run, runMain } from '../bin/lib/run.mjs';
import { setup } from './setup.mjs';

if (isMain(import.meta)) {
  await runMain(async () => {
    const { model, microModels } = await setup({ model: true, microModels: true, quiet: true });
    if (!model) process.stderr.write('! SmolLM2 is not available. Tests that need a real model are skipped.\n');
    const result = await run(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...process.argv.slice(2)], {
      cwd: root,
      inherit: true,
      env: {
        LLAMA_HEADSTART_TEST_MODEL: model?.path ?? '',
        LLAMA_HEADSTART_MICRO_MODELS: microModels ?? '',
        LLAMA_HEADSTART_TEST_COMPILED: '1', // set-up has compiled lib: see vitest.config.ts
      },
    });
    process.exitCode = result.code;
  });
}
