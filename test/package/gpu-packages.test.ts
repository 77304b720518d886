// GPU packages: how the loader finds one, and what it says of one that it cannot use. No GPU is needed: a module for one is a library
// like any other, and here a CPU module stands where the GPU's would.
import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Project, platform } from '../helpers/package.js';

const SYSTEM_INFO = `import('llama-headstart/native').then((m) => console.log(JSON.stringify(m.systemInfo())), (e) => console.log(e.code, e.message))`;
const SELECT = (gpu: string) =>
  `import('llama-headstart/native').then((m) => { m.selectGpu(${gpu}); console.log('selected', m.systemInfo().gpu); }).catch((e) => console.log(e.code, e.message))`;

describe('a GPU package', () => {
  let project: Project;
  let version: string;
  let cpuModule: string;
  let folder: string;

  const write = (manifest: { version: string }) =>
    writeFile(join(folder, 'package.json'), JSON.stringify({ name: `@llama-headstart/${platform}-cuda`, ...manifest }));

  beforeAll(async () => {
    project = await Project.create('gpu-packages');
    await project.install();
    ({ version } = JSON.parse(await project.node(['-p', "JSON.stringify(require('llama-headstart/package.json'))"])));
    const prebuilds = join(project.installed, 'prebuilds', platform);
    const { cpuModule: name } = JSON.parse(await project.node(['-e', SYSTEM_INFO]));
    const file = (await readdir(prebuilds)).find((each) => each.includes(`-cpu-${name}.`)) ?? '';
    cpuModule = join(prebuilds, file);
    folder = join(project.directory, 'node_modules', '@llama-headstart', `${platform}-cuda`);
  });

  beforeEach(async () => {
    await mkdir(folder, { recursive: true });
    await copyFile(cpuModule, join(folder, 'headstart-ggml-cuda.so'));
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
    expect(other).toContain(`npm install @llama-headstart/${platform}-vulkan`);
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
      `@llama-headstart/${platform}-cuda 0.0.1: it is version 0.0.1, llama-headstart is ${version}`,
    );
  });

  it('that cannot be loaded is a warning, and an error where it was asked for', async () => {
    await writeFile(join(folder, 'headstart-ggml-cuda.so'), 'no library');
    const auto = await project.run(process.execPath, ['-e', SYSTEM_INFO]);
    expect(JSON.parse(auto.stdout).gpu).toBeNull();
    expect(auto.stderr).toContain('HEADSTART_GPU_UNAVAILABLE');
    expect(auto.stderr).toContain("NVIDIA's driver");
    const asked = await project.node(['-e', SELECT("'cuda'")]);
    expect(asked).toMatch(/^ADDON_NOT_FOUND The cuda module cannot be used: .*(invalid ELF header|file too short)/);
  });
});
