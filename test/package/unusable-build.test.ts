// What a build turns out to be good for, once it is compiled. The compiler is left out: its place is taken by a CMake that copies what it
// would have made, the prebuilt addon with a module for a GPU (children/gpu-module.c) or an addon that ends its process.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, cp, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { filesBelow, moduleFile, Project, prebuildsName, report, root } from '../helpers/package.js';

const SYSTEM_INFO = `import('llama-headstart/native').then((m) => console.log(JSON.stringify(m.systemInfo())), (e) => console.log(e.code, e.message))`;

/** Says that it is new enough, and "compiles" by copying $COMPILED. */
const CMAKE = `#!/bin/sh
PATH=/usr/bin:/bin
case "$1" in
  --version) echo 'cmake version 3.21.0' ;;
  --build) mkdir -p "$2/Release" && cp -R "$COMPILED/." "$2/Release" && cp "$COMPILED/libraries.txt" "$2" ;;
esac`;
const SAYS = (version: string) => `#!/bin/sh\necho '${version}'\n`;

const compile = (args: string[]) => execFileSync(process.env.CC ?? 'cc', ['-shared', '-fPIC', ...args]);

const isLinux = process.platform === 'linux';
if (!isLinux) {
  report('What builds are good for: SKIPPED, its module that plays a GPU is compiled on Linux alone');
}

describe.skipIf(!isLinux)('a build that', () => {
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
      ninja: SAYS('1.11.1'),
      'c++': SAYS('c++ (GCC) 13.2.0'),
      nvcc: SAYS('release 12.4, V12.4'),
    };
    for (const [name, script] of Object.entries(tools)) {
      await writeFile(join(programs, name), script, { mode: 0o755 });
    }
    compiled = join(project.home, 'compiled');
    await cp(join(project.installed, 'prebuilds', prebuildsName), compiled, { recursive: true });
    await rename(join(compiled, basename((await loaded()).addonPath)), addon());
    const ggml = join(root, 'vendor', 'llama.cpp', 'ggml');
    const headers = ['include', 'src'].flatMap((each) => ['-I', join(ggml, each)]);
    const source = join(root, 'test', 'package', 'children', 'gpu-module.c');
    compile([...headers, source, '-o', join(compiled, moduleFile('cuda'))]);
    const libraries = (await readdir(compiled)).filter((name) => !name.endsWith('.node'));
    await writeFile(join(compiled, 'libraries.txt'), libraries.join('\n'));
  });

  it('computes on the GPU that it is for says so, and is loaded next', async () => {
    const { code, stdout, stderr } = await build('--cuda')({ GPUS: '1' });
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(
      /It computes on .*CUDA0 \(a GPU that is played\).*\. The next start of your program loads it\./,
    );
    const { addonPath, gpu } = await loaded({ GPUS: '1' });
    expect({ addonPath, gpu }).toEqual({ addonPath: stdout.trim(), gpu: 'cuda' });
    await clean();
  });

  it('finds no GPU is kept, and a failure with a code of its own, unless it is for other machines', async () => {
    const here = await build('--cuda')();
    expect(here.code, here.stderr).toBe(3);
    expect(here.stderr).toMatch(
      /! It is built and kept, but no GPU can be used by it on this machine: it finds no GPU\. It needs NVIDIA's driver/,
    );
    expect(here.stderr).toContain('with --no-gpu-here that is no failure');
    expect(here.stderr).toMatch(/It computes on CPU .*\. The next start of your program loads it\./);
    expect((await loaded()).addonPath).toBe(here.stdout.trim());
    const elsewhere = await build('--cuda', '--no-gpu-here')();
    expect(elsewhere.code, elsewhere.stderr).toBe(0);
    expect(elsewhere.stderr).toContain('it finds no GPU');
    await clean();
  });

  it('programs will not load, as the environment says otherwise, does not claim so', async () => {
    const { code, stdout, stderr } = await build('--cuda')({ GPUS: '1', LLAMA_HEADSTART_VARIANT: 'vulkan' });
    expect(code, stderr).toBe(0);
    expect(existsSync(stdout.trim())).toBe(true);
    expect(stderr).toMatch(/The next start of your program loads none all the same .*doctor` says why/);
    await clean();
  });

  it('ends the process that loads it is not loaded by any other', async () => {
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
      /It was built, but this machine cannot use it: it ends the process that loads it \((SIGILL\): it was compiled for another CPU|SIGTRAP\))/,
    );
    expect(stderr).toContain('what was loaded before is loaded still');
    expect((await loaded()).addonPath).toBe(before.addonPath);
    await clean();
  });

  it('was defined otherwise has a folder of its own, which says how', async () => {
    const [plain, defined] = [await build()(), await build('--define', 'GGML_LLAMAFILE=OFF')()];
    expect([plain.code, defined.code], defined.stderr).toEqual([0, 0]);
    expect(plain.stdout).not.toBe(defined.stdout);
    const facts = async (output: string) => JSON.parse(await readFile(join(output.trim(), '..', 'build.json'), 'utf8'));
    expect((await facts(plain.stdout)).definitions).toEqual([]);
    expect((await facts(defined.stdout)).definitions).toEqual(['GGML_LLAMAFILE=OFF']);
    expect((await loaded()).addonPath).toBe(defined.stdout.trim());
    await clean();
    expect((await filesBelow(project.home)).filter(({ path }) => path.includes('builds'))).toEqual([]);
  });
});
