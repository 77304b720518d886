// CPUs that are not here, emulated: the older x86-64 generations, and arm64. What cannot be emulated is named in docs/guide/building.md.
import { readdirSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ensureEmulators } from '../../scripts/lib/emulators.mjs';
import { ensureNode } from '../../scripts/lib/node-versions.mjs';
import { microModel } from '../helpers/models.js';
import { Project, report, tarball } from '../helpers/package.js';

const NODE = '20.20.2';

/** What qemu calls a CPU, and the module that must be chosen on it. qemu emulates nothing above AVX2. */
const GENERATIONS = [
  { cpu: 'qemu64', module: 'x64' },
  { cpu: 'Nehalem', module: 'sse42' },
  { cpu: 'SandyBridge', module: 'sandybridge' },
  { cpu: 'IvyBridge', module: 'ivybridge' },
  { cpu: 'max,avx2=off,bmi2=off', module: 'piledriver' },
  { cpu: 'Haswell', module: 'haswell' },
];

const emulators = await ensureEmulators().catch((error: Error) => {
  report(`Emulated CPUs, arm64 among them: SKIPPED, ${error.message}`);
  return null;
});

describe.skipIf(emulators === null)('under emulation', () => {
  let project: Project;
  let smoke: string;

  beforeAll(async () => {
    project = await Project.create('emulated');
    await project.install();
    smoke = await project.child('smoke.mjs');
  });

  it.each(GENERATIONS)('an x86-64 CPU like $cpu takes the module $module, and starts warm', async ({ cpu, module }) => {
    const { code, stdout, stderr } = await project.run(emulators?.x64 ?? '', [
      ...['-cpu', cpu, process.execPath, '--jitless', smoke, microModel('dense'), project.home],
    ]);
    expect(code, stderr).toBe(0);
    const facts = JSON.parse(stdout);
    expect(facts.cpuModule).toBe(module);
    expect([facts.fromMemory, facts.fromFile]).toEqual([facts.cold, facts.cold]);
    report(`  qemu-x86_64 -cpu ${cpu}: ${facts.cpuModule}, warm equal to cold to the bit`);
  });

  // What runs emulated is Debian's libc: the binaries for musl are not for here.
  const packed = tarball().files.some(({ path }) => path === 'prebuilds/linux-arm64/llama-headstart.glibc.node');
  if (!packed) {
    report('arm64: SKIPPED, the tarball has no binaries for it: `npm run test:package` without --no-arm64 makes them');
  }

  describe.skipIf(!packed)('arm64', () => {
    let node: string;
    let child: string;

    const run = async (cpu: string, env: NodeJS.ProcessEnv = {}) => {
      const { code, stdout, stderr } = await project.run(
        emulators?.arm64 ?? '',
        ['-cpu', cpu, '-L', emulators?.arm64Libraries ?? '', node, child, microModel('dense'), project.home],
        env,
      );
      expect(code, `${cpu}: ${stderr}`).toBe(0);
      const facts = JSON.parse(stdout);
      expect(facts.arch).toBe('arm64');
      expect([facts.fromMemory, facts.fromFile]).toEqual([facts.cold, facts.cold]);
      return facts;
    };

    beforeAll(async () => {
      node = await ensureNode(NODE, 'linux-arm64');
      child = join(project.directory, 'smoke-arm64.mjs');
      await copyFile(smoke, child);
    });

    it.each([
      { cpu: 'cortex-a57', module: 'armv8.0_1' },
      { cpu: 'cortex-a76', module: 'armv8.2_2' },
      { cpu: 'neoverse-n1', module: 'armv8.2_2' },
      { cpu: 'max', module: 'armv9.2_2' },
    ])('a CPU like $cpu takes the module $module, and starts warm', async ({ cpu, module }) => {
      const facts = await run(cpu);
      expect(facts.cpuModule).toBe(module);
      report(`  qemu-aarch64 -cpu ${cpu}: ${facts.cpuModule}, warm equal to cold to the bit`);
    });

    it('starts warm with every module', async () => {
      const modules = readdirSync(join(project.installed, 'prebuilds', 'linux-arm64')).flatMap(
        (name) => /^headstart-ggml-cpu-(.*)\.so$/.exec(name)?.[1] ?? [],
      );
      for (const module of modules) {
        const facts = await run('max', { LLAMA_HEADSTART_CPU: module });
        expect(facts.cpuModule).toBe(module);
      }
      expect(modules.length).toBeGreaterThan(5);
      report(`  qemu-aarch64 -cpu max, forced: ${modules.join(', ')}, warm equal to cold to the bit`);
    });
  });
});
