import { defineConfig } from 'vitest/config';

/** `npm run test:package`: tests of what is published, which install it. Of the sources they take names alone. */
export default defineConfig({
  test: {
    include: ['test/package/**/*.test.ts'],
    pool: 'forks',
    // One after another: each installs, compiles or measures with all cores.
    fileParallelism: false,
    testTimeout: 1_800_000,
    hookTimeout: 600_000,
  },
});
