// Tests `llama-headstart chat`: the conversation, its commands, tools, Ctrl-C, and messages from a pipe.
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentServer, type SamplingOptions } from 'llama-headstart';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { temporaryDirectory } from '../../helpers/agents.js';
import { runCli } from '../../helpers/cli.js';
import { likelyCalls } from '../../helpers/likely-text.js';
import { program } from '../../helpers/mcp.js';
import { serveStreamableHttp } from '../../helpers/mcp-http.js';
import { microModel } from '../../helpers/models.js';
import { CTRL_C, CTRL_D, openTerminal, type TerminalOptions } from '../../helpers/terminal.js';

let directory: string;

beforeEach(async () => {
  directory = join(await temporaryDirectory(), 'a folder with spaces');
  await mkdir(directory);
  vi.stubEnv('XDG_CACHE_HOME', join(directory, 'user cache'));
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

const argv = (...flags: string[]) => [
  ...['chat', microModel('dense'), '--context-size', '2048', '--threads', '1', '--temperature', '0'],
  ...flags,
];

/** Opens a chat and waits for its prompt. */
async function openChat(flags: string[] = [], options: TerminalOptions = {}) {
  const terminal = openTerminal(argv('--max-tokens', '8', ...flags), { cwd: directory, ...options });
  await terminal.until('/help lists the commands');
  await terminal.until('> ');
  return terminal;
}

/** A reply of at least a thousand tokens, so that a test can stop it. */
const LONG = ['--max-tokens', '1500'];

/** Makes agents sample with these options, so that a micro model writes what the test needs. */
function sampleWith(sampling: SamplingOptions) {
  const initialize = AgentServer.initialize.bind(AgentServer);
  vi.spyOn(AgentServer, 'initialize').mockImplementation((own) =>
    initialize({ ...own, sampling: { temperature: 0, ...sampling } }),
  );
}

describe('llama-headstart chat', () => {
  it('shows replies with a line of numbers, and remembers the conversation', async () => {
    const chat = await openChat();
    chat.enter('Hello');
    expect(await chat.until(' of 2,048')).toMatch(/prompt computed: .* · first word .* · context \d+/);
    await chat.until('> ');
    chat.enter('Again');
    expect(await chat.until(' of 2,048')).toContain('prompt from the KV cache');
    chat.type(CTRL_D);
    expect(await chat.code).toBe(0);
  });

  it('accepts messages of several lines, Unicode, and files', async () => {
    await writeFile(join(directory, 'notes.txt'), 'Größe: 3 m 🦙');
    const chat = await openChat([], { columns: 40 });
    chat.enter('"""');
    chat.enter('Zeile 1 – 日本語');
    chat.enter('Zeile 2 @notes.txt"""');
    await chat.until(' of 2,048');
    chat.enter('/save chat.json');
    await chat.until('Saved');
    const saved = await readFile(join(directory, 'chat.json'), 'utf8');
    expect(saved).toContain('Zeile 1 – 日本語');
    expect(saved).toContain('Größe: 3 m 🦙');
  });

  it('takes back, copies, saves and loads the conversation', async () => {
    const chat = await openChat(['--system', 'You are terse.']);
    chat.enter('First');
    await chat.until(' of 2,048');
    chat.enter('/save my chat.json');
    await chat.until('my chat.json\n');
    chat.enter('/load my chat.json'); // the same session
    await chat.until('Loaded 2 messages');
    chat.enter('/fork');
    await chat.until('This is conversation 2, a copy of 1.');
    chat.enter('/undo');
    await chat.until('Took back: First');
    chat.enter('/undo');
    await chat.until('There is no message to take back.');
    chat.enter('/fork 1');
    await chat.until('This is conversation 1, with 2 messages.');
    chat.enter('/fork 3');
    await chat.until('Expected a number from 1 to 2, got 3');
    chat.enter('/exit');
    expect(await chat.code).toBe(0);

    const later = await openChat();
    later.enter('/load my chat.json');
    await later.until('Loaded 2 messages');
    later.enter('/load missing.json');
    await later.until('Could not read the session');
    later.enter('And now?');
    await later.until(' of 2,048');
    later.enter('/undo');
    later.enter('/undo');
    await later.until('Took back: First');
    later.enter('/system');
    await later.until('You are terse.\n');
  });

  it('shows and changes the system prompt and the tools, shows statistics, and explains its commands', async () => {
    await writeFile(join(directory, 'tools.json'), '[{ "name": "lamp", "description": "Switches the lamp" }]');
    const chat = await openChat(['--system', 'You are terse.']);
    chat.enter('/system');
    await chat.until('You are terse.\n');
    chat.enter('/system You are kind.');
    await chat.until('continues with this system prompt');
    chat.enter('/system');
    await chat.until('You are kind.\n');
    chat.enter('/tools');
    await chat.until('There are no tools.');
    chat.enter('/tools tools.json');
    await chat.until('lamp: Switches the lamp');
    chat.enter('/tools none');
    await chat.until('There are no tools.');
    chat.enter('/stats');
    await chat.until('KV cache: ');
    chat.enter('/helf');
    await chat.until('did you mean /help?');
    chat.enter('/help');
    await chat.until('Ctrl-C');
  });

  it('asks before a tool runs, and no longer after the answer "always"', async () => {
    await writeFile(
      join(directory, 'tools.mjs'),
      `export default [{ name: 'lamp', description: 'Switches the lamp', execute: () => 'it is on' }];`,
    );
    sampleWith(await likelyCalls());
    const chat = await openChat(['--tools', 'tools.mjs', '--max-tokens', '60']);
    chat.enter('Light!');
    await chat.until('Run lamp {}? [y]es, [n]o, [a]lways: ');
    chat.enter('no');
    expect(await chat.until(' of 2,048')).toContain('the user refused this call');
    chat.enter('/undo');
    await chat.until('Took back: Light!');
    await chat.until('> ');
    chat.enter('Light!');
    await chat.until('[a]lways: ');
    chat.enter('always');
    expect(await chat.until(' of 2,048')).toContain('it is on');
    chat.enter('/undo');
    await chat.until('Took back: Light!');
    chat.enter('Light!');
    const again = await chat.until(' of 2,048');
    expect(again).toContain('it is on');
    expect(again).not.toContain('[a]lways');
  });

  it('stops a tool at Ctrl-C, and continues without the message that led to its call', async () => {
    const hanging = `export const lamp = { name: 'lamp', execute: () => new Promise(() => {}) };`;
    await writeFile(join(directory, 'tools.mjs'), hanging);
    sampleWith(await likelyCalls());
    const chat = await openChat(['--tools', 'tools.mjs', '--yes', '--max-tokens', '60']);
    chat.enter('Light!');
    await chat.until('→ lamp {}');
    chat.type(CTRL_C);
    await chat.until('Stopped. The conversation does not contain this message.');
    chat.enter('/stats');
    await chat.until('Conversation: 0 messages');
  });

  it('uses the MCP servers of a file, with comments and variables, even if one of them is broken', async () => {
    const { url } = await serveStreamableHttp('web');
    const config = `{
      // as VS Code writes it
      "servers": {
        "my clock": { "type": "stdio", "command": "\${env:NODE}", "args": ["\${SERVER}", "\${NAME:-clock}"], "cwd": "\${workspaceFolder}" },
        "web": { "type": "http", "url": "${url}" },
        "broken": { "command": "no such program" },
        "off": { "command": "no such program", "disabled": true },
      },
    }`;
    await writeFile(join(directory, 'mcp.json'), config);
    const chat = await openChat(['--mcp', 'mcp.json'], { env: { NODE: process.execPath, SERVER: program } });
    expect(chat.written.match(/Could not connect to the MCP server "broken"/g)).toHaveLength(1);
    expect(chat.written).not.toContain('"off"');
    chat.enter('/tools');
    await chat.until('only_clock: only.clock of clock');
    await chat.until('only_web: only.web of web');
    const missing = await runCli(argv('--mcp', 'mcp.json'), { input: '', cwd: directory });
    expect([missing.code, missing.stderr]).toEqual([2, expect.stringMatching(/Expected a value for \$\{env:NODE\}/)]);
  });

  it('asks for the result of a call whose tool has no code', async () => {
    await writeFile(
      join(directory, 'tools.json'),
      '{ "tools": [{ "name": "lamp", "description": "Switches the lamp" }] }',
    );
    sampleWith(await likelyCalls());
    const chat = await openChat(['--tools', 'tools.json', '--max-tokens', '60']);
    chat.enter('Light!');
    await chat.until('Result of lamp {}: ');
    chat.enter('it is on');
    await chat.until(' of 2,048');
    await chat.until('Result of lamp {}: ');
    chat.type(CTRL_C);
    chat.type(CTRL_C);
    expect(await chat.code).toBe(0);
  });

  it('stops a reply at Ctrl-C and keeps its beginning, and leaves at the second Ctrl-C', async () => {
    const chat = await openChat(LONG);
    chat.enter('Tell me everything');
    await chat.until('everything');
    await chat.until(' ');
    await chat.until(' ');
    chat.type(CTRL_C);
    await chat.until('Stopped. The conversation contains the reply up to here.');
    chat.enter('/stats');
    await chat.until('Conversation: 2 messages');
    await chat.until('> ');
    chat.enter('More');
    await chat.until('More');
    await chat.until(' ');
    chat.kill('SIGINT'); // as `kill -INT` sends it
    await chat.until('Stopped.');
    chat.type(CTRL_C);
    expect(await chat.code).toBe(0);
  });

  it('deletes the typed text at Ctrl-C, and explains how to leave', async () => {
    const chat = await openChat();
    chat.type('half a mess');
    chat.type(CTRL_C);
    chat.type(CTRL_C);
    await chat.until('Press Ctrl-C again to leave.');
    chat.type(CTRL_C);
    expect(await chat.code).toBe(0);
  });

  it('ends with the code of the signal at SIGTERM, even in the middle of a reply', async () => {
    const chat = await openChat(LONG);
    chat.enter('Tell me everything');
    await chat.until('everything');
    await chat.until(' ');
    chat.kill('SIGTERM');
    expect(await chat.code).toBe(143);
  });

  it('offers the messages of earlier chats with the arrow keys', async () => {
    const first = await openChat();
    first.enter('Remember me');
    await first.until(' of 2,048');
    first.enter('/exit');
    await first.code;
    const second = await openChat();
    second.type('\u001b[A\u001b[A');
    await second.until('Remember me');
  });

  it('answers each line of a pipe, without prompts and numbers', async () => {
    const input = 'Hello\nHow are you?\n';
    const { code, stdout, stderr } = await runCli(argv('--max-tokens', '3', '--quiet'), { input, cwd: directory });
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^[^\n]+\n[^\n]+\n$/);
    expect(stdout).not.toContain('\u001b');
  });

  it('runs no commands and attaches no files for lines of a pipe, because anybody may have written them', async () => {
    await writeFile(join(directory, 'secret.txt'), 'the secret');
    const input = '/save chat.json\nWhat is in @secret.txt\n';
    const { code, stdout } = await runCli(argv('--max-tokens', '2'), { input, cwd: directory });
    expect([code, stdout.split('\n')]).toEqual([0, [expect.any(String), expect.any(String), '']]);
    expect(await readdir(directory)).not.toContain('chat.json');
  });

  it('lets no line of a pipe approve a tool or stand for its result', async () => {
    sampleWith(await likelyCalls());
    const run = async (tools: string, text: string) => {
      await writeFile(join(directory, tools), text);
      const input = 'Light!\ny\nalways\n';
      return runCli(argv('--tools', tools, '--max-tokens', '60'), { input, cwd: directory });
    };
    const marker = join(directory, 'tool has run');
    const code = `import { writeFileSync } from 'node:fs';
      export const lamp = { name: 'lamp', execute: () => writeFileSync(${JSON.stringify(marker)}, '') };`;
    const refused = await run('tools.mjs', code);
    expect(refused.stderr).toContain('Nobody can answer here, so the call is refused.');
    expect(await readdir(directory)).not.toContain('tool has run');
    const unanswered = await run('tools.json', '[{ "name": "lamp", "description": "Switches the lamp" }]');
    expect(unanswered.stderr).toContain('The model called lamp, which has no code here.');
  });

  it('never takes a line that was sent before the question as the answer', async () => {
    await writeFile(join(directory, 'tools.mjs'), `export const lamp = { name: 'lamp', execute: () => 'it is on' };`);
    sampleWith(await likelyCalls());
    const chat = await openChat(['--tools', 'tools.mjs', '--max-tokens', '60']);
    chat.type('Light!\ryes, do it\r');
    await chat.until('[a]lways: ');
    chat.enter('no');
    expect(await chat.until(' of 2,048')).toContain('the user refused this call');
  });

  it('works without a home directory, and says that nothing is kept on disk', async () => {
    vi.stubEnv('XDG_CACHE_HOME', undefined);
    vi.stubEnv('HOME', 'no absolute path');
    const { code, stderr, stdout } = await runCli(argv('--max-tokens', '3'), { input: 'Hello\n', cwd: directory });
    expect([code, stdout !== '']).toEqual([0, true]);
    expect(stderr).toContain('Templates are not kept on disk');
  });
});
