// Tests the advice of `llama-headstart build` about missing and outdated tools, and the files that interrupted and
// failed builds leave. The tools in these tests are shell scripts that print a version, because no outdated tool is
// installed.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { variants } from '../helpers/soak.js';

const program = fileURLToPath(new URL('../../bin/llama-headstart.mjs', import.meta.url));

/** The output that each tool prints for `--version`. These versions are new enough for a build. */
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

/** A script instead of CMake. It prints its version for `--version`, and otherwise "builds" until its output closes. */
const FOREVER = `cmake version 3.21.0'; [ "$1" = --version ] || while echo "[5/10] Building"; do /bin/sleep 0.05; done; echo '`;

/** Starts `llama-headstart` in a process whose PATH contains only Node.js and these tools. */
function start(args: string[], tools: Tools, env: NodeJS.ProcessEnv = {}) {
  const bin = join(home, 'bin');
  rmSync(bin, { recursive: true, force: true });
  mkdirSync(bin);
  symlinkSync(process.execPath, join(bin, 'node'));
  for (const [name, version] of Object.entries(tools)) {
    writeFileSync(join(bin, name), `#!/bin/sh\necho '${version}'\n`, { mode: 0o755 });
  }
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(CXX|CUDACXX|LLAMA_)/.test(name)));
  const child = spawn(process.execPath, [program, ...args], {
    env: { ...clean, HOME: home, XDG_CACHE_HOME: join(home, '.cache'), PATH: bin, ...env },
  });
  const written = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text) => {
    written.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    written.stderr += text;
  });
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, ...written }));
  return {
    pid: child.pid,
    ended,
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    /** Resolves when stderr contains `text`. */
    async hasPrinted(text: string) {
      while (!written.stderr.includes(text)) {
        await Promise.race([once(child.stderr, 'data'), ended.then(() => Promise.reject(new Error(written.stderr)))]);
      }
    },
  };
}

const run = (args: string[], tools: Tools, env: NodeJS.ProcessEnv = {}) => start(args, tools, env).ended;

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
    'names %s that is too old, the required version, and how to install it',
    async (_what, options, tools, problem) => {
      const { code, stderr } = await run(['build', ...options], tools);
      expect(code).toBe(1);
      expect(stderr).toContain(`To compile llama.cpp this machine lacks: ${problem}.`);
      expect(stderr).toMatch(
        options.includes('--cuda')
          ? /Install:\n {4}the CUDA toolkit 11.7 or newer \(https:\/\/developer.nvidia.com\/cuda-downloads\)/
          : /Install:\n {4}(Debian|xcode-select)/,
      );
      expect(existsSync(join(home, '.cache'))).toBe(false);
    },
  );

  it('checks the version of the compiler that the variable CXX selects', async () => {
    const { stderr } = await run(
      ['build'],
      { ...ENOUGH, 'g++-7': 'x86_64-linux-gnu-g++-7 (Ubuntu 7.5.0-6ubuntu2) 7.5.0' },
      { CXX: 'g++-7' },
    );
    expect(stderr).toContain('GCC 9 or newer (g++-7 is 7)');
  });

  it('names all missing tools at once', async () => {
    const { code, stderr } = await run(['build', '--vulkan'], {});
    expect(code).toBe(1);
    expect(stderr).toContain('lacks: CMake, a C++ compiler, ninja or make, the Vulkan SDK (glslc).');
    expect(stderr).toContain('libvulkan-dev');
  });

  it.skipIf(process.platform === 'darwin')(
    'refuses Metal on systems other than macOS, and names the alternatives',
    async () => {
      const { code, stderr } = await run(['build', '--metal'], ENOUGH);
      expect(code).toBe(1);
      expect(stderr).toContain('Metal is for Macs. On this machine use --cuda or --vulkan for a GPU');
      expect(stderr).not.toContain('apt install');
    },
  );

  const invalid = [['--jobs=0'], ['--jobs=many'], ['--define=CUDA'], ['--cuda', '--vulkan'], ['--fast']];
  it.each(variants(invalid, (_, index) => index % 2 === 1).map((options) => [options]))(
    'refuses the invalid options %j and creates no file',
    async (options) => {
      const { code, stderr } = await run(['build', ...options], ENOUGH);
      expect(code).toBe(2);
      expect(stderr).toMatch(/Expected|Unknown option/);
      expect(existsSync(join(home, '.cache'))).toBe(false);
    },
  );

  it('begins to compile if all tools are new enough', async () => {
    // Apple numbers the versions of its Clang differently, so version 9 of Apple's Clang is accepted. The build then
    // fails, because the CMake of this test can only print its version.
    const tools = { ...ENOUGH, 'c++': 'Apple clang version 9.1.0 (clang-902.0.39.2)' };
    const { stderr } = await run(['build'], tools);
    expect(stderr).toContain('llama.cpp is compiled in ');
    expect(stderr).not.toContain('lacks');
  });
});

describe.skipIf(process.platform === 'win32')('an unusable cache directory', () => {
  it('is reported by `build` and by `doctor`, and `build` names the environment variable to set', async () => {
    await writeFile(join(home, '.cache'), 'a file where a folder should be');
    const { code, stderr } = await run(['build'], ENOUGH);
    expect(code).toBe(1);
    expect(stderr).toContain(
      `Expected your cache directory ${join(home, '.cache', 'llama-headstart')} to be writable: `,
    );
    expect(stderr).toMatch(/Set (XDG_CACHE_HOME|HOME) to a writable folder/);
    const { stdout } = await run(['doctor'], ENOUGH);
    expect(stdout).toMatch(/^Cache: .*, does not exist yet, and cannot be created, NOT WRITABLE$/m);
  });

  it('is reported if the user has no home directory', async () => {
    const nowhere = { HOME: '', XDG_CACHE_HOME: '' };
    const { code, stderr } = await run(['build'], ENOUGH, nowhere);
    expect(code).toBe(2);
    expect(stderr).toMatch(/Expected a home directory for caches, but there is none. Set (XDG_CACHE_HOME|HOME)/);
    const { stdout } = await run(['doctor'], ENOUGH, nowhere);
    expect(stdout).toMatch(/^Cache: none, NOT USABLE: Expected a home directory/m);
  });
});

describe.skipIf(process.platform === 'win32')('two builds with the same options', () => {
  /** Returns the path of the only lock file, or undefined if there is none. */
  const lock = async () => {
    const trees = join(home, '.cache', 'llama-headstart', 'build-trees');
    const name = (await readdir(trees)).find((each) => each.endsWith('.lock'));
    return name === undefined ? undefined : join(trees, name);
  };

  it('never run at the same time: the second one fails, and a killed build does not block the next one', async () => {
    const building = start(['build'], { ...ENOUGH, cmake: FOREVER });
    await building.hasPrinted('50 %');
    const second = await run(['build'], ENOUGH);
    expect(second.code).toBe(1);
    expect(second.stderr).toContain(`Another build with these options is running, in process ${building.pid}`);
    const lockFile = (await lock()) ?? '';
    building.kill('SIGKILL');
    await building.ended;
    expect(existsSync(lockFile)).toBe(true);
    const third = await run(['build'], ENOUGH);
    expect(third.stderr).toContain('llama.cpp is compiled in ');
    expect(await lock()).toBeUndefined();
  });
});

describe.skipIf(process.platform === 'win32')('an interrupted build', () => {
  const signals = [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const;
  it.each(variants(signals, ([signal]) => signal !== 'SIGHUP'))(
    'reports its interruption by %s, exits with code %i, and leaves no lock file and no library',
    async (signal, code) => {
      const building = start(['build'], { ...ENOUGH, cmake: FOREVER });
      await building.hasPrinted('50 %');
      building.kill(signal);
      const ended = await building.ended;
      expect(ended.code).toBe(code);
      expect(ended.stderr).toContain(
        'Interrupted. The compiled files are kept. Run the same command again to continue.',
      );
      const left = await readdir(join(home, '.cache', 'llama-headstart'), { recursive: true });
      expect(left.filter((name) => /\.(lock|node|so)$/.test(name))).toEqual([]);
      const { stdout } = await run(['doctor'], ENOUGH);
      expect(stdout).toMatch(/^ {2}not finished: .*build-trees.* continues it/m);
    },
  );
});

describe.skipIf(process.platform === 'win32')('a failed build', () => {
  // A script instead of CMake. It keeps a CMakeCache.txt as CMake does, records whether it found one, and always fails.
  const FAILING = `cmake version 3.21.0'
case "$1" in
  -S) [ -e "$4/CMakeCache.txt" ] && echo kept >>"$HOME/begun" || echo "fresh $CXX" >>"$HOME/begun"; : >"$4/CMakeCache.txt" ;;
  --build) echo 'error: too old'; exit 1 ;;
esac; echo '`;

  it('is continued by a build with the same compiler, and started again by a build with another one', async () => {
    const tools = { ...ENOUGH, 'g++': ENOUGH['c++'], cmake: FAILING };
    for (const CXX of ['c++', 'c++', 'g++']) {
      const { code, stderr } = await run(['build'], tools, { CXX });
      expect(code, stderr).toBe(1);
      expect(stderr).toContain('too old');
    }
    expect(await readFile(join(home, 'begun'), 'utf8')).toBe('fresh c++\nfresh g++\n');
  });
});

describe.skipIf(process.platform === 'win32')('a compiler that nvcc does not support', () => {
  it('is reported together with the environment variable that selects another compiler', async () => {
    const refusing = `cmake version 3.21.0'
[ "$1" != --build ] || { echo 'host_config.h:182: fatal error: #error -- unsupported GNU version! gcc versions later than 13'; exit 1; }
echo '`;
    const nvcc = 'Cuda compilation tools, release 12.4, V12.4.131';
    const { code, stderr } = await run(['build', '--cuda'], { ...ENOUGH, cmake: refusing, nvcc });
    expect(code).toBe(1);
    expect(stderr).toContain('unsupported GNU version');
    expect(stderr).toContain('CUDAHOSTCXX=g++-13');
  });
});

describe.skipIf(process.platform === 'win32')('llama-headstart doctor', () => {
  it('says whether this machine can build the addon, and lists missing and outdated tools', async () => {
    const old = await run(['doctor'], { ...ENOUGH, cmake: 'cmake version 3.16.3' });
    expect(old.stdout).toContain('cmake: cmake version 3.16.3');
    expect(old.stdout).toContain('`npx llama-headstart build` lacks: CMake 3.21 or newer (found 3.16)');
    const enough = await run(['doctor'], ENOUGH);
    expect(enough.stdout).toContain('These tools are enough for `npx llama-headstart build`.');
    expect(await readdir(home)).toEqual(['bin']);
  });
});
