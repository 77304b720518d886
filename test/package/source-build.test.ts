// A build from the packed sources, by a user: with the machine's compiler, without network, into the cache.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { microModel, testModel } from '../helpers/models.js';
import { filesBelow, megabytes, Project, report, runProgram } from '../helpers/package.js';

const model = testModel();
const compilers = (process.env.PATH ?? '').split(delimiter);

/** A network of its own, which has nothing in it, where the kernel gives one; else proxies that do not answer. */
async function withoutNetwork(): Promise<{ prefix: string[]; env: NodeJS.ProcessEnv }> {
  const { code } = await runProgram('unshare', ['-rn', 'true']);
  if (code === 0) {
    return { prefix: ['unshare', '-rn'], env: {} };
  }
  report('  source build: no network namespace to be had, so proxies that do not answer stand for no network');
  const nowhere = 'http://127.0.0.1:9';
  return { prefix: [], env: { http_proxy: nowhere, https_proxy: nowhere, HTTP_PROXY: nowhere, HTTPS_PROXY: nowhere } };
}

describe('`npx llama-headstart build --native`', () => {
  let project: Project;
  let bin: string;
  let smoke: string;
  let cache: string;
  let command: string[];
  let env: NodeJS.ProcessEnv;
  let built: string;
  let before: string[];

  const doctor = () => project.node([bin, 'doctor']);
  const runSmoke = async () => JSON.parse(await project.node([smoke, microModel('dense'), project.home]));
  const addons = async () =>
    (existsSync(cache) ? await filesBelow(cache) : []).filter(
      ({ path }) => path.startsWith('builds') && /node$/.test(path),
    );

  beforeAll(async () => {
    project = await Project.create('source-build', compilers);
    before = [...(await project.files()), join('project', 'package-lock.json')].sort();
    await project.install();
    smoke = await project.child('smoke.mjs');
    bin = project.bin;
    cache = await project.cache();
    const network = await withoutNetwork();
    command = [...network.prefix, process.execPath, bin, 'build', '--native'];
    // The compiler's cache is the machine's, as a user's would be.
    env = {
      ...project.env,
      ...network.env,
      CCACHE_DIR: process.env.CCACHE_DIR ?? join(homedir(), '.cache', 'ccache'),
    };
  });

  it('says so when the disk is full, and leaves nothing that would be loaded', async () => {
    const disk = join(project.home, 'a small disk');
    await mkdir(disk);
    const script =
      'mount -t tmpfs -o size=2m tmpfs "$XDG_CACHE_HOME" || exit 77; "$@"; code=$?; ls -R "$XDG_CACHE_HOME"; exit $code';
    const { code, stdout, stderr } = await runProgram(
      'unshare',
      ['-rm', 'sh', '-c', script, 'sh', process.execPath, bin, 'build', '--native'],
      { cwd: project.directory, env: { ...env, XDG_CACHE_HOME: disk } },
    );
    if (code === 77 || !stderr.includes('is compiled in')) {
      report(`  a full disk: skipped, no small disk can be mounted here (${stderr.split('\n')[0]})`);
      return;
    }
    expect(code).toBe(1);
    expect(stderr).toMatch(/no space left/i);
    expect(stdout).not.toMatch(/\.(node|so|lock)$/m);
  });

  it.skipIf(process.platform === 'win32')('can be stopped by Ctrl-C: what is loaded stays what it was', async () => {
    const before = await runSmoke();
    const [program = '', ...args] = command;
    // A terminal sends the signal to all processes of the group.
    const child = spawn(program, args, {
      cwd: project.directory,
      env,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stderr = '';
    let stopped = false;
    child.stdout.resume();
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
      if (stderr.includes('10 %') && !stopped) {
        stopped = true;
        process.kill(-(child.pid ?? 0), 'SIGINT');
      }
    });
    const [code] = await once(child, 'close');
    expect(code, stderr).toBe(130);
    expect(stderr).toContain('Interrupted. The compiled files are kept. Run the same command again to continue.');
    expect(await addons()).toEqual([]);
    expect((await filesBelow(cache)).filter(({ path }) => path.endsWith('.lock'))).toEqual([]);
    expect(await runSmoke()).toEqual(before);
    expect(await doctor()).toMatch(/not finished: .*-native/);
  });

  it('goes on from there, without network, and shows how far it is', async () => {
    const begin = performance.now();
    const [program = '', ...args] = command;
    const { code, stdout, stderr } = await project.run(program, args, env);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/100 %/);
    expect(stderr).toMatch(/It computes on .*\bCPU\b.*The next start of your program loads it\./);
    built = stdout.trim();
    const files = await filesBelow(cache);
    report(
      `Built in ${built}: ${Math.round((performance.now() - begin) / 1000)} s; ` +
        files.map((file) => `${file.path} ${megabytes(file.size)}`).join(', '),
    );
    expect(files.filter(({ path }) => path.startsWith('build-trees'))).toEqual([]);
    expect(files.some(({ path }) => path.endsWith('native.log'))).toBe(true);
  });

  it('makes what the loader prefers, equal to the bit warm and cold', async () => {
    const facts = await runSmoke();
    expect(facts.addonPath).toBe(built);
    expect(facts.addonSource).toBe('build');
    expect(facts.cpuModule).toBeNull();
    expect([facts.fromMemory, facts.fromFile]).toEqual([facts.cold, facts.cold]);
    expect(await doctor()).toContain(`✓ ${built} (build)`);
  });

  it.skipIf(!model).each(['example.mjs', 'example.cjs'] as const)(
    'runs the example of the specification, %s',
    async (name) => {
      const { tiers, text } = await project.example(name, model ?? '');
      expect(tiers).toEqual(['miss', 'resident', 'disk']);
      expect(text.length).toBeGreaterThan(0);
      report(`  ${name} on that build: ${tiers.join(', ')}`);
    },
  );

  it('goes without a trace', async () => {
    await project.node([bin, 'clean']);
    expect((await runSmoke()).addonSource).toBe('prebuilt');
    expect(existsSync(cache)).toBe(false);
    await rm(smoke);
    await project.uninstall();
    expect(await project.files()).toEqual(before);
  });
});
