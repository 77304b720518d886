// Tests `llama-headstart run`: prompts, replies, inputs and interruptions.
import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentServer, type SamplingOptions } from 'llama-headstart';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { temporaryDirectory } from '../../helpers/agents.js';
import { type CliSurroundings, runCli, startCli } from '../../helpers/cli.js';
import { likelyCalls, likelyText } from '../../helpers/likely-text.js';
import { microModel } from '../../helpers/models.js';
import { CTRL_C, openTerminal } from '../../helpers/terminal.js';

let directory: string;

beforeEach(async () => {
  directory = join(await temporaryDirectory(), 'a folder with spaces');
  await mkdir(directory);
});

afterEach(() => {
  vi.restoreAllMocks();
});

/** The options of every run: greedy and short replies, and a cache directory of the test. */
const options = () => ['--cache-dir', join(directory, 'cache'), '--context-size', '1024', '--threads', '1'];

/** Runs a prompt with `--json`. */
async function runJson(argv: readonly string[], surroundings: CliSurroundings = {}) {
  const greedy = ['--json', '--max-tokens', '4', '--temperature', '0'];
  const all = ['run', ...greedy, ...options(), microModel('dense'), ...argv];
  const { code, stdout, stderr } = await runCli(all, { input: '', cwd: directory, ...surroundings });
  expect([code, stdout !== ''], stderr).toEqual([0, true]);
  return JSON.parse(stdout);
}

/** Makes agents sample with these options, so that a micro model writes what the test needs. */
function sampleWith(sampling: SamplingOptions) {
  const initialize = AgentServer.initialize.bind(AgentServer);
  vi.spyOn(AgentServer, 'initialize').mockImplementation((own) =>
    initialize({ ...own, sampling: { temperature: 0, ...sampling } }),
  );
}

describe('llama-headstart run', () => {
  it('prints only the reply if its output is piped, and the second run starts from disk', async () => {
    const argv = ['run', microModel('dense'), 'Hi', ...options(), '--system', 'You are terse.', '--max-tokens', '4'];
    const first = await runCli([...argv, '--quiet'], { input: '' });
    expect(first).toMatchObject({ code: 0, stderr: '! The reply was cut off (max-tokens).\n' });
    expect(first.stdout).toMatch(/^[^\n]+\n$/);
    const { start } = await runJson(['Hi', '--system', 'You are terse.']);
    expect(start).toMatchObject({ source: 'disk', cache: 'hit' });
    expect(start.cachedTokens).toBe(start.templateTokens);
  });

  it('takes the prompt from its arguments, from files that they name, and from standard input', async () => {
    await writeFile(join(directory, 'my notes.txt'), 'Zwölf Boxkämpfer 🥊');
    const plain = await runJson(['Summarize']);
    const piped = await runJson(['Summarize'], { input: 'Größe 🦙\n' });
    const named = await runJson(['Summarize', '@"my notes.txt"']);
    const missing = await runJson(['Summarize', '@nobody.txt']);
    const tokens = [plain, missing, piped, named].map(({ usage }) => usage.inputTokens);
    expect(tokens).toEqual([...tokens].sort((a, b) => a - b));
    expect(new Set(tokens).size).toBe(4);
  });

  it('uses the model of the environment if no argument names a model', async () => {
    const argv = ['run', 'What', 'now?', ...options(), '--json', '--max-tokens', '1'];
    const env = { LLAMA_HEADSTART_MODEL: microModel('dense') };
    const { code, stdout } = await runCli(argv, { input: '', env });
    expect(code).toBe(0);
    expect(JSON.parse(stdout).model).toMatch(/^micro-dense/);
  });

  it('uses the only downloaded model, and asks which one to use if there are several', async () => {
    const modelsDir = join(directory, 'models');
    await mkdir(join(modelsDir, 'huggingface'), { recursive: true });
    const argv = ['run', 'Hi', ...options(), '--models-dir', modelsDir, '--max-tokens', '1'];
    expect((await runCli(argv, { input: '' })).stderr).toContain('No model is downloaded yet.');
    await copyFile(microModel('dense'), join(modelsDir, 'one.gguf'));
    expect(await runCli(argv, { input: '' })).toMatchObject({ code: 0 });
    await copyFile(microModel('dense'), join(modelsDir, 'huggingface', 'two.gguf'));
    await symlink(join(modelsDir, 'nothing'), join(modelsDir, 'broken.gguf'));
    const { code, stderr } = await runCli(argv, { input: '' });
    expect(code).toBe(2);
    const asked = openTerminal(argv);
    await asked.until('two.gguf');
    asked.type('\u001b[B\r'); // the second one
    expect(await asked.code).toBe(0);
    const left = openTerminal(argv);
    await left.until('two.gguf');
    left.type(CTRL_C);
    expect(await left.code).toBe(130);
    expect(stderr).toContain('These models are downloaded: ');
    expect(stderr).toMatch(/one\.gguf.*two\.gguf|two\.gguf.*one\.gguf/s);
  });

  it('prints JSON that matches a schema', async () => {
    await writeFile(join(directory, 'schema.json'), '{ "enum": ["red", "blue"] } // colors');
    const { object, text } = await runJson(['A color', '--schema', 'schema.json', '--max-tokens', '20']);
    expect(['red', 'blue']).toContain(object);
    expect(JSON.parse(text)).toBe(object);
  });

  it.each<[string, string[], string]>([
    ['no prompt', [], 'Expected a prompt after the model'],
    ['a missing file of tools', ['Hi', '--tools', 'none.json'], 'Could not read'],
    ['a missing model', ['none.gguf', 'Hi'], 'Expected a GGUF file at'],
    ['a temperature that is no number', ['Hi', '--temperature', 'hot'], 'Expected --temperature to be a number'],
  ])('says what to do about %s', async (_, argv, message) => {
    const model = argv[0]?.endsWith('.gguf') ? [] : [microModel('dense')];
    const { code, stderr, stdout } = await runCli(['run', ...model, ...argv, ...options()], {
      input: '',
      cwd: directory,
    });
    expect([code === 0, stdout]).toEqual([false, '']);
    expect(stderr).toContain(message);
  });

  it('ends at once if it is interrupted while it reads standard input, while it loads, and while it replies', async () => {
    const argv = ['run', microModel('dense'), 'Hi', ...options()];
    const reading = startCli(argv);
    reading.kill('SIGINT');
    expect((await reading.result).code).toBe(130);
    const loading = startCli(argv, { input: '' });
    loading.kill('SIGTERM');
    expect((await loading.result).code).toBe(143);
    const replying = openTerminal([...argv, '--temperature', '0']);
    await replying.until(' '); // between two words of the reply
    replying.kill('SIGINT');
    expect(await replying.code).toBe(130);
  });

  it('renders Markdown on a terminal of 40 columns, but not with --raw or NO_COLOR', async () => {
    const text = '# plan';
    sampleWith(await likelyText(text));
    const argv = ['run', microModel('dense'), 'Hi', ...options(), '--max-tokens', '40'];
    const run = async (flags: string[], env = {}) => {
      const terminal = openTerminal([...argv, ...flags], { columns: 40, env });
      await terminal.code;
      return terminal.written;
    };
    const bold = '\u001b[1m';
    expect(await run([])).toContain(bold);
    expect(await run(['--raw'])).not.toContain(bold);
    expect(await run([], { NO_COLOR: '1' })).not.toContain('\u001b[1m');
  });
});

describe('the tools of llama-headstart run', () => {
  const TOOLS = `export const tools = [{ name: 'lamp', description: 'Switches the lamp', execute: () => 'it is on' }];`;

  it('run only with --yes if nobody can approve them', async () => {
    await writeFile(join(directory, 'tools.mjs'), TOOLS);
    sampleWith(await likelyCalls());
    const argv = ['Light!', '--tools', 'tools.mjs', '--max-tokens', '60'];
    const refused = await runJson(argv);
    expect(refused.toolResults[0]).toMatchObject({ isError: true, output: expect.stringContaining('refused') });
    const approved = await runJson([...argv, '--yes']);
    expect(approved.toolResults[0]).toMatchObject({ isError: false, output: 'it is on' });
  });

  it('that have no code are returned as calls, in the forms of OpenAI and Anthropic', async () => {
    sampleWith(await likelyCalls());
    const lamp = { name: 'lamp', description: 'Switches the lamp' };
    const forms = [
      [{ type: 'function', function: { ...lamp, parameters: { type: 'object', properties: {} } } }],
      { model: 'x', messages: [], tools: [{ ...lamp, input_schema: { type: 'object', properties: {} } }] },
    ];
    for (const form of forms) {
      await writeFile(join(directory, 'tools.json'), JSON.stringify(form));
      const { finishReason, toolCalls } = await runJson(['Light!', '--tools', 'tools.json', '--max-tokens', '60']);
      expect([finishReason, toolCalls[0].toolName]).toEqual(['tool-calls', 'lamp']);
    }
  });
});
