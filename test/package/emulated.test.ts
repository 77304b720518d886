// CPUs that are not here, emulated: the older x86-64 generations, and arm64. What cannot be emulated is named in docs/building.md.
import { existsSync, readdirSync } from 'node:fs';
import { copyFile, cp } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ensureEmulators } from '../../scripts/lib/emulators.mjs';
import { ensureNode } from '../../scripts/lib/node-versions.mjs';
import { microModel } from '../helpers/models.js';
import { Project, report, root } from '../helpers/package.js';

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
  report(`Emulated CPUs: skipped, ${error.message}`);
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

  const arm64 = join(root, 'prebuilds', 'linux-arm64');
  const built = existsSync(join(arm64, 'llama-headstart.glibc.node'));
  if (!built) {
    report('arm64: skipped, not built: `npm run build:prebuilt -- --platform linux-arm64` makes it');
  }

  it.skipIf(!built)('arm64 loads, prefills, saves and restores', async () => {
    const node = await ensureNode(NODE, 'linux-arm64');
    await cp(arm64, join(project.installed, 'prebuilds', 'linux-arm64'), { recursive: true });
    await copyFile(smoke, join(project.directory, 'smoke-arm64.mjs'));
    for (const cpu of ['cortex-a57', 'cortex-a76', 'neoverse-n1', 'max']) {
      const { code, stdout, stderr } = await project.run(emulators?.arm64 ?? '', [
        ...['-cpu', cpu, '-L', emulators?.arm64Libraries ?? '', node],
        ...[join(project.directory, 'smoke-arm64.mjs'), microModel('dense'), project.home],
      ]);
      expect(code, `${cpu}: ${stderr}`).toBe(0);
      const facts = JSON.parse(stdout);
      expect(facts.arch).toBe('arm64');
      expect([facts.fromMemory, facts.fromFile]).toEqual([facts.cold, facts.cold]);
      const count = readdirSync(arm64).filter((name) => name.includes('-cpu-')).length;
      report(`  qemu-aarch64 -cpu ${cpu}: ${facts.cpuModule} of ${count}, warm equal to cold to the bit`);
    }
  });
});
