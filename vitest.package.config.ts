import { defineConfig } from 'vitest/config';
import { sources } from './vitest.config.js';

/** `npm run test:package` runs these tests. They install the published package, and import only names from the sources. */
export default defineConfig({
  resolve: { alias: sources },
  test: {
    include: ['test/package/**/*.test.ts'],
    pool: 'forks',
    // The files run one after another, because each installs, compiles or measures with all cores.
    fileParallelism: false,
    testTimeout: 1_800_000,
    hookTimeout: 600_000,
  },
});
