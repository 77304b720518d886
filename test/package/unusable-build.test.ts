// `npx llama-headstart build` checks its result: whether this machine can use the build, on which device the build
// computes, and whether programs will load the build. These tests compile no build: a fake CMake copies the prebuilt
// addon with a module for a fake GPU (children/gpu-module.c), or an addon that crashes.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, cp, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { filesBelow, moduleFile, Project, prebuildsName, report, root } from '../helpers/package.js';

const SYSTEM_INFO = `import('llama-headstart/native').then((m) => console.log(JSON.stringify(m.systemInfo())), (e) => console.log(e.code, e.message))`;

/** A CMake of a supported version that copies $COMPILED instead of compiling. */
const CMAKE = `#!/bin/sh
PATH=/usr/bin:/bin
case "$1" in
  --version) echo 'cmake version 3.21.0' ;;
  --build) mkdir -p "$2/Release" && cp -R "$COMPILED/." "$2/Release" && cp "$COMPILED/libraries.txt" "$2" ;;
esac`;
/** A program that only prints its version. */
const versionScript = (version: string) => `#!/bin/sh\necho '${version}'\n`;

const compile = (args: string[]) => execFileSync(process.env.CC ?? 'cc', ['-shared', '-fPIC', ...args]);

const isLinux = process.platform === 'linux';
if (!isLinux) {
  report('Checks of a finished build: SKIPPED, the module for a fake GPU is compiled only on Linux');
}

describe.skipIf(!isLinux)('`npx llama-headstart build`', () => {
  let project: Project;
  let compiled: string;
  let programs: string;

  const addon = () => join(compiled, 'llama_headstart.node');
  const build = (...args: string[]) => {
    const [bin, PATH] = [join(project.installed, 'bin', 'llama-headstart.mjs'), `${programs}:${project.env.PATH}`];
    return (env: NodeJS.ProcessEnv = {}) =>
      project.run(process.execPath, [bin, 'build', ...args], { PATH, COMPILED: compiled, ...env });
  };
  const loaded = async (env: NodeJS.ProcessEnv = {}) => JSON.parse(await project.node(['-e', SYSTEM_INFO], env));
  const clean = () => project.node([join(project.installed, 'bin', 'llama-headstart.mjs'), 'clean']);

  beforeAll(async () => {
    project = await Project.create('unusable-build');
    await project.install();
    programs = join(project.home, 'programs');
    await mkdir(programs);
    const tools = {
      cmake: CMAKE,
      ninja: versionScript('1.11.1'),
      'c++': versionScript('c++ (GCC) 13.2.0'),
      nvcc: versionScript('release 12.4, V12.4'),
    };
    for (const [name, script] of Object.entries(tools)) {
      await writeFile(join(programs, name), script, { mode: 0o755 });
    }
    compiled = join(project.home, 'compiled');
    await cp(join(project.installed, 'prebuilds', prebuildsName), compiled, { recursive: true });
    await rename(join(compiled, basename((await loaded()).addonPath)), addon());
    const ggml = join(root, 'vendor', 'llama.cpp', 'ggml');
    const headers = ['include', 'src'].flatMap((folder) => ['-I', join(ggml, folder)]);
    const source = join(root, 'test', 'package', 'children', 'gpu-module.c');
    compile([...headers, source, '-o', join(compiled, moduleFile('cuda'))]);
    const libraries = (await readdir(compiled)).filter((name) => !name.endsWith('.node'));
    await writeFile(join(compiled, 'libraries.txt'), libraries.join('\n'));
  });

  it('names the GPU that the build computes on, and the next program loads the build', async () => {
    const { code, stdout, stderr } = await build('--cuda')({ GPUS: '1' });
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(
      /The build can compute on .*CUDA0 \(a fake GPU\).*\. The next start of your program loads it\./,
    );
    const { addonPath, gpu } = await loaded({ GPUS: '1' });
    expect({ addonPath, gpu }).toEqual({ addonPath: stdout.trim(), gpu: 'cuda' });
    await clean();
  });

  it('keeps a build that finds no GPU, and exits with code 3, or with code 0 if --no-gpu-here is set', async () => {
    const here = await build('--cuda')();
    expect(here.code, here.stderr).toBe(3);
    expect(here.stderr).toMatch(
      /! The build is installed, but it cannot use a GPU of this machine: it finds no GPU\. It needs NVIDIA's driver/,
    );
    expect(here.stderr).toContain('If you build for other machines, pass --no-gpu-here.');
    expect(here.stderr).toMatch(/The build can compute on CPU .*\. The next start of your program loads it\./);
    expect((await loaded()).addonPath).toBe(here.stdout.trim());
    const elsewhere = await build('--cuda', '--no-gpu-here')();
    expect(elsewhere.code, elsewhere.stderr).toBe(0);
    expect(elsewhere.stderr).toContain('it finds no GPU');
    await clean();
  });

  it('warns if the environment makes programs load another addon than the new build', async () => {
    const { code, stdout, stderr } = await build('--cuda')({ GPUS: '1', LLAMA_HEADSTART_VARIANT: 'vulkan' });
    expect(code, stderr).toBe(0);
    expect(existsSync(stdout.trim())).toBe(true);
    expect(stderr).toMatch(/But the next start of your program loads no addon\. .*doctor` says why/);
    await clean();
  });

  it('fails if the build crashes the process that loads it, and does not install the build', async () => {
    const before = await loaded();
    const source = join(project.home, 'trap.c');
    await writeFile(source, '__attribute__((constructor)) static void trap(void) { __builtin_trap(); }');
    const whole = join(project.home, 'whole.node');
    await copyFile(addon(), whole);
    await rm(addon());
    compile([source, '-o', addon()]);
    const { code, stderr } = await build('--define', 'CMAKE_CXX_FLAGS=-mavx10.9')();
    await copyFile(whole, addon());
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /The build succeeded, but this machine cannot use it: loading it ends the process \((SIGILL\)\. It was compiled for another CPU|SIGTRAP\))/,
    );
    expect(stderr).toContain('programs load the same addon as before');
    expect((await loaded()).addonPath).toBe(before.addonPath);
    await clean();
  });

  it('puts builds with other CMake definitions into separate directories and records the definitions', async () => {
    const [plain, defined] = [await build()(), await build('--define', 'GGML_LLAMAFILE=OFF')()];
    expect([plain.code, defined.code], defined.stderr).toEqual([0, 0]);
    expect(plain.stdout).not.toBe(defined.stdout);
    const definitionsOf = async (output: string) =>
      JSON.parse(await readFile(join(output.trim(), '..', 'build.json'), 'utf8')).definitions;
    expect(await definitionsOf(plain.stdout)).toEqual([]);
    expect(await definitionsOf(defined.stdout)).toEqual(['GGML_LLAMAFILE=OFF']);
    expect((await loaded()).addonPath).toBe(defined.stdout.trim());
    await clean();
    expect((await filesBelow(project.home)).filter(({ path }) => path.includes('builds'))).toEqual([]);
  });
});
