// Builds the addon from the packed sources as a user does: with the machine's compiler, and into the user's cache. The
// build has no network.
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

/**
 * Returns a prefix and an environment that cut a command off the network. The command gets an empty network namespace.
 * If the system does not allow network namespaces, the command gets a dead proxy.
 */
async function withoutNetwork(): Promise<{ prefix: string[]; env: NodeJS.ProcessEnv }> {
  const { code } = await runProgram('unshare', ['-rn', 'true']);
  if (code === 0) {
    return { prefix: ['unshare', '-rn'], env: {} };
  }
  report('  source build: network namespaces are not allowed, so a dead proxy blocks the network');
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
    // The build uses this machine's ccache, as a user's build would.
    env = {
      ...project.env,
      ...network.env,
      CCACHE_DIR: process.env.CCACHE_DIR ?? join(homedir(), '.cache', 'ccache'),
    };
  });

  it('reports a full disk and leaves nothing that a program would load', async ({ skip }) => {
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
      report(`  a full disk: SKIPPED, this user may not mount a file system (${stderr.split('\n')[0]})`);
      skip('this user may not mount a file system');
    }
    expect(code).toBe(1);
    expect(stderr).toMatch(/no space left/i);
    expect(stdout).not.toMatch(/\.(node|so|lock)$/m);
  });

  it.skipIf(process.platform === 'win32')(
    'can be stopped with Ctrl-C, and programs still load the same addon',
    async () => {
      const before = await runSmoke();
      const [program = '', ...args] = command;
      // A terminal sends the signal to all processes of a group. The test does the same, so the child leads a group.
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
    },
  );

  it('continues an interrupted build without network, and shows its progress', async () => {
    const begin = performance.now();
    const [program = '', ...args] = command;
    const { code, stdout, stderr } = await project.run(program, args, env);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/100 %/);
    expect(stderr).toMatch(/The build can compute on .*\bCPU\b.*The next start of your program loads it\./);
    built = stdout.trim();
    const files = await filesBelow(cache);
    report(
      `Built in ${built}: ${Math.round((performance.now() - begin) / 1000)} s; ` +
        files.map((file) => `${file.path} ${megabytes(file.size)}`).join(', '),
    );
    expect(files.filter(({ path }) => path.startsWith('build-trees'))).toEqual([]);
    expect(files.some(({ path }) => path.endsWith('native.log'))).toBe(true);
  });

  it('builds an addon that the loader prefers, with equal logits warm and cold', async () => {
    const { addonPath, addonSource, cpuModule, cold, fromMemory, fromFile } = await runSmoke();
    expect(addonPath).toBe(built);
    expect(addonSource).toBe('build');
    expect(cpuModule).toBeNull();
    expect([fromMemory, fromFile]).toEqual([cold, cold]);
    expect(await doctor()).toContain(`✓ ${built} (build)`);
  });

  it.skipIf(!model).each(['example.mjs', 'example.cjs'] as const)(
    'builds an addon that runs the example of the specification, %s',
    async (name) => {
      const { sources, text } = await project.example(name, model ?? '');
      expect(sources).toEqual(['prefill', 'resident', 'disk']);
      expect(text.length).toBeGreaterThan(0);
      report(`  ${name} on that build: ${sources.join(', ')}`);
    },
  );

  it('builds an addon that `clean` removes completely', async () => {
    await project.node([bin, 'clean']);
    expect((await runSmoke()).addonSource).toBe('prebuilt');
    expect(existsSync(cache)).toBe(false);
    await rm(smoke);
    await project.uninstall();
    expect(await project.files()).toEqual(before);
  });
});
