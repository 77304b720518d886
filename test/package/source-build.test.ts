// A build from the packed sources, by a user: with the machine's compiler, without network, into the cache.
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { microModel, testModel } from '../helpers/models.js';
import { filesBelow, megabytes, Project, report, runProgram } from '../helpers/package.js';

const model = testModel();
const compilers = (process.env.PATH ?? '').split(':');

/** A network of its own, which has nothing in it, where the kernel gives one; else proxies that do not answer. */
async function withoutNetwork(): Promise<{ prefix: string[]; env: NodeJS.ProcessEnv }> {
  const { code } = await runProgram('unshare', ['-rn', 'true']);
  if (code === 0) {
    return { prefix: ['unshare', '-rn'], env: {} };
  }
  report('  source build: no network namespace to be had, so proxies that do not answer stand for no network');
  const nowhere = 'http://127.0.0.1:9';
  return { prefix: [], env: { http_proxy: nowhere, https_proxy: nowhere, HTTP_PROXY: nowhere, HTTPS_PROXY: nowhere } };
}

it('compiles without network, is preferred by the loader, and goes without a trace', async () => {
  const project = await Project.create('source-build', compilers);
  await project.install();
  const bin = join(project.directory, 'node_modules', '.bin', 'llama-headstart');
  const { prefix, env } = await withoutNetwork();
  const [command = '', ...args] = [...prefix, process.execPath, bin, 'build', '--native'];
  // The compiler's cache is the machine's, as a user's would be.
  const machine = { ...env, CCACHE_DIR: process.env.CCACHE_DIR ?? join(process.env.HOME ?? '', '.cache', 'ccache') };
  const begin = performance.now();
  const built = await project.run(command, args, machine);
  expect(built.code, built.stderr).toBe(0);
  expect(built.stderr).toMatch(/100 %/);
  expect(built.stderr).toMatch(/It computes on CPU/);
  const path = built.stdout.trim();
  const files = await filesBelow(join(project.home, '.cache', 'llama-headstart'));
  report(
    `Built in ${path}: ${Math.round((performance.now() - begin) / 1000)} s; ` +
      files.map((file) => `${file.path} ${megabytes(file.size)}`).join(', '),
  );
  expect(files.filter(({ path: name }) => name.startsWith('build-trees'))).toEqual([]);
  expect(files.some(({ path: name }) => name.endsWith('native.log'))).toBe(true);

  const smoke = await project.child('smoke.mjs');
  const facts = JSON.parse(await project.node([smoke, microModel('dense'), project.home]));
  expect(facts.addonPath).toBe(path);
  expect(facts.addonSource).toBe('build');
  expect(facts.cpuModule).toBeNull();
  expect([facts.fromMemory, facts.fromFile]).toEqual([facts.cold, facts.cold]);
  for (const name of model ? (['example.mjs', 'example.cjs'] as const) : []) {
    const { tiers, text } = await project.example(name, model ?? '');
    expect(tiers).toEqual(['miss', 'resident', 'disk']);
    expect(text.length).toBeGreaterThan(0);
    report(`  ${name} on that build: ${tiers.join(', ')}`);
  }
  expect(await project.node([bin, 'doctor'])).toContain(`✓ ${path} (build)`);

  await project.node([bin, 'clean']);
  const after = JSON.parse(await project.node([smoke, microModel('dense'), project.home]));
  expect(after.addonSource).toBe('prebuilt');
  expect(existsSync(join(project.home, '.cache', 'llama-headstart'))).toBe(false);
  await rm(smoke);
  expect(await project.uninstall()).toEqual(['package-lock.json', 'package.json']);
});
