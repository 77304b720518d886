// Tests how the loader finds a GPU package, and what the loader reports about an unusable GPU package. These tests need
// no GPU, because the module in the package is a fake that reports as many GPUs as the variable GPUS says.
import { execFileSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { copyFile, cp, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { megabytes, moduleFile, Project, platformName, prebuildsName, report, root } from '../helpers/package.js';

const SYSTEM_INFO = `import('llama-headstart/native').then((m) => console.log(JSON.stringify(m.systemInfo())), (e) => console.log(e.code, e.message))`;
const select = (gpu: string) =>
  `import('llama-headstart/native').then((m) => { m.selectGpu(${gpu}); console.log('selected', m.systemInfo().gpu); }).catch((e) => console.log(e.code, e.message))`;
/**
 * Returns a program in which the main thread selects the GPU `first` and a worker selects the GPU `second`. Each thread
 * prints the GPU that the thread computes on.
 */
const selectInWorker = (first: string, second: string) => `
  const { Worker } = require('node:worker_threads');
  import('llama-headstart/native').then((m) => {
    m.selectGpu(${first});
    console.log('main', m.systemInfo().gpu);
    new Worker(${JSON.stringify(select(second))}, { eval: true });
  });`;

const GPU = { GPUS: '1' };
const name = `@llama-headstart/${platformName}-cuda`;

const isLinux = process.platform === 'linux';
if (!isLinux) {
  report('GPU packages: SKIPPED, the module for a fake GPU is compiled only on Linux');
}

describe.skipIf(!isLinux)('a GPU package', () => {
  let project: Project;
  let version: string;
  let prebuilds: string;
  let folder: string;
  let fakeModule: string;

  const writeManifest = (manifest: string) => writeFile(join(folder, 'package.json'), manifest);
  const systemInfo = async (env: NodeJS.ProcessEnv = {}) => JSON.parse(await project.node(['-e', SYSTEM_INFO], env));
  const doctor = (...args: string[]) =>
    project.node([join(project.installed, 'bin', 'llama-headstart.mjs'), 'doctor', ...args]);

  beforeAll(async () => {
    project = await Project.create('gpu-packages');
    await project.install();
    ({ version } = JSON.parse(await project.node(['-p', "JSON.stringify(require('llama-headstart/package.json'))"])));
    prebuilds = join(project.installed, 'prebuilds', prebuildsName);
    folder = join(project.directory, 'node_modules', '@llama-headstart', `${platformName}-cuda`);
    fakeModule = join(project.home, 'gpu-module');
    const source = join(root, 'test', 'package', 'children', 'gpu-module.c');
    const ggml = join(root, 'vendor', 'llama.cpp', 'ggml');
    const headers = ['include', 'src'].flatMap((name) => ['-I', join(ggml, name)]);
    execFileSync(process.env.CC ?? 'cc', ['-shared', '-fPIC', ...headers, source, '-o', fakeModule]);
  });

  beforeEach(async () => {
    await mkdir(folder, { recursive: true });
    await copyFile(fakeModule, join(folder, moduleFile('cuda')));
    await writeManifest(JSON.stringify({ name, version }));
  });

  it('is loaded if it is installed, and not loaded if the program selects the CPU', async () => {
    const auto = await systemInfo(GPU);
    expect(auto.gpu).toBe('cuda');
    expect(auto.addonSource).toBe('prebuilt');
    expect(auto.supportsGpuOffload).toBe(true);
    expect(auto.devices.map(({ type, backend }: Record<string, string>) => `${type} ${backend}`).sort()).toEqual([
      'cpu CPU',
      'gpu CUDA',
    ]);
    const cpu = await systemInfo({ ...GPU, LLAMA_HEADSTART_VARIANT: 'cpu' });
    expect(cpu.gpu).toBeNull();
    expect(await project.node(['-e', select("'cuda'")], GPU)).toBe('selected cuda\n');
    expect(await project.node(['-e', select('false')], GPU)).toBe('selected null\n');
    const other = await project.node(['-e', select("'vulkan'")], GPU);
    expect(other).toContain('ADDON_NOT_FOUND No native addon with vulkan');
    expect(other).toContain(`npm install @llama-headstart/${platformName}-vulkan`);
  });

  it('is loaded once per process: a program that selects another GPU afterwards gets an error', async () => {
    const script = `import('llama-headstart/native').then((m) => { m.selectGpu(false); m.selectGpu('auto'); m.selectGpu('cuda'); }).catch((e) => console.log(e.code, e.message))`;
    const refused = await project.node(['-e', script], GPU);
    expect(refused).toMatch(/^ADDON_LOADED Expected `gpu` "cuda", but this process already computes on the CPU/);
  });

  it('is loaded once per process: a worker that selects another GPU than the main thread gets an error', async () => {
    const both = (first: string, second: string) => project.node(['-e', selectInWorker(first, second)], GPU);
    const refused = 'ADDON_LOADED Expected `gpu`';
    expect(await both("'cuda'", "'auto'")).toBe('main cuda\nselected cuda\n');
    expect(await both("'cuda'", "'cuda'")).toBe('main cuda\nselected cuda\n');
    expect(await both("'cuda'", 'false')).toMatch(
      `main cuda\n${refused} false, but this process already computes on cuda`,
    );
    expect(await both('false', "'cuda'")).toMatch(
      `main null\n${refused} "cuda", but this process already computes on the CPU`,
    );
    expect(await both('false', "'auto'")).toBe('main null\nselected null\n');
  });

  it('is not used if its version differs from the version of llama-headstart, and `doctor` says so', async () => {
    await writeManifest(JSON.stringify({ name, version: '0.0.1' }));
    expect((await systemInfo(GPU)).gpu).toBeNull();
    expect(await doctor()).toContain(`${name} 0.0.1: its version is 0.0.1, but llama-headstart is ${version}`);
  });

  it.each(['', '{ "name": "@llama-headstart', 'null', '{}'])(
    'is not used if its package.json is %j, and `doctor` says so',
    async (manifest) => {
      await writeManifest(manifest);
      expect((await systemInfo(GPU)).gpu).toBeNull();
      expect(await project.node(['-e', select('false')], GPU)).toBe('selected null\n');
      expect(await project.node(['-e', select("'cuda'")], GPU)).toContain('ADDON_NOT_FOUND No native addon with cuda');
      expect(await doctor()).toContain(`${name} ?: its package.json`);
    },
  );

  const refusal = (gpu: string) =>
    new RegExp(
      `^ADDON_NOT_FOUND No GPU can be used by ${gpu} on ${platformName}, Node .*${moduleFile(gpu)}: (.*)\\. It needs NVIDIA's driver ` +
        '.*`npx llama-headstart doctor` .*`npx llama-headstart build --cuda`',
    );

  it.each([
    [
      'cannot be loaded',
      () => writeFile(join(folder, moduleFile('cuda')), 'no library'),
      /ELF header|too short|Exec format|mach-o/,
    ],
    ['finds no GPU', () => {}, /^it finds no GPU/],
    [
      'is not for a GPU',
      async () =>
        copyFile(
          join(prebuilds, moduleFile(`cpu-${(await systemInfo()).cpuModule}`)),
          join(folder, moduleFile('cuda')),
        ),
      /^it finds no GPU/,
    ],
  ])('whose module %s causes a warning, and an error if the program selects that GPU', async (_, damage, reason) => {
    await damage();
    const auto = await project.run(process.execPath, ['-e', SYSTEM_INFO]);
    const { gpu, supportsGpuOffload, devices } = JSON.parse(auto.stdout);
    expect({ gpu, supportsGpuOffload, devices: devices.length }).toEqual({
      gpu: null,
      supportsGpuOffload: false,
      devices: 1,
    });
    expect(auto.stderr).toContain('HEADSTART_GPU_UNAVAILABLE');
    expect(auto.stderr).toContain("NVIDIA's driver");
    const [, why] = refusal('cuda').exec(await project.node(['-e', select("'cuda'")])) ?? [];
    expect(why).toMatch(reason);
    expect((await doctor()).match(/^ {2}not .*cuda.*$/m)?.[0]).toContain(why);
    // After the refusal, the process can still select the CPU.
    const script = `import('llama-headstart/native').then((m) => { try { m.selectGpu('cuda') } catch { m.selectGpu(false); console.log(m.systemInfo().devices.length); } })`;
    expect(await project.node(['-e', script])).toBe('1\n');
  });

  it("is not used if the user's cache has a build, unless the program selects the package's GPU", async () => {
    const built = join(project.home, '.cache', 'llama-headstart', 'builds', `${version}-${platformName}`, 'portable');
    await cp(prebuilds, built, { recursive: true });
    const addon = basename((await systemInfo()).addonPath);
    await rename(join(built, addon), join(built, 'llama_headstart.node'));
    const auto = await systemInfo(GPU);
    expect([auto.addonSource, auto.gpu]).toEqual(['build', null]);
    const named = await systemInfo({ ...GPU, LLAMA_HEADSTART_VARIANT: 'cuda' });
    expect([named.addonSource, named.gpu]).toEqual(['prebuilt', 'cuda']);
    expect(await doctor()).toMatch(new RegExp(`${name} ${version}: usable`));
    await rm(built, { recursive: true });
  });
});

/** The output directory of `npm run build:gpu-package -- cuda`. */
const cudaPackage = join(root, '.build', 'gpu-packages', '@llama-headstart', `${platformName}-cuda`);
const isBuilt = existsSync(join(cudaPackage, moduleFile('cuda')));
if (!isBuilt) {
  report(
    'The CUDA package: SKIPPED, it was not built in this checkout. `npm run build:gpu-package -- cuda` builds it.',
  );
}

describe.skipIf(!isBuilt)('the CUDA package of this checkout', () => {
  const module = join(cudaPackage, moduleFile('cuda'));

  it.skipIf(process.platform !== 'linux')(
    "needs only NVIDIA's driver, the CUDA runtime, cuBLAS, libc and this package's ggml",
    () => {
      const dynamic = execFileSync('readelf', ['-d', '-W', module], { encoding: 'utf8' });
      const needed = [...dynamic.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name = '']) => name);
      const common = /^(lib(c|m|dl|pthread|rt)\.so\.\d|ld-linux-[a-z0-9-]+\.so\.\d|headstart-ggml-base-[\d.]+\.so)$/;
      const nvidia = needed.filter((name) => !common.test(name)).map((name) => name.replace(/\.\d+$/, ''));
      expect(nvidia.sort()).toEqual(['libcublas.so', 'libcuda.so', 'libcudart.so']);
      report(`The CUDA package in ${cudaPackage}: ${megabytes(statSync(module).size)}, needs ${needed.join(', ')}`);
    },
  );

  it('can be installed with npm, and either computes or reports what this machine lacks', async () => {
    const project = await Project.create('cuda-package');
    await project.install();
    const packed = await project.npm('pack', cudaPackage, '--json', '--pack-destination', project.home);
    const [{ filename }] = JSON.parse(packed);
    await project.npm('install', '--ignore-scripts', join(project.home, filename));
    const { stdout, stderr } = await project.run(process.execPath, ['-e', SYSTEM_INFO]);
    const { gpu, devices } = JSON.parse(stdout);
    const doctor = await project.node([join(project.installed, 'bin', 'llama-headstart.mjs'), 'doctor']);
    expect(doctor).toMatch(new RegExp(`@llama-headstart/${platformName}-cuda \\d.*: usable`));
    if (gpu === null) {
      expect(stderr).toContain('HEADSTART_GPU_UNAVAILABLE');
      expect(stderr).toMatch(/libcu(da|dart|blas)/);
    } else {
      expect(gpu).toBe('cuda');
      expect(devices.some(({ backend }: { backend: string }) => backend === 'CUDA')).toBe(true);
    }
    report(
      `  on this machine the package is ${gpu === null ? `not used: ${stderr.split('\n')[0]}` : `used: ${devices.length} devices`}`,
    );
  });
});
