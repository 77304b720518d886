// Sessions of known clients share a prefix, although the clients send text that differs between sessions.
import { describe, expect, it } from 'vitest';
import { startServer, type TestServer } from '../../helpers/server.js';

const RULES = ['claude-code/billing-block', 'claude-code/late-system-message'];
const STABLE = 'Follow the conventions of the code that you change, and run its tests. '.repeat(6);

const REMINDER = { type: 'text', text: '<system-reminder>\nNo memory yet.\n</system-reminder>' };

/** A first request as Claude Code 2.1.332 sends it, with the parts that differ between sessions. */
const session = (
  words: string,
  { billing = 'cc_version=2.1.332.a1b', directory = '/home/ada/work', date = '2026-11-29' } = {},
) => ({
  system: [
    { type: 'text', text: `x-anthropic-billing-header: ${billing};` },
    { type: 'text', text: 'You are Claude Code.', cache_control: { type: 'ephemeral' } },
  ],
  messages: [
    {
      role: 'user',
      content: [REMINDER, { type: 'text', text: words }],
    },
    { role: 'system', content: `You work in ${directory}.\n\n${STABLE}\n\nToday's date is ${date}.` },
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

const cachedShare = ({ usage }: Answer) =>
  usage.cache_read_input_tokens /
  (usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens);

describe('the rules for Claude Code', () => {
  it('let the next session share the prefix, even in another directory and on another day', async () => {
    const server = await startServer({ contextSize: 2048 });
    const first = await ask(server, session('What is this?'));
    expect(first.headstart.rules).toEqual(RULES);
    const next = await ask(
      server,
      session('Fix the bug', { billing: 'cc_version=2.1.332.fff', directory: '/srv/other', date: '2026-12-01' }),
    );
    expect(cachedShare(next)).toBeGreaterThan(0.7);
  });

  it('are needed to share the prefix, and can be switched off', async () => {
    const server = await startServer({ contextSize: 2048 }, { normalizers: false });
    expect((await ask(server, session('What is this?'))).headstart.rules).toBeUndefined();
    const next = await ask(server, session('Fix the bug', { billing: 'cc_version=2.1.332.fff' }));
    expect(cachedShare(next)).toBeLessThan(0.2);
  });

  it('keep the whole text, apart from the billing block', async () => {
    const server = await startServer({ contextSize: 2048 });
    const body = session('What is this?');
    const counted = async (sent: object) =>
      ((await (await server.post('/v1/messages/count_tokens', sent)).json()) as { input_tokens: number }).input_tokens;
    const merged = {
      ...body,
      system: `You are Claude Code.\n\n${STABLE}`,
      messages: [
        {
          role: 'user',
          content: [
            REMINDER,
            { type: 'text', text: 'You work in /home/ada/work.\n\n' },
            { type: 'text', text: "Today's date is 2026-11-29.\n\n" },
            { type: 'text', text: 'What is this?' },
          ],
        },
      ],
    };
    expect(await counted(body)).toBe(await counted(merged));
  });

  it('do not change similar text of the user, or the place of later system messages', async () => {
    const server = await startServer({ contextSize: 2048 });
    const imitation = {
      system: 'You are helpful.',
      messages: [
        { role: 'user', content: 'x-anthropic-billing-header: cc_version=1;' },
        { role: 'assistant', content: 'Hm' },
        { role: 'system', content: "You work in /tmp.\n\nToday's date is 2026-11-29." },
        { role: 'user', content: 'x-anthropic-billing-header: cc_version=2;' },
      ],
      max_tokens: 2,
    };
    const headers = { 'x-claude-code-session-id': '1' };
    expect((await ask(server, imitation, headers)).headstart.rules).toBeUndefined();
    expect((await ask(server, imitation)).headstart.rules).toBeUndefined();
  });
});
