// GPU packages: how the loader finds one, and what it says of one that it cannot use. No GPU is needed: a module for one is a library
// like any other, and here a CPU module stands where the GPU's would.
import { execFileSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { megabytes, moduleFile, Project, platformName, prebuildsName, report, root } from '../helpers/package.js';

const SYSTEM_INFO = `import('llama-headstart/native').then((m) => console.log(JSON.stringify(m.systemInfo())), (e) => console.log(e.code, e.message))`;
const SELECT = (gpu: string) =>
  `import('llama-headstart/native').then((m) => { m.selectGpu(${gpu}); console.log('selected', m.systemInfo().gpu); }).catch((e) => console.log(e.code, e.message))`;

describe('a GPU package', () => {
  let project: Project;
  let version: string;
  let cpuModule: string;
  let folder: string;

  const write = (manifest: { version: string }) =>
    writeFile(
      join(folder, 'package.json'),
      JSON.stringify({ name: `@llama-headstart/${platformName}-cuda`, ...manifest }),
    );

  beforeAll(async () => {
    project = await Project.create('gpu-packages');
    await project.install();
    ({ version } = JSON.parse(await project.node(['-p', "JSON.stringify(require('llama-headstart/package.json'))"])));
    const prebuilds = join(project.installed, 'prebuilds', prebuildsName);
    const { cpuModule: name } = JSON.parse(await project.node(['-e', SYSTEM_INFO]));
    cpuModule = join(prebuilds, moduleFile(`cpu-${name}`));
    folder = join(project.directory, 'node_modules', '@llama-headstart', `${platformName}-cuda`);
  });

  beforeEach(async () => {
    await mkdir(folder, { recursive: true });
    await copyFile(cpuModule, join(folder, moduleFile('cuda')));
    await write({ version });
  });

  it('is found beside the package and loaded, and left alone where the CPU is asked for', async () => {
    const auto = JSON.parse(await project.node(['-e', SYSTEM_INFO]));
    expect(auto.gpu).toBe('cuda');
    expect(auto.addonSource).toBe('prebuilt');
    const cpu = JSON.parse(await project.node(['-e', SYSTEM_INFO], { LLAMA_HEADSTART_VARIANT: 'cpu' }));
    expect(cpu.gpu).toBeNull();
    expect(await project.node(['-e', SELECT("'cuda'")])).toBe('selected cuda\n');
    expect(await project.node(['-e', SELECT('false')])).toBe('selected null\n');
    const other = await project.node(['-e', SELECT("'vulkan'")]);
    expect(other).toContain('ADDON_NOT_FOUND No native addon with vulkan');
    expect(other).toContain(`npm install @llama-headstart/${platformName}-vulkan`);
  });

  it('is the process’s: a second one of another kind is refused', async () => {
    const script = `import('llama-headstart/native').then((m) => { m.selectGpu(false); m.selectGpu('auto'); m.selectGpu('cuda'); }).catch((e) => console.log(e.code, e.message))`;
    const refused = await project.node(['-e', script]);
    expect(refused).toMatch(/^ADDON_LOADED Expected `gpu` "cuda", but this process already computes on the CPU/);
  });

  it('of another version is not used, and `doctor` says so', async () => {
    await write({ version: '0.0.1' });
    expect(JSON.parse(await project.node(['-e', SYSTEM_INFO])).gpu).toBeNull();
    const text = await project.node([join(project.installed, 'bin', 'llama-headstart.mjs'), 'doctor']);
    expect(text).toContain(
      `@llama-headstart/${platformName}-cuda 0.0.1: it is version 0.0.1, llama-headstart is ${version}`,
    );
  });

  it('that cannot be loaded is a warning, and an error where it was asked for', async () => {
    await writeFile(join(folder, moduleFile('cuda')), 'no library');
    const auto = await project.run(process.execPath, ['-e', SYSTEM_INFO]);
    expect(JSON.parse(auto.stdout).gpu).toBeNull();
    expect(auto.stderr).toContain('HEADSTART_GPU_UNAVAILABLE');
    expect(auto.stderr).toContain("NVIDIA's driver");
    const asked = await project.node(['-e', SELECT("'cuda'")]);
    expect(asked).toMatch(
      /^ADDON_NOT_FOUND The cuda module cannot be used: .*(invalid ELF header|file too short|Exec format error|mach-o)/,
    );
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
