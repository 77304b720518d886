// Tests which CPU module is loaded, and that no library outside the package is loaded instead.
import { copyFile, mkdir, readdir, rm, symlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import {
  moduleFile,
  Project,
  platformName,
  prebuildsName,
  report,
  runProgram,
  temporaryFolder,
} from '../helpers/package.js';

interface Smoke {
  cold: string;
  fromMemory: string;
  fromFile: string;
  cpuModule: string;
  addonPath: string;
}

let project: Project;
let smoke: string;
let addonFile: string;
let modules: { name: string; path: string; score: number; problem: string | null }[];

const doctor = async (env: NodeJS.ProcessEnv = {}) =>
  JSON.parse(await project.node([join(project.installed, 'bin', 'llama-headstart.mjs'), 'doctor', '--json'], env));

const runSmoke = async (env: NodeJS.ProcessEnv = {}): Promise<Smoke> =>
  JSON.parse(await project.node([smoke, microModel('dense'), project.home], env));

beforeAll(async () => {
  project = await Project.create('modules');
  await project.install();
  smoke = await project.child('smoke.mjs');
  const { loaded } = await doctor();
  addonFile = basename(loaded.path);
  modules = loaded.tried;
});

describe('the CPU modules', () => {
  it('are installed for every CPU generation, and the best one for this machine is loaded', async () => {
    const files = await readdir(join(project.installed, 'prebuilds', prebuildsName));
    const [stem = ''] = moduleFile('cpu-').split('.');
    const tried = modules.map(({ name }) => moduleFile(`cpu-${name}`));
    expect(tried.sort()).toEqual(files.filter((name) => name.startsWith(stem)).sort());
    expect(tried.length).toBeGreaterThan(1);
    const { cpuModule } = await runSmoke();
    const best = [...modules].sort((a, b) => b.score - a.score)[0];
    expect(cpuModule).toBe(best?.name);
    const scores = modules.map(({ name, score }) => `${name} ${score}`).join(', ');
    report(`CPU module on this machine: ${cpuModule}. Scores: ${scores}`);
  });

  it('that this machine can run compute the same logits warm and cold', async () => {
    for (const { name } of modules.filter(({ score }) => score > 0)) {
      const { cpuModule, cold, fromMemory, fromFile } = await runSmoke({ LLAMA_HEADSTART_CPU: name });
      expect(cpuModule).toBe(name);
      expect([fromMemory, fromFile], name).toEqual([cold, cold]);
    }
    const usable = modules.filter(({ score }) => score > 0).map(({ name }) => name);
    const unusable = modules.filter(({ score }) => score === 0).map(({ name }) => name);
    report(
      `  warm logits equal cold logits: ${usable.join(', ')}; this CPU cannot run: ${unusable.join(', ') || 'none'}`,
    );
  });

  it('are refused with an error if the CPU lacks their instructions or the name is unknown', async () => {
    for (const name of [...modules.filter(({ score }) => score === 0).map((module) => module.name), 'no-such-cpu']) {
      const { loaded, problem } = JSON.parse(
        (
          await project.run(
            process.execPath,
            [join(project.installed, 'bin/llama-headstart.mjs'), 'doctor', '--json'],
            {
              LLAMA_HEADSTART_CPU: name,
            },
          )
        ).stdout,
      );
      expect(loaded, name).toBeNull();
      expect(problem).toContain(`No CPU module "${name}" could be loaded from`);
      expect(problem).toContain('Unset LLAMA_HEADSTART_CPU');
    }
  });

  it('are loaded only from the directory of the addon, not from the current directory or GGML_BACKEND_PATH', async ({
    skip,
  }) => {
    // A library that crashes the process which loads it.
    const source =
      'int ggml_backend_score(void) { return 1 << 20; } __attribute__((constructor)) static void f(void) { __builtin_trap(); }';
    const directory = await temporaryFolder('decoys');
    const decoy = join(directory, 'decoy.so');
    const compiled = await runProgram('sh', ['-c', `printf '%s' '${source}' | cc -shared -fPIC -x c - -o '${decoy}'`]);
    if (compiled.code !== 0) {
      report(`  decoys: SKIPPED, there is no C compiler (${compiled.stderr.split('\n')[0]})`);
      skip('there is no C compiler');
    }
    for (const name of [
      'libggml-cpu-zen4',
      'libggml-cpu',
      'libggml-blas',
      'headstart-ggml-cpu-zen9',
      'headstart-musl-ggml-cpu-zen9',
      'ggml-cpu',
    ]) {
      await copyFile(decoy, join(project.directory, `${name}.so`));
    }
    // ggml also searches the directory of the executable. The test runs a copy of Node.js in a directory with a decoy.
    const programs = join(directory, 'bin');
    await mkdir(programs);
    await copyFile(process.execPath, join(programs, 'node'));
    await copyFile(decoy, join(programs, 'libggml-cpu-zen4.so'));
    const { code, stderr } = await project.run(join(programs, 'node'), [smoke, microModel('dense'), project.home], {
      GGML_BACKEND_PATH: decoy,
    });
    expect(stderr).toBe('');
    expect(code).toBe(0);
    for (const name of await readdir(project.directory)) {
      if (name.endsWith('.so')) {
        await rm(join(project.directory, name));
      }
    }
  });

  it('are named in the error if none of them can be loaded', async () => {
    const folder = await temporaryFolder('no-modules');
    const prebuilds = join(project.installed, 'prebuilds', prebuildsName);
    const names = await readdir(prebuilds);
    for (const name of names.filter((file) => !file.includes('-cpu'))) {
      await copyFile(join(prebuilds, name), join(folder, name));
    }
    const addon = join(folder, addonFile);
    const script =
      "import('llama-headstart/native').then((m) => m.systemInfo()).catch((e) => console.log(e.code, e.message))";
    const none = await project.node(['-e', script], { LLAMA_HEADSTART_ADDON: addon });
    expect(none).toMatch(
      /^ADDON_NOT_FOUND .* cannot be started: No CPU module could be loaded from .*\(no module is there\)/,
    );
    for (const text of [platformName, addon, 'npx llama-headstart build', 'npx llama-headstart doctor']) {
      expect(none).toContain(text);
    }
    // If a module is not a library, the message has its name and the system's error.
    await symlink(join(prebuilds, '..', '..', 'package.json'), join(folder, moduleFile('cpu-x64')));
    const broken = await project.node(['-e', script], { LLAMA_HEADSTART_ADDON: addon });
    expect(broken).toMatch(/^ADDON_NOT_FOUND .*\(x64: .*(invalid ELF header|Exec format error|mach-o).*\)/);
  });
});

describe('node-llama-cpp', () => {
  it('works in the same process with its own llama.cpp, and does not change the logits of this package', async () => {
    await project.npm('install', '--ignore-scripts', 'node-llama-cpp@3.22.1');
    const program = await project.child('with-node-llama-cpp.mjs');
    const { before, after, tokenCount } = JSON.parse(await project.node([program, microModel('dense')]));
    expect(after).toEqual(before);
    expect(tokenCount).toBeGreaterThan(0);
    report('  with node-llama-cpp 3.22.1 in one process: both compute, and llama-headstart computes the same logits');
  });
});
