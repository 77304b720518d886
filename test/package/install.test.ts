// Installs the package in an empty project with an empty cache, without a compiler and without install scripts.
import { existsSync } from 'node:fs';
import { chmod, copyFile, readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { microModel, testModel } from '../helpers/models.js';
import {
  filesBelow,
  megabytes,
  Project,
  platformName,
  prebuildsName,
  report,
  root,
  runProgram,
  tarball,
  temporaryFolder,
} from '../helpers/package.js';

const model = testModel();

/** Lists the packages that users install according to the lockfile, without development tools and optional packages. */
async function lockedPackages(): Promise<string[]> {
  const { packages } = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean; devOptional?: boolean; peer?: boolean }>;
  };
  return Object.entries(packages)
    .filter(([path, { dev, optional, devOptional, peer }]) => path !== '' && !(dev || optional || devOptional || peer))
    .map(([path]) => path.slice('node_modules/'.length))
    .filter((path) => !path.includes('node_modules/'));
}

/** The names of all packages in a `node_modules` directory, with their scopes. */
async function packagesIn(directory: string): Promise<string[]> {
  const names = (await readdir(directory)).filter((name) => !name.startsWith('.'));
  const nested = names.map(async (name) =>
    name.startsWith('@') ? (await readdir(join(directory, name))).map((part) => `${name}/${part}`) : [name],
  );
  return (await Promise.all(nested)).flat();
}

describe('a machine without compilers, with install scripts blocked', () => {
  let project: Project;
  let before: string[];

  beforeAll(async () => {
    project = await Project.create('without-compiler');
    before = [...(await project.files()), join('project', 'package-lock.json')].sort();
    await project.install();
  });

  it('installs the package without compiling, and writes only to node_modules', async () => {
    const files = await filesBelow(join(project.directory, 'node_modules'));
    const bytes = files.reduce((sum, { size }) => sum + size, 0);
    const packages = await packagesIn(join(project.directory, 'node_modules'));
    report(`Installed in ${project.installed}: ${packages.join(', ')}; ${files.length} files, ${megabytes(bytes)}`);
    expect(packages.sort()).toEqual(['llama-headstart', ...(await lockedPackages())].sort());
    expect(existsSync(await project.cache())).toBe(false);
    expect(existsSync(join(project.installed, 'build'))).toBe(false);
  });

  it('is described by `npx llama-headstart doctor`: the loaded addon, its CPU module, missing tools', async () => {
    const { bin } = project;
    const text = await project.node([bin, 'doctor']);
    expect(text).toContain(`✓ ${join(project.installed, 'prebuilds', prebuildsName)}`);
    expect(text).toContain('CPU module: ');
    expect(text).toMatch(/c\+\+: not installed/);
    const { loaded, tools } = JSON.parse(await project.node([bin, 'doctor', '--json']));
    expect(loaded.source).toBe('prebuilt');
    expect(loaded.cpu).toBe(loaded.tried[0].name);
    const forced = await project.node([bin, 'doctor'], { LLAMA_HEADSTART_CPU: loaded.cpu });
    expect(text).toContain(`CPU module: ${loaded.cpu}, which has the highest score of `);
    expect(forced).toContain(`CPU module: ${loaded.cpu}, which LLAMA_HEADSTART_CPU selects from `);
    expect(tools.cmake).toBeNull();
  });

  it('gets advice from `npx llama-headstart build` about the missing tools', async () => {
    const { bin } = project;
    const { code, stderr } = await project.run(process.execPath, [bin, 'build']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/lacks: CMake, a C\+\+ compiler, ninja or make/);
    expect(stderr).toMatch(/apt install|brew install|Visual Studio/);
    const cuda = await project.run(process.execPath, [bin, 'build', '--cuda']);
    expect(cuda.stderr).toMatch(/the CUDA toolkit \(nvcc\)/);
    const wrong = await project.run(process.execPath, [bin, 'bulid']);
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toMatch(/Unknown command 'bulid'. Did you mean build\?/);
  });

  describe.skipIf(!model)('the example of the specification', () => {
    it.each(['example.mjs', 'example.cjs'] as const)(
      '%s starts warm in the same and in the next process',
      async (name) => {
        const { sources, stats, text } = await project.example(name, model ?? '');
        expect(sources).toEqual(['prefill', 'resident', 'disk']);
        expect(stats).toMatchObject({ entries: 1, hits: 1, misses: 1, hitRate: 0.5 });
        expect(text.length).toBeGreaterThan(0);
        report(`  ${name}: ${sources.join(', ')}`);
      },
    );
  });

  it('runs the package for an unknown user without a home directory, as in containers', async ({ skip }) => {
    const asUnknownUser = ['--reuid=54321', '--regid=54321', '--clear-groups'];
    const withoutHome = [...asUnknownUser, 'env', '-u', 'HOME', '-u', 'XDG_CACHE_HOME'];
    const trial = await runProgram('setpriv', [...withoutHome, 'true']);
    if (trial.code !== 0) {
      report(
        `  a user without a home directory: SKIPPED, setpriv cannot switch the user (${trial.stderr.split('\n')[0]})`,
      );
      skip('setpriv cannot switch the user');
    }
    await chmod(dirname(project.directory), 0o755);
    const folder = await temporaryFolder('unknown-user');
    await chmod(folder, 0o777);
    const path = join(folder, 'model.gguf');
    await copyFile(microModel('dense'), path);
    const script = `import('llama-headstart').then(async ({ AgentServer }) => {
      const agent = await AgentServer.initialize({ model: { source: ${JSON.stringify(path)}, contextSize: 64, cacheDir: ${JSON.stringify(join(folder, 'cache'))} } });
      console.log('loaded');
      await agent.close();
    })`;
    const runNode = (...args: string[]) =>
      runProgram('setpriv', [...withoutHome, process.execPath, ...args], {
        cwd: project.directory,
        env: { ...project.env, PATH: process.env.PATH },
      });
    const loaded = await runNode('-e', script);
    expect(loaded.stdout, loaded.stderr).toBe('loaded\n');
    const bin = join(project.installed, 'bin', 'llama-headstart.mjs');
    const doctor = await runNode(bin, 'doctor');
    expect(doctor.code, doctor.stderr).toBe(0);
    expect(doctor.stdout).toMatch(/^Cache: none, NOT USABLE: Expected a home directory/m);
  });

  it('gets an error that says what to do if no binary fits', async () => {
    const script =
      "import('llama-headstart/native').then((m) => m.systemInfo()).catch((e) => console.log(e.code, e.message))";
    const unsupported = await project.node(['-e', script], { npm_config_arch: 'riscv64' });
    expect(unsupported).toMatch(
      /^ADDON_NOT_FOUND No native addon for .*looked in build\/Release, the user's cache and prebuilds/,
    );
    expect(unsupported).toContain('npx llama-headstart build');
    const gpu = await project.node(['-e', script], { LLAMA_HEADSTART_VARIANT: 'cuda' });
    expect(gpu).toContain('npx llama-headstart build --cuda');
    expect(gpu).toContain(`npm install @llama-headstart/${platformName}-cuda`);
    const wrong = await project.node(['-e', script], { LLAMA_HEADSTART_VARIANT: 'cude' });
    expect(wrong).toMatch(/^CONFIG_INVALID Expected LLAMA_HEADSTART_VARIANT/);
  });

  it('has no files of the package after `clean` and `npm uninstall`', async () => {
    const { bin } = project;
    await project.node([bin, 'clean']);
    await project.uninstall();
    expect(JSON.parse(await readFile(join(project.directory, 'package.json'), 'utf8')).dependencies ?? {}).toEqual({});
    expect(await project.files()).toEqual(before);
  });
});

describe('a machine without compilers, with install scripts allowed', () => {
  it('installs the package without compiling, and uses the prebuilt addon', async () => {
    const project = await Project.create('scripts-allowed');
    // If a package has a binding.gyp and no install script, npm by default runs `node-gyp rebuild`.
    expect(tarball().files.some(({ path }) => path === 'binding.gyp')).toBe(true);
    await project.npm('install', '--no-ignore-scripts', tarball().path);
    expect(existsSync(join(project.installed, 'build'))).toBe(false);
    const { loaded, tools } = JSON.parse(await project.node([project.bin, 'doctor', '--json']));
    expect([loaded.source, tools.cmake, tools['c++']]).toEqual(['prebuilt', null, null]);
  });
});
