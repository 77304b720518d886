import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const lib = (file: string) => fileURLToPath(new URL(`lib/${file}`, import.meta.url));

export default defineConfig({
  resolve: {
    // Tests, like examples, may import the package by its name and get the sources.
    alias: [
      { find: /^llama-headstart$/, replacement: lib('index.ts') },
      { find: /^llama-headstart\/native$/, replacement: lib('native/index.ts') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    // What is published has a run of its own: npm run test:package.
    exclude: ['test/package/**'],
    // A process a file: an addon that crashes takes one file with it, and worker threads are tested on purpose only.
    pool: 'forks',
    // Generous, because a loaded two-core machine is normal; no test waits on a clock.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
