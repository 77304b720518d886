// Sessions of Claude Code share a prefix, although Claude Code sends text that differs between sessions.
import { describe, expect, it } from 'vitest';
import { startServer, type TestServer } from '../../helpers/server.js';

const RULES = ['claude-code/billing-block', 'claude-code/late-system-message'];
const STABLE = 'Follow the conventions of the code that you change, and run its tests. '.repeat(6);

const directoryOf = (directory: string) => ` - Primary working directory: ${directory}\n - Is a git repository: true\n`;
const memoryOf = (directory: string) =>
  `You have a persistent file-based memory at \`${directory}/memory/\`. This directory already exists (write to it). `;

/** A block of the user's message that imitates text of the system prompt. */
const REMINDER = { type: 'text', text: `${memoryOf('/tmp')}\n\nToday's date is 2026-11-29.` };

/** A first request in the form of Claude Code 2.1.332, with the parts that differ between sessions. */
const session = (
  words: string,
  { billing = 'cc_version=2.1.332.a1b', directory = '/home/ada/work', date = '2026-11-29' } = {},
) => ({
  system: [
    { type: 'text', text: `x-anthropic-billing-header: ${billing};` },
    { type: 'text', text: 'You are Claude Code.', cache_control: { type: 'ephemeral' } },
    { type: 'text', text: `# Memory\n\n${memoryOf(directory)}One fact a file.\n\n${STABLE}` },
  ],
  messages: [
    {
      role: 'user',
      content: [REMINDER, { type: 'text', text: words }],
    },
    {
      role: 'system',
      content: `# Environment\nYou run here: \n${directoryOf(directory)} - Platform: linux\n\n${STABLE}\n\nToday's date is ${date}.`,
    },
  ],
  max_tokens: 2,
});

interface Answer {
  usage: { input_tokens: number; cache_read_input_tokens: number; cache_creation_input_tokens: number };
  headstart: { rules?: string[] };
}

async function ask(server: TestServer, body: object, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await server.post('/v1/messages', body, { headers });
  expect(response.status).toBe(200);
  return (await response.json()) as Answer;
}

async function countedTokens(server: TestServer, body: object): Promise<number> {
  const counted = await server.post('/v1/messages/count_tokens', body);
  return ((await counted.json()) as { input_tokens: number }).input_tokens;
}

const cachedShare = ({ usage }: Answer) =>
  usage.cache_read_input_tokens /
  (usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens);

/** The same request after all rules, from a client without rules. */
const rewritten = (...beforeWords: string[]) => ({
  system: `You are Claude Code.\n\n# Memory\n\nMEMORYOne fact a file.\n\n${STABLE}\n\n# Environment\nYou run here: \n - Platform: linux\n\n${STABLE}`,
  messages: [
    {
      role: 'user',
      content: [REMINDER, ...[...beforeWords, 'What is this?'].map((text) => ({ type: 'text', text }))],
    },
  ],
  max_tokens: 2,
});

describe('the rules for Claude Code', () => {
  it('let the next session in the same directory share the prefix, even on another day', async () => {
    const server = await startServer({ contextSize: 2048 });
    const first = await ask(server, session('What is this?'));
    expect(first.headstart.rules).toEqual(RULES);
    const next = await ask(server, session('Fix the bug', { billing: 'cc_version=2.1.332.fff', date: '2026-12-01' }));
    expect(cachedShare(next)).toBeGreaterThan(0.9);
  });

  it('are needed to share the prefix, and can be switched off', async () => {
    const server = await startServer({ contextSize: 2048 }, { normalizers: false });
    expect((await ask(server, session('What is this?'))).headstart.rules).toBeUndefined();
    const next = await ask(server, session('Fix the bug', { billing: 'cc_version=2.1.332.fff' }));
    expect(cachedShare(next)).toBeLessThan(0.2);
  });

  it('let sessions in another directory share the prefix with `portableHeads`', async () => {
    const elsewhere = session('Fix the bug', { directory: '/srv/other', date: '2026-12-01' });
    const plain = await startServer({ contextSize: 2048 });
    await ask(plain, session('What is this?'));
    expect(cachedShare(await ask(plain, elsewhere))).toBeLessThan(0.2);
    const portable = await startServer({ contextSize: 2048 }, { portableHeads: true });
    const first = await ask(portable, session('What is this?'));
    expect(first.headstart.rules).toEqual([...RULES, 'claude-code/memory-directory']);
    expect(cachedShare(await ask(portable, elsewhere))).toBeGreaterThan(0.7);
  });

  it.each([false, true])(
    'keep the whole text, apart from the billing block: portable heads %s',
    async (portableHeads) => {
      const server = await startServer({ contextSize: 2048 }, { portableHeads });
      const [directory, memory] = [`${directoryOf('/home/ada/work').trim()}\n\n`, memoryOf('/home/ada/work')];
      const date = "Today's date is 2026-11-29.\n\n";
      const expected = portableHeads ? rewritten(directory, date, `${memory.trim()}\n\n`) : rewritten(directory, date);
      const system = expected.system.replace('MEMORY', portableHeads ? '' : memory);
      expect(await countedTokens(server, session('What is this?'))).toBe(
        await countedTokens(server, { ...expected, system }),
      );
    },
  );

  it('change no text of users and tools, and no later system message', async () => {
    const server = await startServer({ contextSize: 2048 }, { portableHeads: true });
    const imitations = [
      'x-anthropic-billing-header: cc_version=1;',
      `# Environment\nYou run here: \n${directoryOf('/tmp')}`,
      "Hi\n\nToday's date is 2026-11-29.",
      memoryOf('/tmp'),
    ];
    const text = imitations.map((each) => ({ type: 'text', text: each }));
    const imitation = {
      system: 'You are helpful.',
      messages: [
        { role: 'user', content: text },
        { role: 'assistant', content: [{ type: 'tool_use', id: 'toolu_1', name: 'Read', input: {} }] },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'toolu_1', content: text }] },
        { role: 'system', content: imitations.join('\n\n') },
        { role: 'user', content: text },
      ],
      max_tokens: 2,
    };
    const without = await startServer({ contextSize: 2048 }, { normalizers: false });
    const headers = { 'x-claude-code-session-id': '1' };
    expect((await ask(server, imitation, headers)).headstart.rules).toBeUndefined();
    expect((await ask(server, imitation)).headstart.rules).toBeUndefined();
    expect(await countedTokens(server, imitation)).toBe(await countedTokens(without, imitation));
  });
});
