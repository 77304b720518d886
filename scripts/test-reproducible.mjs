// `npm run test:reproducible -- FILE...`: 32 sessions at once in `reproducible` mode, on models of any size (without one:
// SmolLM2). `npm test` does the same on micro models.

import { resolve } from 'node:path';
import { isMain, root, run, runMain } from './lib/run.mjs';
import { setup } from './setup.mjs';

if (isMain(import.meta)) {
  await runMain(async () => {
    const files = process.argv.slice(2).map((file) => resolve(file));
    const { model, microModels } = await setup({ model: files.length === 0, microModels: true, quiet: true });
    const models = files.length > 0 ? files : model ? [model.path] : [];
    if (models.length === 0) throw new Error('No source of SmolLM2 could be reached: name a GGUF file');
    const result = await run(
      process.execPath,
      ['node_modules/vitest/vitest.mjs', 'run', 'test/integration/reproducible.test.ts', '--testTimeout', '3600000'],
      {
        cwd: root,
        inherit: true,
        env: {
          LLAMA_HEADSTART_REPRODUCIBLE_MODELS: models.join(','),
          LLAMA_HEADSTART_MICRO_MODELS: microModels ?? '',
        },
      },
    );
    process.exitCode = result.code;
  });
}
