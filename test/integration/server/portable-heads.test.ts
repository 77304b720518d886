// With `portableHeads`, sessions of known clients share a prefix in other directories, on other days and of other users.
import { describe, expect, it } from 'vitest';
import { startServer, type TestServer } from '../../helpers/server.js';

/** Where and when a session runs. */
interface Place {
  directory: string;
  date: string;
}

const HERE: Place = { directory: '/home/ada/work', date: '2026-11-29' };
const ELSEWHERE: Place = { directory: '/srv/grace/other', date: '2026-12-01' };
const STABLE = 'Follow the conventions of the code that you change. '.repeat(4);
const WORDS = 'What is this?';
const reminder = (text: string) => ({ type: 'text', text: `<system-reminder>${text}</system-reminder>\n` });

/** A system prompt in the form that a client sends, and the texts in it that move. */
interface Client {
  rules: string[];
  /** The texts that differ between places, without the line break at the end. */
  texts: (place: Place) => string[];
  /** The system messages. */
  system: (texts: string[]) => string[];
  /** The parts in front of the user's words. */
  reminders?: object[];
}

const CLIENTS: Record<string, Client> = {
  opencode: {
    rules: ['opencode/environment'],
    texts: ({ directory, date }) => [
      'Here is some useful information about the environment you are running in:\n<env>\n' +
        `  Working directory: ${directory}\n  Today's date: ${date}\n</env>`,
    ],
    system: ([environment]) => [`You are opencode, a tool.\n${STABLE}\n${environment}\nSkills: none.\n${STABLE}`],
  },
  Codex: {
    rules: ['codex/skill-roots'],
    texts: ({ directory }) => [`### Skill roots\n- \`r0\` = \`${directory}/.codex/skills\``],
    system: ([roots]) => [
      `You are a coding agent running in the Codex CLI, a terminal-based assistant. ${STABLE}`,
      `## Skills\n${roots}\n### Available skills\n${STABLE}`,
    ],
  },
  Cline: {
    rules: ['cline/environment'],
    texts: ({ directory, date }) => [
      `Environment you are running in:\n<env>\n1. Platform: linux\n2. Date: ${date}\n3. Working Directory: ${directory}\n</env>`,
    ],
    system: ([environment]) => [`You are Cline, an agent.\n\n${environment}\n\nRemember:\n${STABLE}`],
  },
  pi: {
    rules: ['pi/directory'],
    texts: ({ directory }) => [`<cwd>\n${directory}\n</cwd>`],
    system: ([directory]) => [`You are a coding assistant running inside pi, a harness. ${STABLE}\n\n${directory}`],
  },
  'Qwen Code': {
    rules: [
      'qwen-code/output-language',
      'qwen-code/git-snapshot',
      'qwen-code/memory-directories',
      'qwen-code/memories',
    ],
    texts: ({ directory }) => [
      `--- Context from: ..${directory}/output-language.md ---\nAuto\n--- End of Context from: ..${directory}/output-language.md ---`,
      'Git snapshot at conversation start. It is frozen.\n```text\ngit: Current branch: main\n```',
      `- USER memory (all): \`${directory}/user\`\n- PROJECT memory (this): \`${directory}/project\``,
      `## ${directory}/MEMORY.md\n\nEmpty.`,
    ],
    system: ([language, git, directories, memories]) => [
      `You are Qwen Code, an agent.\n${language}\n${git}\n# Memory\n${directories}\n${STABLE}` +
        `reserve memory for durable cross-conversation knowledge.\n\n${memories}`,
    ],
    reminders: [reminder(STABLE)],
  },
};

const toolNames = ['read_file', 'write_file'];
const tools = toolNames.map((name) => ({ type: 'function', function: { name, description: STABLE } }));

/** The body of a chat completion. */
function bodyOf({ texts, system, reminders = [] }: Client, place: Place, words = WORDS) {
  const messages = system(texts(place)).map((content) => ({ role: 'system', content }));
  const content = [...reminders, { type: 'text', text: words }];
  return { messages: [...messages, { role: 'user', content }], tools, tool_choice: 'none', max_tokens: 1 };
}

interface Answer {
  usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } };
  headstart: { rules?: string[] };
}

async function ask(server: TestServer, body: object): Promise<Answer> {
  const response = await server.post('/v1/chat/completions', body);
  expect(response.status).toBe(200);
  return (await response.json()) as Answer;
}

async function promptOf(server: TestServer, body: object): Promise<string> {
  return ((await (await server.post('/apply-template', body)).json()) as { prompt: string }).prompt;
}

const startPortable = () => startServer({ contextSize: 4096 }, { portableHeads: true });
const times = (text: string, part: string) => text.split(part).length - 1;

describe.each(Object.entries(CLIENTS))('with `portableHeads`, the system prompt of %s', (_name, client) => {
  it('is shared with a session in another place, and keeps its whole text', async () => {
    const server = await startPortable();
    const here = bodyOf(client, HERE);
    expect((await ask(server, here)).headstart.rules).toEqual(client.rules);
    const { usage } = await ask(server, bodyOf(client, ELSEWHERE, 'Fix the bug'));
    expect(usage.prompt_tokens_details.cached_tokens / usage.prompt_tokens).toBeGreaterThan(0.6);

    const prompt = await promptOf(server, here);
    const lastTool = Math.max(...toolNames.map((name) => prompt.lastIndexOf(`"name": "${name}"`)));
    for (const text of client.texts(HERE)) {
      expect([text, times(prompt, text)]).toEqual([text, 1]);
      expect(prompt.indexOf(text)).toBeGreaterThan(lastTool);
      expect(prompt.indexOf(text)).toBeLessThan(prompt.indexOf(WORDS));
    }
    const plain = await startServer();
    const linesOf = (text: string) =>
      text
        .split('\n')
        .filter((line) => line !== '')
        .sort();
    const missing = linesOf(await promptOf(plain, here)).filter((line) => !prompt.includes(line));
    expect(missing).toEqual([]);
  });

  it('is the only place that is searched: the same text of users and tools stays', async () => {
    const server = await startPortable();
    const texts = client.texts(HERE).join('\n');
    const call = { id: 'call_1', type: 'function', function: { name: 'read_file', arguments: '{}' } };
    const imitation = [
      { role: 'system', content: client.system(['', '', '', ''])[0] },
      { role: 'user', content: [reminder(texts), { type: 'text', text: texts }] },
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', tool_call_id: 'call_1', content: texts },
      { role: 'system', content: texts },
      { role: 'user', content: texts },
    ];
    const body = { ...bodyOf(client, HERE), messages: imitation };
    expect((await ask(server, body)).headstart.rules).toBeUndefined();
    expect(await promptOf(server, body)).toBe(await promptOf(await startServer(), body));
  });
});

describe('`portableHeads`', () => {
  it('applies to the responses of Codex, and to Anthropic messages', async () => {
    const server = await startPortable();
    const { system, texts } = CLIENTS.Codex as Client;
    const input = [
      ...system(texts(HERE)).map((text) => ({ role: 'developer', content: [{ type: 'input_text', text }] })),
      { role: 'user', content: WORDS },
    ];
    const responded = await server.post('/v1/responses', { input, max_output_tokens: 1 });
    expect(await responded.json()).toMatchObject({ headstart: { rules: ['codex/skill-roots'] } });
    const { system: prompts, texts: of } = CLIENTS.pi as Client;
    const message = { system: prompts(of(HERE))[0], messages: [{ role: 'user', content: WORDS }], max_tokens: 1 };
    const answered = await server.post('/v1/messages', message);
    expect(await answered.json()).toMatchObject({ headstart: { rules: ['pi/directory'] } });
  });

  it('changes nothing by default, and nothing of unknown clients', async () => {
    const plain = await startServer({ contextSize: 4096 });
    expect((await ask(plain, bodyOf(CLIENTS.pi as Client, HERE))).headstart.rules).toBeUndefined();
    const server = await startPortable();
    const unknown = { messages: [{ role: 'system', content: 'You are new.\n\n<cwd>\n/tmp\n</cwd>' }] };
    const body = { ...unknown, messages: [...unknown.messages, { role: 'user', content: 'Hi' }], max_tokens: 1 };
    expect((await ask(server, body)).headstart.rules).toBeUndefined();
    const onlySystem = { messages: bodyOf(CLIENTS.pi as Client, HERE).messages.slice(0, 1) };
    expect((await server.post('/v1/chat/completions', onlySystem)).status).toBe(400);
  });
});
