// Tests names of tools and parameters that the grammars of llama.cpp's `common` reserve or cannot tell apart.
import { readdirSync, readFileSync } from 'node:fs';
import type { Tool } from 'llama-headstart';
import { Renderer, requireTools, type ToolDefinition } from 'llama-headstart/internal';
import { Model, type ReplyFormat, type ReplyToolCall } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { replyUnder } from '../helpers/grammar-replies.js';
import { GrammarWalk } from '../helpers/grammar-walk.js';
import { likelyCalls } from '../helpers/likely-text.js';
import { microModel } from '../helpers/models.js';
import { seededRandom } from '../helpers/native.js';
import { variants } from '../helpers/soak.js';

const DIRECTORY = new URL('../../vendor/llama.cpp/models/templates/', import.meta.url);
const TEMPLATES = readdirSync(DIRECTORY).filter((file) => file.endsWith('.jinja'));
/** Two tests use all chat templates. `npm test` runs a quarter of the chat templates in each of the two tests. */
const templatesFor = (number: number) => variants(TEMPLATES, (_, index) => index % 4 === number);

/** Names of grammar rules, names that lead to the same rule name, and names that are the beginning of other names. */
const NAMES = [
  ...['call', 'tool-call', 'root', 'string', 'until-1', 'call-schema', 'a', 'a-arg-user-id'],
  ...['get', 'Get', 'get_all', 'get-all', 'get all', 'say "hi"\\', 'x'.repeat(256)],
];

/** The number in each schema shows which tool's rule the grammar used. */
const TOOLS: ToolDefinition[] = NAMES.map((name, number) => ({
  name,
  description: 'Does it.',
  parameters: {
    type: 'object',
    properties: {
      number: { type: 'integer', enum: [number] },
      user_id: { type: 'boolean' },
      'user-id': { type: 'string' },
    },
    required: ['number', 'user_id', 'user-id'],
    additionalProperties: false,
  },
}));

let model: Model;
beforeAll(async () => {
  model = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
});
afterAll(() => model.close());

const rendererOf = (file: string) => new Renderer(model, readFileSync(new URL(file, DIRECTORY), 'utf8'));

async function formatOf(file: string, options: object, tools = TOOLS): Promise<ReplyFormat> {
  return (await rendererOf(file).prompt({ tools }, [{ role: 'user', content: 'Hi' }], options)).format;
}

/** Returns the calls of a reply, or no call if the parser refuses the white space of the reply. */
async function callsIn(format: ReplyFormat, text: string): Promise<readonly ReplyToolCall[]> {
  try {
    return (await model.parseReply({ rendered: format, text })).toolCalls;
  } catch (error) {
    expect(error).toMatchObject({ code: 'REPLY_INVALID' });
    return [];
  }
}

describe('tools whose names are reserved or ambiguous in grammars', () => {
  /** Grammars that were tested already. */
  const seen = new Set<string>();

  it.each(templatesFor(0))('can all be called with the chat template %s', async (file) => {
    const format = await formatOf(file, { toolChoice: 'required' });
    if (seen.has(format.grammar)) {
      return;
    }
    seen.add(format.grammar);
    await (await model.createSampler({ grammar: format.grammar })).close();
    const walk = new GrammarWalk(format.grammar);
    const random = seededRandom(5);
    const called = new Set<string>();
    for (let draw = 0; draw < 1000 && called.size < NAMES.length; draw++) {
      const text = replyUnder(walk, format, random);
      for (const call of await callsIn(format, text)) {
        called.add(call.name);
        expect(text).toContain(call.name);
        const input = JSON.parse(call.arguments);
        expect([call.name, text]).toEqual([NAMES[input.number], text]);
        expect(input).toEqual({ number: input.number, user_id: expect.any(Boolean), 'user-id': expect.any(String) });
      }
    }
    expect([...called].sort()).toEqual([...NAMES].sort());
  });
});

describe('a tool with the name of a grammar rule', () => {
  const ran: string[] = [];
  const named = (name: string, number: number): Tool => ({
    name,
    parameters: { type: 'object', properties: { number: { enum: [number] } }, required: ['number'] },
    execute: (input) => ran.push(`${name} ${input.number}`),
  });

  it.each(['auto', 'required', { name: 'call' }] as const)(
    'runs beside other tools, with toolChoice %j',
    async (toolChoice) => {
      const agent = await startAgent({ contextSize: 4096 });
      const root = await agent.createSession({ tools: [named('call', 1), named('delete_all', 2)] });
      const likely = await likelyCalls();
      const expected = typeof toolChoice === 'object' ? ['call 1'] : ['call 1', 'delete_all 2'];
      ran.length = 0;
      for (let seed = 0; seed < 20 && new Set(ran).size < expected.length; seed++) {
        const sampling = { ...likely, temperature: 2, seed };
        const options = { toolChoice, sampling, maxParallelTools: 1, maxSteps: 1, maxTokens: 200 };
        await (await root.fork()).send('Go on', options);
      }
      expect([...new Set(ran)].sort()).toEqual(expected);
    },
  );
});

it('a longer name that begins with the name of a tool is not read as that tool, in any call format', async () => {
  const tools = [{ name: 'zapdelete', description: 'Deletes one.' }];
  const wrong: string[] = [];
  const seen = new Set<string>();
  let calls = 0;
  for (const file of templatesFor(1)) {
    const format = await formatOf(file, { toolChoice: 'required' }, tools);
    if (seen.has(format.grammar)) {
      continue;
    }
    seen.add(format.grammar);
    const walk = new GrammarWalk(format.grammar);
    const random = seededRandom(3);
    for (let draw = 0; draw < 2; draw++) {
      const text = replyUnder(walk, format, random);
      calls += (await callsIn(format, text)).length;
      for (const end of [' all', '.all', '/all', ':all', '\nall']) {
        const changed = text.replaceAll('zapdelete', `zapdelete${end}`);
        const names = (await callsIn(format, changed)).map(({ name }) => name);
        wrong.push(...(names.includes('zapdelete') ? [`${file}: ${changed}`] : []));
      }
    }
  }
  expect(calls).toBeGreaterThan(seen.size);
  expect(wrong).toEqual([]);
});

describe('a reply with an unknown tool name that begins with the name of a tool', () => {
  const file = 'openai-gpt-oss-120b.jinja';
  const tools = [{ name: 'delete', description: 'Deletes one.' }];

  const others = [
    ...['delete_all', 'deleted', 'delete-all', 'deleteé'],
    ...[
      'delete all',
      'delete all files',
      'delete  all',
      'delete\nall',
      'delete jsonl',
      'delete all json',
      'delete Json',
    ],
  ];
  it.each(others)('%j is not a call of "delete"', async (name) => {
    const format = await formatOf(file, {}, tools);
    const calls = async (written: string) =>
      (await callsIn(format, `<|channel|>commentary to=functions.${written}<|message|>{}`)).map((call) => call.name);
    expect(await calls('delete')).toEqual(['delete']);
    expect(await calls('delete json')).toEqual(['delete']);
    expect(await calls('delete<|constrain|>json')).toEqual(['delete']);
    expect(await calls('delete <|constrain|>json')).toEqual(['delete']);
    expect(await calls(name)).not.toContain('delete');
  });

  it('cannot be written under the grammar', async () => {
    const format = await formatOf(file, { toolChoice: 'required' }, tools);
    const walk = new GrammarWalk(format.grammar);
    const random = seededRandom(3);
    for (let draw = 0; draw < 100; draw++) {
      expect(walk.text(random)).toMatch(/to=functions\.delete(?:<| <| json<)/);
    }
  });
});

it.each([' get', 'get ', 'get\n', 'a\0b', 'a\tb'])(
  'a tool named %j is refused, because no parser could read its name',
  (name) => {
    expect(() => requireTools([{ name }])).toThrow(/Expected .*control characters.*white space/);
  },
);
