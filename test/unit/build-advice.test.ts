// What a machine needs to compile the addon, and what its owner is told where something is missing or too old. The tools are scripts
// that say a version: nobody has a CMake of 2019 at hand.
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const program = fileURLToPath(new URL('../../bin/llama-headstart.mjs', import.meta.url));

/** What each says of itself at `--version`. */
const ENOUGH = {
  cmake: 'cmake version 3.21.0',
  ninja: '1.11.1',
  'c++': 'c++ (Ubuntu 9.4.0-1ubuntu1~20.04.2) 9.4.0',
};
type Tools = Partial<Record<keyof typeof ENOUGH | 'g++' | 'g++-7' | 'nvcc' | 'glslc' | 'make', string>>;

let home: string;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'llama-headstart-advice-'));
});

afterEach(() => rm(home, { recursive: true, force: true }));

/** Runs the command line where these tools, and no others, are on the PATH. */
async function run(args: string[], tools: Tools, env: NodeJS.ProcessEnv = {}) {
  const bin = join(home, 'bin');
  await mkdir(bin);
  await symlink(process.execPath, join(bin, 'node'));
  for (const [name, version] of Object.entries(tools)) {
    await writeFile(join(bin, name), `#!/bin/sh\necho '${version}'\n`);
    await chmod(join(bin, name), 0o755);
  }
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(CXX|CUDACXX|LLAMA_)/.test(name)));
  return new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
    execFile(
      process.execPath,
      [program, ...args],
      { env: { ...clean, HOME: home, XDG_CACHE_HOME: join(home, '.cache'), PATH: bin, ...env } },
      (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr }),
    );
  });
}

describe.skipIf(process.platform === 'win32')('llama-headstart build', () => {
  const cases: [string, string[], Tools, string][] = [
    ['a CMake', [], { ...ENOUGH, cmake: 'cmake version 3.16.3' }, 'CMake 3.21 or newer (found 3.16)'],
    ['a GCC', [], { ...ENOUGH, 'c++': 'c++ (GCC) 8.5.0 20210514 (Red Hat 8.5.0-4)' }, 'GCC 9 or newer (c++ is 8)'],
    ['a Clang', [], { ...ENOUGH, 'c++': 'Debian clang version 7.0.1-8' }, 'clang 10 or newer (c++ is 7)'],
    [
      'a CUDA toolkit',
      ['--cuda'],
      { ...ENOUGH, nvcc: 'Cuda compilation tools, release 11.2, V11.2.67' },
      'CUDA 11.7 or newer (nvcc is 11.2)',
    ],
  ];

  it.each(cases)(
    'names %s that is too old, what is needed, and how to get it',
    async (_what, options, tools, problem) => {
      const { code, stderr } = await run(['build', ...options], tools);
      expect(code).toBe(1);
      expect(stderr).toContain(`To compile llama.cpp this machine lacks: ${problem}.`);
      expect(stderr).toMatch(/Install:\n {4}(Debian|xcode-select)/);
      if (options.includes('--cuda')) {
        expect(stderr).toContain('the CUDA toolkit 11.7 or newer (https://developer.nvidia.com/cuda-downloads)');
      }
      expect(existsSync(join(home, '.cache'))).toBe(false);
    },
  );

  it('looks at the compiler that CXX names, whatever it is called', async () => {
    const { stderr } = await run(
      ['build'],
      { ...ENOUGH, 'g++-7': 'x86_64-linux-gnu-g++-7 (Ubuntu 7.5.0-6ubuntu2) 7.5.0' },
      { CXX: 'g++-7' },
    );
    expect(stderr).toContain('GCC 9 or newer (g++-7 is 7)');
  });

  it('names all that is missing at once', async () => {
    const { code, stderr } = await run(['build', '--vulkan'], {});
    expect(code).toBe(1);
    expect(stderr).toContain('lacks: CMake, a C++ compiler, ninja or make, the Vulkan SDK (glslc).');
    expect(stderr).toContain('libvulkan-dev');
  });

  it('takes tools that are new enough, and goes on to compile', async () => {
    // Apple's numbers are its own: 9 there is no Clang 9. This CMake can only say its version, so that is where it ends.
    const tools = { ...ENOUGH, 'c++': 'Apple clang version 9.1.0 (clang-902.0.39.2)' };
    const { stderr } = await run(['build'], tools);
    expect(stderr).toContain('llama.cpp is compiled in ');
    expect(stderr).not.toContain('lacks');
  });
});

describe.skipIf(process.platform === 'win32')('llama-headstart doctor', () => {
  it('says whether this machine could build, and what is in the way', async () => {
    const old = await run(['doctor'], { ...ENOUGH, cmake: 'cmake version 3.16.3' });
    expect(old.stdout).toContain('cmake: cmake version 3.16.3');
    expect(old.stdout).toContain('`npx llama-headstart build` lacks: CMake 3.21 or newer (found 3.16)');
    await rm(join(home, 'bin'), { recursive: true });
    const enough = await run(['doctor'], ENOUGH);
    expect(enough.stdout).toContain('enough for `npx llama-headstart build`');
    expect(await readdir(home)).toEqual(['bin']);
  });
});
