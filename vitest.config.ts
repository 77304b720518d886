import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const lib = (file: string) => fileURLToPath(new URL(`lib/${file}`, import.meta.url));

/** Tests import the package by its name, as users do, and get the sources. */
export const sources = [
  { find: /^llama-headstart$/, replacement: lib('index.ts') },
  { find: /^llama-headstart\/native$/, replacement: lib('native/index.ts') },
  { find: /^llama-headstart\/internal$/, replacement: lib('internal.ts') },
];

/** Micro models compute on one thread. By default Vitest leaves one core free, which is half of a small machine. */
const ONE_PER_CORE = { maxWorkers: '100%', sequence: { groupOrder: 0 } };

/** Real models, demo, examples and benchmarks compute on all cores. Beside another busy process they are many times slower. */
const ALONE = { maxWorkers: 1, sequence: { groupOrder: 1 } };

/**
 * One project per kind of test, by what it needs: `npm test -- --project unit`. Tests that use the addon run in one
 * process per file: a crash takes down only that file, and no test shares a thread with another by accident.
 */
const project = (name: string, folders: string[], options: object) => ({
  extends: true as const,
  test: { name, ...options, include: folders.map((folder) => `test/${folder}/**/*.test.ts`) },
});

export default defineConfig({
  resolve: { alias: sources },
  test: {
    // The published package has a run of its own: `npm run test:package`.
    projects: [
      project('unit', ['unit'], { ...ONE_PER_CORE, isolate: false }),
      project('micro', ['native', 'integration', 'soak'], ONE_PER_CORE),
      project('repo', ['repo'], ALONE),
      project('model', ['model'], ALONE),
    ],
    pool: 'forks',
    // Almost every test file imports all of lib. Compiled modules stay in node_modules, so that a run compiles only changed files.
    experimental: { fsModuleCache: true },
    // Generous, because a loaded two-core machine is normal. No test waits for a clock.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
