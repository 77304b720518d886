import { defineConfig } from 'vitest/config';
import { sources } from './vitest.config.js';

/** `npm run test:package`: tests of the published package, which they install. From the sources they import only names. */
export default defineConfig({
  resolve: { alias: sources },
  test: {
    include: ['test/package/**/*.test.ts'],
    pool: 'forks',
    // One after another: each installs, compiles or measures with all cores.
    fileParallelism: false,
    testTimeout: 1_800_000,
    hookTimeout: 600_000,
  },
});
