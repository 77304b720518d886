// Tests the command line of the installed package, in an empty directory, piped and in a pseudo-terminal.
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { COMMAND_GROUPS } from 'llama-headstart/internal';
import { beforeAll, describe, expect, it } from 'vitest';
import { CliProcess, hasPseudoTerminals } from '../helpers/cli-process.js';
import { microModel, testModel } from '../helpers/models.js';
import { Project, report } from '../helpers/package.js';

let project: Project;
/** Runs the installed command, and returns what it prints. Throws if it fails. */
const cli = (...argv: string[]) => project.node([project.bin, ...argv]);
const json = async (...argv: string[]) => JSON.parse(await cli(...argv, '--json'));

beforeAll(async () => {
  project = await Project.create('command line');
  await project.install();
  await copyFile(microModel('dense'), join(project.directory, 'mein Modell.gguf'));
  await writeFile(
    join(project.directory, 'template.json'),
    JSON.stringify({ systemPrompt: 'You are a librarian. 本' }),
  );
  const request = {
    messages: [
      { role: 'system', content: 'You are a librarian. 本' },
      { role: 'user', content: 'Hi' },
    ],
  };
  await writeFile(join(project.directory, 'request.json'), JSON.stringify(request));
  const config = { model: 'mein Modell.gguf', contextSize: 1024 };
  await writeFile(join(project.directory, 'llama-headstart.config.json'), JSON.stringify(config));
});

describe('the command line of the installed package', () => {
  it('has help with examples for every command', async () => {
    for (const { name, examples } of COMMAND_GROUPS.flatMap(({ commands }) => commands)) {
      const help = await cli(...name.split(' '), '--help');
      expect(help, name).toContain(`Usage: llama-headstart ${name}`);
      for (const { line } of examples) expect(help, name).toContain(`llama-headstart ${line}`);
    }
  });

  it('warms a template with the model of the configuration file, and starts from disk afterwards', async () => {
    const sources = async () =>
      (await json('warm', 'template.json')).reports.map((each: { source: string }) => each.source);
    expect(await sources()).toEqual(['prefill']);
    expect(await sources()).toEqual(['disk']);
    expect(await json('explain', 'request.json')).toMatchObject({ source: 'disk' });
  });

  it('lists, verifies, exports and imports the cached templates', async () => {
    const { directory, entries } = await json('cache', 'list');
    expect(directory.startsWith(project.home)).toBe(true);
    expect(entries).toHaveLength(1);
    expect(await json('cache', 'stats')).toMatchObject({ entries: 1 });
    expect(await json('cache', 'inspect', entries[0].key.slice(0, 8))).toMatchObject({ key: entries[0].key });
    await json('cache', 'pin', entries[0].key);
    expect(await json('cache', 'verify')).toMatchObject({ intact: 1 });
    await json('cache', 'export', 'my.bundle', '--all');
    const other = ['--cache-dir', 'other templates'];
    expect(await json('cache', 'import', 'my.bundle', '--trust', ...other)).toMatchObject({
      imported: [entries[0].key],
    });
    expect(await json('cache', 'prune', '--max-entries', '0', ...other)).toMatchObject({ entries: 1 });
    await json('cache', 'unpin', entries[0].key);
    expect(await json('cache', 'clear', '--yes')).toEqual({ deleted: 1 });
  });

  it('lists, describes and deletes models', async () => {
    const models = ['--models-dir', 'models'];
    await mkdir(join(project.directory, 'models'));
    await copyFile(microModel('dense'), join(project.directory, 'models', 'tiny.gguf'));
    const { models: listed } = await json('models', 'list', ...models);
    expect(listed).toEqual([expect.objectContaining({ isComplete: true })]);
    expect(await json('models', 'inspect', 'mein Modell.gguf')).toMatchObject({ architecture: 'qwen2' });
    await json('models', 'rm', 'tiny.gguf', '--yes', ...models);
    expect((await json('models', 'list', ...models)).models).toEqual([]);
  });

  it('prints completions and a benchmark', async () => {
    for (const shell of ['bash', 'zsh', 'fish', 'powershell'])
      expect(await cli('completion', shell)).toContain('__complete');
    const { starts, agent } = await json('bench');
    expect(starts).toHaveLength(2);
    expect(agent).toMatchObject({ tokens: 20_000, prefill: expect.any(Number), disk: expect.any(Number) });
  });

  it.skipIf(!hasPseudoTerminals)('fits a terminal of 40 columns', async () => {
    await json('warm', 'template.json');
    const { bin, directory: cwd } = project;
    const options = { bin, cwd, columns: 40, env: { ...project.env, PATH: process.env.PATH } };
    for (const argv of [
      ['cache', 'list'],
      ['cache', 'clear', '--help'],
      ['models', 'list'],
    ]) {
      const { code, stdout } = await CliProcess.inTerminal(argv, options).result();
      expect(code, stdout).toBe(0);
      const lines = stripVTControlCharacters(stdout)
        .split(/\r?\n/)
        .filter((line) => !/^( {2}llama-headstart|Usage:)|\//.test(line));
      expect(
        lines.filter(({ length }) => length > 40),
        argv.join(' '),
      ).toEqual([]);
    }
  });

  it('ends quietly if its output is closed early', async () => {
    const { bin, directory: cwd, env } = project;
    const running = CliProcess.piped(['--help'], { bin, cwd, env });
    running.child.stdout?.destroy();
    expect(await running.result()).toEqual({ code: 0, stdout: '', stderr: '' });
  });
});

describe.skipIf(!testModel())('the first minute with SmolLM2', () => {
  it('prints a reply, and the second run starts from disk', async () => {
    const model = testModel() ?? '';
    const begin = performance.now();
    const running = CliProcess.piped(['run', model, 'Hi'], {
      bin: project.bin,
      cwd: project.directory,
      env: project.env,
    });
    expect((await running.result()).stdout.trim()).not.toBe('');
    const again = performance.now();
    const second = CliProcess.piped(['run', model, 'Hi'], {
      bin: project.bin,
      cwd: project.directory,
      env: project.env,
    });
    second.child.stdin?.end();
    await new Promise((resolve) => second.child.stdout?.once('data', resolve));
    report(
      `  \`run\` on SmolLM2: ${Math.round(again - begin)} ms for the first run, ${Math.round(performance.now() - again)} ms to the first word of the second`,
    );
    expect((await second.result()).stdout.trim()).not.toBe('');
  });
});
