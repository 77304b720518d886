// GPU packages: how the loader finds one, and what it says of one that it cannot use. No GPU is needed: the module in the package is
// one that finds as many GPUs as the variable GPUS says.
import { execFileSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { copyFile, cp, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { megabytes, moduleFile, Project, platformName, prebuildsName, report, root } from '../helpers/package.js';

const SYSTEM_INFO = `import('llama-headstart/native').then((m) => console.log(JSON.stringify(m.systemInfo())), (e) => console.log(e.code, e.message))`;
const SELECT = (gpu: string) =>
  `import('llama-headstart/native').then((m) => { m.selectGpu(${gpu}); console.log('selected', m.systemInfo().gpu); }).catch((e) => console.log(e.code, e.message))`;
/** The main thread selects `first`, a worker `second`; each says what it computes on. */
const SELECT_IN_WORKER = (first: string, second: string) => `
  const { Worker } = require('node:worker_threads');
  import('llama-headstart/native').then((m) => {
    m.selectGpu(${first});
    console.log('main', m.systemInfo().gpu);
    new Worker(${JSON.stringify(SELECT(second))}, { eval: true });
  });`;

const GPU = { GPUS: '1' };
const name = `@llama-headstart/${platformName}-cuda`;

const isLinux = process.platform === 'linux';
if (!isLinux) {
  report('GPU packages: SKIPPED, its module that plays a GPU is compiled on Linux alone');
}

describe.skipIf(!isLinux)('a GPU package', () => {
  let project: Project;
  let version: string;
  let prebuilds: string;
  let folder: string;
  let stub: string;

  const write = (manifest: string) => writeFile(join(folder, 'package.json'), manifest);
  const systemInfo = async (env: NodeJS.ProcessEnv = {}) => JSON.parse(await project.node(['-e', SYSTEM_INFO], env));
  const doctor = (...args: string[]) =>
    project.node([join(project.installed, 'bin', 'llama-headstart.mjs'), 'doctor', ...args]);

  beforeAll(async () => {
    project = await Project.create('gpu-packages');
    await project.install();
    ({ version } = JSON.parse(await project.node(['-p', "JSON.stringify(require('llama-headstart/package.json'))"])));
    prebuilds = join(project.installed, 'prebuilds', prebuildsName);
    folder = join(project.directory, 'node_modules', '@llama-headstart', `${platformName}-cuda`);
    stub = join(project.home, 'gpu-module');
    const source = join(root, 'test', 'package', 'children', 'gpu-module.c');
    const ggml = join(root, 'vendor', 'llama.cpp', 'ggml');
    const headers = ['include', 'src'].flatMap((each) => ['-I', join(ggml, each)]);
    execFileSync(process.env.CC ?? 'cc', ['-shared', '-fPIC', ...headers, source, '-o', stub]);
  });

  beforeEach(async () => {
    await mkdir(folder, { recursive: true });
    await copyFile(stub, join(folder, moduleFile('cuda')));
    await write(JSON.stringify({ name, version }));
  });

  it('is found beside the package and loaded, and left alone where the CPU is asked for', async () => {
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
    expect(await project.node(['-e', SELECT("'cuda'")], GPU)).toBe('selected cuda\n');
    expect(await project.node(['-e', SELECT('false')], GPU)).toBe('selected null\n');
    const other = await project.node(['-e', SELECT("'vulkan'")], GPU);
    expect(other).toContain('ADDON_NOT_FOUND No native addon with vulkan');
    expect(other).toContain(`npm install @llama-headstart/${platformName}-vulkan`);
  });

  it('is the process’s: a second one of another kind is refused', async () => {
    const script = `import('llama-headstart/native').then((m) => { m.selectGpu(false); m.selectGpu('auto'); m.selectGpu('cuda'); }).catch((e) => console.log(e.code, e.message))`;
    const refused = await project.node(['-e', script], GPU);
    expect(refused).toMatch(/^ADDON_LOADED Expected `gpu` "cuda", but this process already computes on the CPU/);
  });

  it('is the process’s: what a worker is told is what the first thread loaded', async () => {
    const select = (first: string, second: string) => project.node(['-e', SELECT_IN_WORKER(first, second)], GPU);
    const refused = 'ADDON_LOADED Expected `gpu`';
    expect(await select("'cuda'", "'auto'")).toBe('main cuda\nselected cuda\n');
    expect(await select("'cuda'", "'cuda'")).toBe('main cuda\nselected cuda\n');
    expect(await select("'cuda'", 'false')).toMatch(
      `main cuda\n${refused} false, but this process already computes on cuda`,
    );
    expect(await select('false', "'cuda'")).toMatch(
      `main null\n${refused} "cuda", but this process already computes on the CPU`,
    );
    expect(await select('false', "'auto'")).toBe('main null\nselected null\n');
  });

  it('of another version is not used, and `doctor` says so', async () => {
    await write(JSON.stringify({ name, version: '0.0.1' }));
    expect((await systemInfo(GPU)).gpu).toBeNull();
    expect(await doctor()).toContain(`${name} 0.0.1: it is version 0.0.1, llama-headstart is ${version}`);
  });

  it.each(['', '{ "name": "@llama-headstart', 'null', '{}'])(
    'whose package.json was cut to %j is not used, and `doctor` says so',
    async (manifest) => {
      await write(manifest);
      expect((await systemInfo(GPU)).gpu).toBeNull();
      expect(await project.node(['-e', SELECT('false')], GPU)).toBe('selected null\n');
      expect(await project.node(['-e', SELECT("'cuda'")], GPU)).toContain('ADDON_NOT_FOUND No native addon with cuda');
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
      'is no GPU’s',
      async () =>
        copyFile(
          join(prebuilds, moduleFile(`cpu-${(await systemInfo()).cpuModule}`)),
          join(folder, moduleFile('cuda')),
        ),
      /^it finds no GPU/,
    ],
  ])('that %s is a warning, and an error where it was asked for', async (_what, spoil, reason) => {
    await spoil();
    const auto = await project.run(process.execPath, ['-e', SYSTEM_INFO]);
    const { gpu, supportsGpuOffload, devices } = JSON.parse(auto.stdout);
    expect({ gpu, supportsGpuOffload, devices: devices.length }).toEqual({
      gpu: null,
      supportsGpuOffload: false,
      devices: 1,
    });
    expect(auto.stderr).toContain('HEADSTART_GPU_UNAVAILABLE');
    expect(auto.stderr).toContain("NVIDIA's driver");
    const [, why] = refusal('cuda').exec(await project.node(['-e', SELECT("'cuda'")])) ?? [];
    expect(why).toMatch(reason);
    expect((await doctor()).match(/^ {2}not .*cuda.*$/m)?.[0]).toContain(why);
    // Refused, it is no hindrance for who then computes on the CPU.
    const script = `import('llama-headstart/native').then((m) => { try { m.selectGpu('cuda') } catch { m.selectGpu(false); console.log(m.systemInfo().devices.length); } })`;
    expect(await project.node(['-e', script])).toBe('1\n');
  });

  it('comes after what somebody built by hand, unless its GPU is named', async () => {
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

/** Where `npm run build:gpu-package -- cuda` leaves it. */
const made = join(root, '.build', 'gpu-packages', '@llama-headstart', `${platformName}-cuda`);
const isMade = existsSync(join(made, moduleFile('cuda')));
if (!isMade) {
  report('The CUDA package itself: SKIPPED, not made in this checkout: `npm run build:gpu-package -- cuda` makes it');
}

describe.skipIf(!isMade)('the CUDA package that was made here', () => {
  const module = join(made, moduleFile('cuda'));

  it.skipIf(process.platform !== 'linux')(
    "needs NVIDIA's driver, the CUDA runtime and cuBLAS, beside libc and our own ggml, nothing else",
    () => {
      const dynamic = execFileSync('readelf', ['-d', '-W', module], { encoding: 'utf8' });
      const needed = [...dynamic.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name = '']) => name);
      const own = /^(lib(c|m|dl|pthread|rt)\.so\.\d|ld-linux-[a-z0-9-]+\.so\.\d|headstart-ggml-base-[\d.]+\.so)$/;
      const beside = needed.filter((name) => !own.test(name)).map((name) => name.replace(/\.\d+$/, ''));
      expect(beside.sort()).toEqual(['libcublas.so', 'libcuda.so', 'libcudart.so']);
      report(`The CUDA package in ${made}: ${megabytes(statSync(module).size)}, needs ${needed.join(', ')}`);
    },
  );

  it('is installed by npm beside the package, and either computes or says what this machine lacks', async () => {
    const project = await Project.create('cuda-package');
    await project.install();
    const [{ filename }] = JSON.parse(await project.npm('pack', made, '--json', '--pack-destination', project.home));
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
      `  it is ${gpu === null ? `left alone here: ${stderr.split('\n')[0]}` : `used here: ${devices.length} devices`}`,
    );
  });
});
