// Tests `llama-headstart explain`, and `warm` with recorded requests of each dialect.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ChatMessage } from 'llama-headstart';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startAgent } from '../../helpers/agents.js';
import { runCli, startCli } from '../../helpers/cli.js';
import { ALWAYS, ask, LONG } from '../../helpers/conversations.js';
import { microModel } from '../../helpers/models.js';

const SYSTEM = 'You are a careful librarian. Answer in one sentence.';
const PARAMETERS = { type: 'object', properties: { title: { type: 'string' } }, required: ['title'] };
const TOOL = { name: 'find_book', description: 'Finds a book.' };
const user = (content: string) => ({ role: 'user', content });

/** The same request in each dialect. */
const CHAT_COMPLETION = {
  model: 'any',
  messages: [{ role: 'system', content: SYSTEM }, user('Hi 本')],
  tools: [{ type: 'function', function: { ...TOOL, parameters: PARAMETERS } }],
};
const MESSAGE = {
  model: 'any',
  max_tokens: 64,
  system: [{ type: 'text', text: SYSTEM, cache_control: { type: 'ephemeral' } }],
  messages: [user('Hi 本')],
  tools: [{ ...TOOL, input_schema: PARAMETERS }],
};
const RESPONSE = {
  model: 'any',
  instructions: SYSTEM,
  input: [{ type: 'message', ...user('Hi 本') }],
  tools: [{ type: 'function', ...TOOL, parameters: PARAMETERS, strict: false }],
};
const RECORDING = { url: 'https://example.com/v1/messages', headers: { 'user-agent': 'any' }, body: MESSAGE };

let folder: string;
const run = (...argv: string[]) =>
  runCli([...argv, '--model', microModel('dense'), '--cache-dir', join(folder, 'cache')], { cwd: folder });
const explain = async (...files: string[]) => JSON.parse((await run('explain', ...files, '--json')).stdout);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llama-headstart-cli-'));
  const files = { chat: CHAT_COMPLETION, message: MESSAGE, response: RESPONSE, recording: RECORDING };
  const other = { ...CHAT_COMPLETION, messages: [CHAT_COMPLETION.messages[0], user('Hi there')] };
  for (const [name, json] of Object.entries({ ...files, other })) {
    await writeFile(join(folder, `${name}.json`), JSON.stringify(json));
  }
});

afterAll(() => rm(folder, { recursive: true, force: true }));

describe('`llama-headstart explain`', () => {
  it('reads the same prompt from the requests of all dialects, and from recordings with headers', async () => {
    for (const file of ['message.json', 'response.json', 'recording.json']) {
      const { reason } = await explain('chat.json', file);
      expect(reason, file).toBe('the prompts are equal');
    }
  });

  it('shows how much of a request is cached after `warm`, and why not more', async () => {
    expect(await explain('chat.json')).toMatchObject({ cachedTokens: 0, source: 'prefill' });
    const warmed = await run('warm', 'message.json', '--json');
    const [{ templateTokens }] = JSON.parse(warmed.stdout).reports;
    expect(templateTokens).toBeGreaterThan(100);
    expect(await explain('chat.json')).toMatchObject({ cachedTokens: templateTokens, source: 'disk' });
    const { stdout } = await run('explain', 'chat.json');
    expect(stdout).toContain(`${templateTokens} of `);
    expect(stdout).toContain('Why not more: ');
  });

  it('shows the first difference of two requests, with its message and the text around it', async () => {
    const { difference, sharedTokens } = await explain('chat.json', 'other.json');
    expect(sharedTokens).toBeGreaterThan(100);
    expect(difference).toMatchObject({
      first: { part: 'message', message: 1 },
      second: { part: 'message', message: 1 },
    });
    const { stdout } = await run('explain', 'chat.json', 'other.json');
    expect(stdout).toContain('First difference, in message 2 of the first request and message 2 of the second:');
    expect(stdout).toMatch(/^ {2}first {3}".*本/m);
    expect(stdout).toMatch(/^ {2}second {2}".*there/m);
  });

  it('counts the conversations that a server has kept in the directory', async () => {
    const cacheDir = join(folder, 'conversations');
    const agent = await startAgent({ cacheDir, conversations: ALWAYS, systemPrompt: SYSTEM });
    const messages: ChatMessage[] = [];
    await ask(agent, messages, LONG);
    await agent.close();
    const body = { messages: [{ role: 'system', content: SYSTEM }, ...messages, user('And the labor?')] };
    await writeFile(join(folder, 'next.json'), JSON.stringify(body));
    const argv = ['explain', 'next.json', '--model', microModel('dense'), '--cache-dir', cacheDir, '--json'];
    const { stdout, stderr } = await runCli(argv, { cwd: folder });
    const { cachedTokens, promptTokens, source } = JSON.parse(stdout);
    expect(source, stderr).toBe('disk');
    expect(cachedTokens).toBeGreaterThan(0.8 * promptTokens);
  });

  it('reads standard input if the file is "-"', async () => {
    const argv = ['explain', '-', '--model', microModel('dense'), '--cache-dir', join(folder, 'none'), '--json'];
    const { stdout, stderr } = await runCli(argv, { input: JSON.stringify(MESSAGE) });
    expect(JSON.parse(stdout).promptTokens, stderr).toBeGreaterThan(100);
  });

  it('ends at a signal while it waits for standard input', async () => {
    const cli = startCli(['explain', '-', '--model', microModel('dense'), '--cache-dir', join(folder, 'none')]);
    await vi.waitFor(() => expect(cli.stdin.listenerCount('readable')).toBe(1), 10_000);
    cli.kill('SIGINT');
    expect(await cli.result).toEqual({ code: 130, stdout: '', stderr: '' });
  });

  it('refuses files that are missing, not JSON, or not a request, and names the file', async () => {
    await writeFile(join(folder, 'broken.json'), '{ "messages": [');
    await writeFile(join(folder, 'empty.json'), '{}');
    await writeFile(join(folder, 'list.json'), '[]');
    await writeFile(join(folder, 'wrong.json'), JSON.stringify({ messages: [{ role: 'nobody', content: 3 }] }));
    const cases = [
      ['missing.json', 1, 'Could not read "missing.json"'],
      ['broken.json', 2, '"broken.json" cannot be used. Expected JSON'],
      ['empty.json', 2, '"empty.json" cannot be used. Expected the body of a request with `messages` or `input`.'],
      ['list.json', 2, '"list.json" cannot be used. Expected a JSON object with a request.'],
      ['wrong.json', 2, 'Expected `role` of message 0 to be system, developer, user, assistant or tool, got "nobody".'],
    ] as const;
    for (const [file, code, message] of cases) {
      const result = await run('explain', file);
      expect([result.code, result.stderr]).toEqual([code, expect.stringContaining(message)]);
    }
  });

  it('says how to name a model if there is none', async () => {
    const { code, stderr } = await runCli(['explain', 'chat.json', '--models-dir', folder], { cwd: folder });
    expect([code, stderr]).toEqual([2, expect.stringMatching(/Expected a model.*--model.*LLAMA_HEADSTART_MODEL/s)]);
  });

  it('takes the model from the environment, and from the configuration file with a path relative to the file', async () => {
    const cache = ['--cache-dir', join(folder, 'none'), '--json'];
    const env = { LLAMA_HEADSTART_MODEL: microModel('dense') };
    const first = await runCli(['explain', 'chat.json', ...cache], { cwd: folder, env });
    await writeFile(join(folder, 'my.config.json'), JSON.stringify({ contextSize: 300, model: microModel('dense') }));
    const second = await runCli(['explain', 'chat.json', ...cache, '--config', 'my.config.json'], { cwd: folder });
    expect(JSON.parse(second.stdout), second.stderr).toEqual(JSON.parse(first.stdout));
  });
});
