// Which CPU module runs, and that nothing else in the world is loaded for it.
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
  it('are there for every generation, and the best for this machine is taken', async () => {
    const files = await readdir(join(project.installed, 'prebuilds', prebuildsName));
    const [stem = ''] = moduleFile('cpu-').split('.');
    const named = modules.map(({ name }) => moduleFile(`cpu-${name}`));
    expect(named.sort()).toEqual(files.filter((name) => name.startsWith(stem)).sort());
    expect(named.length).toBeGreaterThan(1);
    const { cpuModule } = await runSmoke();
    const best = [...modules].sort((a, b) => b.score - a.score)[0];
    expect(cpuModule).toBe(best?.name);
    report(`CPU module here: ${cpuModule}, of ${modules.map(({ name, score }) => `${name} ${score}`).join(', ')}`);
  });

  it('give the same answers warm and cold, each that this machine can run', async () => {
    for (const { name } of modules.filter(({ score }) => score > 0)) {
      const facts = await runSmoke({ LLAMA_HEADSTART_CPU: name });
      expect(facts.cpuModule).toBe(name);
      expect([facts.fromMemory, facts.fromFile], name).toEqual([facts.cold, facts.cold]);
    }
    const ran = modules.filter(({ score }) => score > 0).map(({ name }) => name);
    const left = modules.filter(({ score }) => score === 0).map(({ name }) => name);
    report(
      `  forced here, warm equal to cold to the bit: ${ran.join(', ')}; this CPU cannot run: ${left.join(', ') || 'none'}`,
    );
  });

  it('are refused with a code where the CPU lacks what they need, or there is none of that name', async () => {
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

  it('are looked for beside the addon, not in the current directory nor at GGML_BACKEND_PATH', async () => {
    // A library that ends whatever process loads it.
    const source =
      'int ggml_backend_score(void) { return 1 << 20; } __attribute__((constructor)) static void f(void) { __builtin_trap(); }';
    const directory = await temporaryFolder('decoys');
    const decoy = join(directory, 'decoy.so');
    const compiled = await runProgram('sh', ['-c', `printf '%s' '${source}' | cc -shared -fPIC -x c - -o '${decoy}'`]);
    if (compiled.code !== 0) {
      report(`  decoys: skipped, no C compiler to make one (${compiled.stderr.split('\n')[0]})`);
      return;
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
    // Beside the executable too: a Node in a folder of its own.
    const programs = join(directory, 'bin');
    await mkdir(programs);
    await copyFile(process.execPath, join(programs, 'node'));
    await copyFile(decoy, join(programs, 'libggml-cpu-zen4.so'));
    const facts = await project.run(join(programs, 'node'), [smoke, microModel('dense'), project.home], {
      GGML_BACKEND_PATH: decoy,
    });
    expect(facts.stderr).toBe('');
    expect(facts.code).toBe(0);
    for (const name of await readdir(project.directory)) {
      if (name.endsWith('.so')) {
        await rm(join(project.directory, name));
      }
    }
  });

  it('are missed with a code, and what was tried', async () => {
    const folder = await temporaryFolder('no-modules');
    const prebuilds = join(project.installed, 'prebuilds', prebuildsName);
    const names = await readdir(prebuilds);
    for (const name of names.filter((each) => !each.includes('-cpu'))) {
      await copyFile(join(prebuilds, name), join(folder, name));
    }
    const addon = join(folder, addonFile);
    const script =
      "import('llama-headstart/native').then((m) => m.systemInfo()).catch((e) => console.log(e.code, e.message))";
    const none = await project.node(['-e', script], { LLAMA_HEADSTART_ADDON: addon });
    expect(none).toMatch(
      /^ADDON_NOT_FOUND .* cannot be started: No CPU module could be loaded from .*\(no module there\)/,
    );
    for (const told of [platformName, addon, 'npx llama-headstart build', 'npx llama-headstart doctor']) {
      expect(none).toContain(told);
    }
    // A module that is no library: named, with the system's reason.
    await symlink(join(prebuilds, '..', '..', 'package.json'), join(folder, moduleFile('cpu-x64')));
    const broken = await project.node(['-e', script], { LLAMA_HEADSTART_ADDON: addon });
    expect(broken).toMatch(/^ADDON_NOT_FOUND .*\(x64: .*(invalid ELF header|Exec format error|mach-o).*\)/);
  });
});

describe('node-llama-cpp', () => {
  it('lives in the same process, each with its own llama.cpp', async () => {
    await project.npm('install', '--ignore-scripts', 'node-llama-cpp@3.22.1');
    const neighbour = await project.child('neighbour.mjs');
    const { before, after, theirs } = JSON.parse(await project.node([neighbour, microModel('dense')]));
    expect(after).toEqual(before);
    expect(theirs).toBeGreaterThan(0);
    report(`  node-llama-cpp 3.22.1 in the same process: both compute, ours as before`);
  });
});
