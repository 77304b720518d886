// Tests the command line as a process of its own: in a pseudo-terminal, with closed pipes, with signals, and without a
// usable home directory.
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { requireFreshDist } from '../../helpers/children.js';
import { program, runCli } from '../../helpers/cli.js';
import { CliProcess, hasPseudoTerminals } from '../../helpers/cli-process.js';
import { microModel } from '../../helpers/models.js';
import { makeReadOnly, smallDisk } from '../../helpers/small-disk.js';

let root: string;
let cache: string[];

beforeAll(async () => {
  requireFreshDist();
  root = await mkdtemp(join(tmpdir(), 'llama-headstart cli '));
  cache = ['--cache-dir', join(root, 'templates')];
  await writeFile(join(root, 'template.json'), JSON.stringify({ systemPrompt: 'You are a careful librarian.' }));
  const { code, stderr } = await runCli(['warm', 'template.json', '--model', microModel('dense'), ...cache], {
    cwd: root,
  });
  expect(code, stderr).toBe(0);
});

afterAll(() => rm(root, { recursive: true, force: true }));

describe.skipIf(!hasPseudoTerminals)('a command in a terminal of 40 columns', () => {
  it('prints no line that is too long, and colors unless NO_COLOR is set', async () => {
    const colored = await CliProcess.inTerminal(['cache', 'list', ...cache], { columns: 40 }).result();
    expect(colored.code).toBe(0);
    expect(colored.stdout).toContain('\u001b[2mkey:');
    const lines = stripVTControlCharacters(colored.stdout).split(/\r?\n/);
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(40);
    const plain = await CliProcess.inTerminal(['cache', 'list', ...cache], {
      columns: 40,
      env: { NO_COLOR: '1' },
    }).result();
    expect(plain.stdout).not.toContain('\u001b[');
    expect(plain.stdout).toMatch(/^key: [0-9a-f]{16}\r\n/);
  });

  it('asks before it deletes, takes no for an answer, and ends with code 130 at Ctrl-C', async () => {
    for (const [key, code] of [
      ['\u0003', 130],
      ['n', 1],
    ] as const) {
      const asking = CliProcess.inTerminal(['cache', 'clear', ...cache], { columns: 40 });
      await asking.until('Delete 1 templates');
      await asking.until('└');
      asking.type(key);
      expect((await asking.result()).code, asking.stdout).toBe(code);
    }
    expect((await runCli(['cache', 'list', ...cache])).stdout).toContain('key');
  });
});

describe('a command whose output is closed early', () => {
  it('ends quietly with code 0', async () => {
    for (const argv of [['--help'], ['cache', 'list', ...cache]]) {
      const running = CliProcess.piped(argv);
      running.child.stdout?.destroy();
      expect(await running.result(), argv.join(' ')).toEqual({ code: 0, stdout: '', stderr: '' });
    }
  });
});

describe.skipIf(process.platform === 'win32')('an interrupted command', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('ends with the exit code of %s, prints no error, and leaves no temporary files', async (signal, code) => {
    const temporary = await mkdtemp(join(root, 'tmp-'));
    const running = CliProcess.piped(['bench', '--model', microModel('wide-q4_k')], { env: { TMPDIR: temporary } });
    await running.until('… measurements');
    running.child.kill(signal);
    const { code: ended, stdout, stderr } = await running.result();
    expect([ended, stdout]).toEqual([code, '']);
    expect(stderr).not.toMatch(/Error|at .*\.js/);
    expect(await readdir(temporary)).toEqual([]);
  });
});

describe('a user without a home directory', () => {
  const env = { HOME: '', XDG_CACHE_HOME: '', LLAMA_HEADSTART_CACHE_DIR: '', LLAMA_HEADSTART_MODELS_DIR: '' };

  it.skipIf(process.platform !== 'linux')(
    'can use models without a cache on disk, and learns how to get a cache',
    async () => {
      const argv = ['explain', '-', '--model', microModel('dense')];
      const running = CliProcess.piped(argv, { env });
      running.type(JSON.stringify({ messages: [{ role: 'user', content: 'Hi 本' }] }));
      const { code, stdout, stderr } = await running.result();
      expect(code, stderr).toBe(0);
      expect(stdout).toContain('tokens are cached');
      expect(stderr).toContain('Name a directory with --cache-dir.');
      const listed = await CliProcess.piped(['cache', 'list'], { env }).result();
      expect([listed.code, listed.stderr]).toEqual([2, expect.stringContaining('Expected a home directory')]);
    },
  );
});

describe('a read-only home directory', () => {
  it('costs the cache and nothing else', async ({ skip }) => {
    const home = smallDisk(join(root, 'home'), '16m');
    if (home === undefined) return skip('this user may not mount a file system');
    makeReadOnly(home);
    const env = { HOME: home, XDG_CACHE_HOME: join(home, '.cache'), LLAMA_HEADSTART_CACHE_DIR: '' };
    const warmed = await CliProcess.piped(['warm', join(root, 'template.json'), '--model', microModel('dense')], {
      env,
    }).result();
    expect(warmed.code, warmed.stderr).toBe(0);
    expect(warmed.stdout).toContain('prefill in');
    expect(warmed.stderr).toContain('not saved');
    const pulled = await CliProcess.piped(['cache', 'list'], { env }).result();
    expect([pulled.code, pulled.stdout]).toEqual([0, expect.stringContaining('No templates in')]);
  });
});

describe('the program without its compiled files, or with an old Node.js', () => {
  it('says what to do', async () => {
    const bin = join(root, 'package', 'bin', 'llama-headstart.mjs');
    await mkdir(join(root, 'package', 'bin'), { recursive: true });
    await cp(program, bin);
    const missing = await CliProcess.piped(['doctor'], { bin }).result();
    expect([missing.code, missing.stderr]).toEqual([
      1,
      expect.stringMatching(/^✗ .*missing\. In a checkout, run `npm run build`/),
    ]);
    const preload = join(root, 'old-node.mjs');
    await writeFile(
      preload,
      "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '18.20.0' } });",
    );
    const old = await CliProcess.piped(['doctor'], { env: { NODE_OPTIONS: `--import "${preload}"` } }).result();
    expect([old.code, old.stderr]).toEqual([
      1,
      expect.stringContaining('Expected Node.js 20.19 or newer, got 18.20.0.'),
    ]);
  });
});
