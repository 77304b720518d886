// Tests the package on emulated CPUs: older x86-64 generations and arm64. docs/guide/building.md says which CPU
// modules were tested in an emulator.
import { readdirSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ensureEmulators } from '../../scripts/lib/emulators.mjs';
import { ensureNode } from '../../scripts/lib/node-versions.mjs';
import { microModel } from '../helpers/models.js';
import { Project, report, tarball } from '../helpers/package.js';

const NODE = '20.20.2';

/** CPUs by their names in qemu, with the module that must be loaded. qemu emulates no instructions beyond AVX2. */
const GENERATIONS = [
  { cpu: 'qemu64', module: 'x64' },
  { cpu: 'Nehalem', module: 'sse42' },
  { cpu: 'SandyBridge', module: 'sandybridge' },
  { cpu: 'IvyBridge', module: 'ivybridge' },
  { cpu: 'max,avx2=off,bmi2=off', module: 'piledriver' },
  { cpu: 'Haswell', module: 'haswell' },
];

const emulators = await ensureEmulators().catch((error: Error) => {
  report(`Tests on emulated CPUs, including arm64: SKIPPED, ${error.message}`);
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

  it.each(GENERATIONS)('an x86-64 CPU like $cpu loads the module $module and starts warm', async ({ cpu, module }) => {
    const { code, stdout, stderr } = await project.run(emulators?.x64 ?? '', [
      ...['-cpu', cpu, process.execPath, '--jitless', smoke, microModel('dense'), project.home],
    ]);
    expect(code, stderr).toBe(0);
    const result = JSON.parse(stdout);
    expect(result.cpuModule).toBe(module);
    expect([result.fromMemory, result.fromFile]).toEqual([result.cold, result.cold]);
    report(`  qemu-x86_64 -cpu ${cpu}: loads ${result.cpuModule}, warm logits equal cold logits`);
  });

  // The emulated system has Debian's glibc, so the binaries for musl cannot be tested here.
  const packed = tarball().files.some(({ path }) => path === 'prebuilds/linux-arm64/llama-headstart.glibc.node');
  if (!packed) {
    report('arm64: SKIPPED, the tarball has no arm64 binaries. `npm run test:package` without --no-arm64 builds them.');
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
      const result = JSON.parse(stdout);
      expect(result.arch).toBe('arm64');
      expect([result.fromMemory, result.fromFile]).toEqual([result.cold, result.cold]);
      return result;
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
    ])('a CPU like $cpu loads the module $module and starts warm', async ({ cpu, module }) => {
      const { cpuModule } = await run(cpu);
      expect(cpuModule).toBe(module);
      report(`  qemu-aarch64 -cpu ${cpu}: loads ${cpuModule}, warm logits equal cold logits`);
    });

    it('starts warm with every CPU module', async () => {
      const modules = readdirSync(join(project.installed, 'prebuilds', 'linux-arm64')).flatMap(
        (name) => /^headstart-ggml-cpu-(.*)\.so$/.exec(name)?.[1] ?? [],
      );
      for (const module of modules) {
        const { cpuModule } = await run('max', { LLAMA_HEADSTART_CPU: module });
        expect(cpuModule).toBe(module);
      }
      expect(modules.length).toBeGreaterThan(5);
      report(`  qemu-aarch64 -cpu max, with LLAMA_HEADSTART_CPU: warm logits equal cold logits: ${modules.join(', ')}`);
    });
  });
});
