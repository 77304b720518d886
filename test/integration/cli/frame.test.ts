// Tests what every command has: help, global options, the configuration file, errors, exit codes and interruptions.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCli } from '../../helpers/cli.js';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llama-headstart cli ')); // with a space
});

afterEach(() => rm(folder, { recursive: true, force: true }));

describe('the help of the command line', () => {
  it('lists the commands if no command is named, and with `help` and `--help`', async () => {
    for (const argv of [[], ['help'], ['--help'], ['-h']]) {
      const { code, stdout, stderr } = await runCli(argv);
      expect([code, stderr], argv.join(' ')).toEqual([0, '']);
      expect(stdout).toMatch(/^Usage: llama-headstart <command> \[options\]/);
      expect(stdout).toMatch(/^ {2}doctor \[/m);
    }
  });

  it('shows the options and examples of a command, and the options of every command', async () => {
    const { code, stdout } = await runCli(['help', 'build']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^ {2}--define <name=value> +pass a setting to CMake/m);
    expect(stdout).toMatch(/^ {2}--json /m);
    expect(stdout).toMatch(/^Examples:\n {2}llama-headstart build\n/m);
  });

  it('fits a terminal of 40 columns', async () => {
    const { stdout } = await runCli(['doctor', '--help'], { columns: 40 });
    const tooLong = stdout
      .split('\n')
      .filter((line) => line.length > 40 && !/^(Usage:| {2}llama-headstart)/.test(line));
    expect(tooLong).toEqual([]);
  });
});

describe('a wrong command line', () => {
  const cases: [string[], string][] = [
    [['bulid'], "Unknown command 'bulid'. Did you mean build?"],
    [['build', '--vulcan'], "Unknown option '--vulcan'. Did you mean --vulkan?"],
    [['clean', 'everything'], "Too many arguments for 'clean'. Expected 0 arguments but got 1."],
    [['completion'], "Missing required argument 'shell'"],
    [['build', '--jobs', 'many'], 'Expected --jobs to be an integer from 1 to 268435456, got "many".'],
    [['build', '--jobs'], "Option '--jobs <number>' argument missing"],
    [['--json'], 'Expected a command.'],
  ];

  it.each(cases)('%j exits with code 2 and says what was expected', async (argv, message) => {
    const { code, stderr } = await runCli(argv);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^✗ /);
    expect(stderr).toContain(message);
  });

  it('is reported as a JSON object with a code if `--json` is set', async () => {
    const { code, stdout } = await runCli(['build', '--fast', '--json']);
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toEqual({
      error: { code: 'INVALID_ARGUMENT', message: "Unknown option '--fast'." },
    });
  });
});

describe('the configuration file of the command line', () => {
  const run = async (config: unknown, argv = ['build', '--cuda', '--vulkan']) => {
    const text = typeof config === 'string' ? config : JSON.stringify(config);
    await writeFile(join(folder, 'llama-headstart.config.json'), text);
    return runCli(argv, { cwd: folder });
  };

  it('refuses unknown options and wrong values, and suggests the option that was meant', async () => {
    expect((await run({ contextsize: 4096 })).stderr).toContain('did you mean `contextSize`?');
    expect((await run({ build: { job: 3 } })).stderr).toContain('did you mean `jobs`?');
    expect((await run({ build: { jobs: 'three' } })).stderr).toContain('Expected `jobs` in `build` to be an integer');
    expect((await run('{ "model": ')).stderr).toContain('Expected JSON in "');
    expect((await run([])).stderr).toContain('Expected an object in "');
    expect((await run({ bild: {} })).code).toBe(2);
  });

  it('cannot pass settings to CMake, because these can run programs', async () => {
    const { code, stderr } = await run({ build: { define: ['CMAKE_CXX_COMPILER=./evil'] } });
    expect([code, stderr]).toEqual([2, expect.stringContaining('`define`')]);
  });

  it('sets options of a command unless a flag sets them', async () => {
    const both = { build: { cuda: true, vulkan: true } };
    expect((await run(both, ['build'])).stderr).toContain('Expected at most one accelerator, got --cuda and --vulkan.');
    expect((await run({ json: true, build: { cuda: true } }, ['build', '--vulkan'])).stdout).toContain('"error"');
  });

  it('is named by `--config` or by an environment variable, and must exist then', async () => {
    const path = join(folder, 'my config.json');
    const missing = await runCli(['build', '--config', path]);
    expect([missing.code, missing.stderr]).toEqual([2, expect.stringContaining('Expected a configuration file at')]);
    await writeFile(path, JSON.stringify({ build: { cuda: true, metal: true } }));
    const message = 'Expected at most one accelerator, got --cuda and --metal.';
    expect((await runCli(['build', '--config', path])).stderr).toContain(message);
    expect((await runCli(['build'], { env: { LLAMA_HEADSTART_CONFIG: path } })).stderr).toContain(message);
  });
});
