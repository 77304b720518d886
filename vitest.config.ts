import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const lib = (file: string) => fileURLToPath(new URL(`lib/${file}`, import.meta.url));

/** Tests import the package by its name, as users do. These aliases resolve the name to the sources. */
export const sources = [
  { find: /^llama-headstart$/, replacement: lib('index.ts') },
  { find: /^llama-headstart\/native$/, replacement: lib('native/index.ts') },
  { find: /^llama-headstart\/internal$/, replacement: lib('internal.ts') },
];

/** Micro models compute on one thread. By default Vitest leaves one core unused, which can be half of a machine. */
const ONE_PER_CORE = { maxWorkers: '100%', sequence: { groupOrder: 0 } };

/**
 * Tests of real models, the demo, the examples and the benchmarks compute on all cores. They run one after another,
 * because a test becomes many times slower while another busy process uses the cores.
 */
const ALONE = { maxWorkers: 1, sequence: { groupOrder: 1 } };

/**
 * Makes one project per kind of test, so that a kind can run alone: `npm test -- --project unit`. Each test file that
 * uses the addon runs in its own process. A crash then ends only one file, and two files never share a thread by
 * accident.
 */
const project = (name: string, folders: string[], options: object) => ({
  extends: true as const,
  test: { name, ...options, include: folders.map((folder) => `test/${folder}/**/*.test.ts`) },
});

export default defineConfig({
  resolve: { alias: sources },
  test: {
    // The tests of the published package run separately: `npm run test:package`.
    projects: [
      project('unit', ['unit'], { ...ONE_PER_CORE, isolate: false }),
      project('micro', ['native', 'integration', 'soak'], ONE_PER_CORE),
      project('repo', ['repo'], ALONE),
      project('model', ['model'], ALONE),
    ],
    pool: 'forks',
    // Vitest keeps compiled modules in node_modules, so that a run compiles only changed files. This saves time,
    // because almost every test file imports all of lib.
    experimental: { fsModuleCache: true },
    // These limits are long, because tests often run on a busy machine with two cores. No test waits for a clock.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
