import { availableParallelism } from 'node:os';
import { posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer } from 'vitest/node';

/** Tests import the package by its name, as users do. An alias resolves each name to an entry point in this folder. */
const entryPoints = (folder: string, ending: string) =>
  ['index', 'native/index', 'server/index', 'internal'].map((file) => ({
    find: new RegExp(`^${posix.join('llama-headstart', file).replace(/\/?index$/, '')}$`),
    replacement: fileURLToPath(new URL(`${folder}/${file}.${ending}`, import.meta.url)),
  }));

/** Packages beside the core. Their sources import the core by its name. */
const packages = ['index', 'v3'].map((file) => ({
  find: new RegExp(`^${posix.join('@llama-headstart/ai-sdk', file).replace(/\/?index$/, '')}$`),
  replacement: fileURLToPath(new URL(`packages/ai-sdk/lib/${file}.ts`, import.meta.url)),
}));

export const sources = [...packages, ...entryPoints('lib', 'ts')];

/**
 * `npm test` compiles lib first, and then tests the compiled files. Node.js loads them in half the time that Vitest
 * needs to load the sources, and almost every test file imports all of lib.
 */
const compiled = [...packages, ...entryPoints('dist', 'js')];

/** Starts the programs on a real model first, because they take longest. Otherwise one core would idle at the end. */
class LongestFirst extends BaseSequencer {
  override async sort(files: Parameters<BaseSequencer['sort']>[0]) {
    const isLong = ({ project }: (typeof files)[number]) => project.name === 'model';
    const sorted = await super.sort(files);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

/**
 * Makes one project per kind of test, so that a kind can run alone: `npm test -- --project unit`. Each test file that
 * uses the addon runs in its own process. A crash then ends only one file, and two files never share a thread by
 * accident.
 */
const project = (name: string, folders: string[], options: object = {}) => ({
  extends: true as const,
  test: { name, ...options, include: folders.map((folder) => `test/${folder}/**/*.test.ts`) },
});

export default defineConfig({
  resolve: { alias: process.env.LLAMA_HEADSTART_TEST_COMPILED ? compiled : sources },
  test: {
    // The tests of the published package run separately: `npm run test:package`.
    projects: [
      project('unit', ['unit'], { isolate: false }),
      project('micro', ['native', 'integration', 'soak']),
      project('repo', ['repo']),
      project('model', ['model']),
    ],
    pool: 'forks',
    // All tests compute on one thread. One worker more than cores uses the time in which a test waits for a child
    // process.
    maxWorkers: availableParallelism() + 1,
    sequence: { sequencer: LongestFirst },
    server: { deps: { external: [/\/dist\/(index|(native|server)\/index|internal)\.js$/] } },
    // Vitest keeps compiled modules in node_modules, so that a run compiles only changed files. This saves time,
    // because almost every test file imports all of lib.
    experimental: { fsModuleCache: true },
    // These limits are long, because tests often run on a busy machine with two cores. No test waits for a clock.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
