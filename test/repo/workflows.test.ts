// Checks the workflows without running them: the scripts, files and jobs that a workflow names must exist.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = join(root, '.github', 'workflows');
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> };

interface Job {
  needs?: string | string[];
  uses?: string;
  permissions?: Record<string, string>;
  strategy?: { matrix: { include: Record<string, unknown>[] } };
  'timeout-minutes'?: number;
  steps?: { uses?: string; run?: string; if?: string }[];
}
interface Workflow {
  name: string;
  permissions: Record<string, string>;
  jobs: Record<string, Job>;
}

const workflows = readdirSync(folder).map((file) => {
  const text = readFileSync(join(folder, file), 'utf8');
  return { file, text, workflow: parse(text, { strict: true, uniqueKeys: true }) as Workflow };
});

describe.each(workflows)('the workflow $file', ({ text, workflow }) => {
  const jobs = Object.entries(workflow.jobs);
  const steps = jobs.flatMap(([, job]) => job.steps ?? []);
  const commands = steps.flatMap(({ run }) => run ?? []).join('\n');

  it('names only existing npm scripts and files', () => {
    const run = [...commands.matchAll(/npm (?:run )?([\w:-]+)/g)].map(([, name = '']) => name);
    const npmCommands = new Set(['ci', 'publish', 'view']);
    expect(run.filter((name) => !(name in scripts) && !npmCommands.has(name))).toEqual([]);
    const files = [...commands.matchAll(/(?:^|\s)((?:scripts|\.github)\/[\w./-]+)/g)].map(([, file = '']) => file);
    expect(files.filter((file) => !existsSync(join(root, file)))).toEqual([]);
    for (const file of files.filter((each) => each.endsWith('.sh'))) {
      expect(statSync(join(root, file)).mode & 0o111, `${file} can be executed`).toBe(0o111);
    }
    const called = jobs.flatMap(([, { uses }]) => (uses?.startsWith('./') ? [uses] : []));
    expect(called.filter((file) => !existsSync(join(root, file)))).toEqual([]);
  });

  it('has jobs that wait only for existing jobs, and have a time limit', () => {
    for (const [name, { needs = [], steps: jobSteps, 'timeout-minutes': minutes }] of jobs) {
      expect([needs].flat().filter((each) => !(each in workflow.jobs))).toEqual([]);
      expect(jobSteps === undefined || minutes !== undefined, `${name} has a time limit`).toBe(true);
    }
  });

  it('uses only matrix keys that an entry of its matrix has', () => {
    const keys = new Set(
      jobs.flatMap(([, { strategy }]) => (strategy?.matrix.include ?? []).flatMap((each) => Object.keys(each))),
    );
    const usedKeys = [...text.matchAll(/matrix\.(\w+)/g)].map(([, key = '']) => key);
    expect(usedKeys.filter((key) => !keys.has(key))).toEqual([]);
  });

  it('pins each action to a major version, the same in all workflows', () => {
    const used = workflows.flatMap((each) => [...each.text.matchAll(/uses: ([\w-]+\/[\w./-]+)@(\S+)/g)]);
    const versions = new Map(used.map(([, action = '', version = '']) => [action, version]));
    for (const [, action = '', version = ''] of used) {
      expect(version).toMatch(/^v\d+/);
      expect(version, action).toBe(versions.get(action));
    }
  });

  it('has only read access to the repository, and publishes only with provenance', () => {
    expect(workflow.permissions).toEqual({ contents: 'read' });
    for (const [name, job] of jobs) {
      const publishes = (job.steps ?? []).some(({ run }) => run?.includes('npm publish'));
      expect(job.permissions, name).toEqual(publishes ? { contents: 'read', 'id-token': 'write' } : undefined);
    }
    const published = commands.split('\n').filter((line) => line.includes('npm publish'));
    expect(published.filter((line) => !/--ignore-scripts --provenance/.test(line))).toEqual([]);
  });
});

describe.skipIf(process.platform === 'win32')('a publication', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'llama-headstart-publish-'));
  });

  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it('that was interrupted continues with the packages that the registry does not have', () => {
    const steps = workflows.find(({ file }) => file === 'release.yml')?.workflow.jobs.publish?.steps ?? [];
    const script = steps.find(({ run }) => run?.includes('npm publish'))?.run ?? '';
    const packages = {
      '.': 'a',
      'packages/d': '@l/d',
      'gpu-packages/@llama-headstart/b': '@l/b',
      'gpu-packages/@llama-headstart/c': '@l/c',
    };
    for (const [folder, name] of Object.entries(packages)) {
      mkdirSync(join(directory, folder), { recursive: true });
      writeFileSync(join(directory, folder, 'package.json'), JSON.stringify({ name, version: '1.2.3' }));
    }
    // This `npm` simulates a registry that has the version of @l/b, but no version of the other packages.
    const npm = `#!/bin/sh
case "$*" in
  "view @l/b@1.2.3 version") echo 1.2.3 ;;
  "view @l/c@1.2.3 version") echo 'npm error code E404' >&2; exit 1 ;;
  publish*) echo "$*" ;;
esac\n`;
    mkdirSync(join(directory, 'bin'));
    writeFileSync(join(directory, 'bin', 'npm'), npm, { mode: 0o755 });
    const env = { ...process.env, PATH: `${join(directory, 'bin')}:${dirname(process.execPath)}:${process.env.PATH}` };
    const output = execFileSync('bash', ['-e', '-o', 'pipefail', '-c', script], {
      cwd: directory,
      env,
      encoding: 'utf8',
    });
    expect(output.trim().split('\n')).toEqual([
      'publish ./. --ignore-scripts --provenance --access public',
      'publish ./packages/d/ --ignore-scripts --provenance --access public',
      '@l/b@1.2.3 is already published',
      'publish ./gpu-packages/@llama-headstart/c/ --ignore-scripts --provenance --access public',
    ]);
  });
});

it('every platform with a binary has a job that tests the package', () => {
  const binaries = workflows.find(({ file }) => file === 'binaries.yml')?.workflow;
  const entries = (job: string) => binaries?.jobs[job]?.strategy?.matrix.include ?? [];
  const machine = ({ os, libc }: Record<string, unknown>) => `${os}${libc ? ` ${libc}` : ''}`;
  const tested = new Set(entries('package').map(machine));
  const built = entries('prebuild').map((entry) =>
    // This binary is cross-compiled on x64, but tested on arm64.
    entry.platform === 'linux-arm64' && !entry.libc ? 'ubuntu-24.04-arm' : machine(entry),
  );
  expect(built.length).toBeGreaterThan(6);
  expect(built.filter((each) => !tested.has(each))).toEqual([]);
});
