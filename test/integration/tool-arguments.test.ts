// Tests the schemas of tools and the arguments of calls.
import { type Tool, type ToolCall, tool } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { startAgent } from '../helpers/agents.js';
import { call, lamp, ONE_CALL, openSession, vendoredTemplate } from '../helpers/lamp.js';
import { likelyText } from '../helpers/likely-text.js';

describe('the arguments of a call', () => {
  it('are checked against the whole schema, and invalid arguments never reach the tool', async () => {
    let ran = false;
    const inputSchema = z.object({ on: z.boolean().refine(() => false, 'the lamp is gone') });
    const { reply } = await call(tool({ name: 'lamp', inputSchema, execute: () => (ran = true) }));
    expect(reply.toolResults).toMatchObject([{ isError: true, output: expect.stringContaining('the lamp is gone') }]);
    expect(ran).toBe(false);
  });

  it('may be changed by the tool without changing the conversation', async () => {
    const { reply, session } = await call(lamp((args) => delete args.on));
    const [{ input }] = reply.toolCalls as [ToolCall];
    expect(reply.toolResults).toMatchObject([{ output: true, isError: false }]);
    expect(input).toEqual({ on: expect.any(Boolean) });
    expect(session.messages[1]).toMatchObject({ toolCalls: [{ input }] });
  });

  it('are transformed by a zod schema', async () => {
    const inputSchema = z.object({ on: z.boolean().transform((on) => (on ? 'lit' : 'dark')) });
    const { reply } = await call(tool({ name: 'lamp', inputSchema, execute: ({ on }) => `${on} by me` }));
    expect(reply.toolResults[0]?.output).toMatch(/^(lit|dark) by me$/);
  });
});

describe('schemas with references', () => {
  const pick = (type: string) => ({
    type: 'object',
    properties: { value: { $ref: '#/$defs/Value' } },
    required: ['value'],
    additionalProperties: false,
    $defs: { Value: { type } },
  });

  it('are separate for each tool, even if two tools use one name for different definitions', async () => {
    const tools = [
      { name: 'flag', inputSchema: pick('boolean'), execute: () => 'flagged' },
      { name: 'count', inputSchema: pick('integer'), execute: () => 'counted' },
    ];
    const session = await openSession(tools);
    for (const [name, output] of [
      ['flag', 'flagged'],
      ['count', 'counted'],
    ] as const) {
      const sampling = { ...(await likelyText(name)), penaltyLastTokens: 8 }; // the prompt also contains the names
      const { toolResults } = await (await session.fork()).send('Go on', { ...ONE_CALL, sampling });
      expect(toolResults).toMatchObject([{ toolName: name, output }]);
    }
  });

  const tree = {
    type: 'object',
    properties: { on: { type: 'boolean' }, next: { $ref: '#' } },
    required: ['on'],
    additionalProperties: false,
  };
  it('may consist of a reference, even in call formats that write arguments one by one', async () => {
    const inputSchema = z.object({ on: z.boolean() }).meta({ id: 'Switch' });
    expect(z.toJSONSchema(inputSchema)).toHaveProperty('$ref');
    const tools = [tool({ name: 'lamp', inputSchema, execute: ({ on }) => typeof on })];
    const session = await openSession(tools, { chatTemplate: vendoredTemplate('Qwen3-Coder') });
    const { toolResults } = await session.send('Light', ONE_CALL);
    expect(toolResults).toMatchObject([{ output: 'boolean', isError: false }]);
  });

  it.each(['the micro model', 'Qwen3-Coder', 'meta-llama-Llama-3.1-8B-Instruct'])(
    'may be recursive, with the chat template of %s',
    async (name) => {
      const settings = name === 'the micro model' ? {} : { chatTemplate: vendoredTemplate(name) };
      const session = await openSession([{ name: 'tree', inputSchema: tree, execute: () => 'grown' }], settings);
      const { toolResults } = await session.send('Grow', { ...ONE_CALL, sampling: { temperature: 1, seed: 2 } });
      expect(toolResults).toMatchObject([{ output: 'grown', isError: false }]);
    },
  );
});

describe('an invalid tool', () => {
  it.each<[string, unknown, string]>([
    ['with the name of another tool', [lamp(), lamp()], 'CONFIG_INVALID'],
    ['without a name', [{ description: 'x' }], 'CONFIG_INVALID'],
    ['with a misspelled field', [{ name: 'a', exectue: () => 1 }], 'CONFIG_INVALID'],
    ['with the field name of another package', [{ name: 'a', input_schema: {} }], 'CONFIG_INVALID'],
    ['with half a surrogate pair in its name', [{ name: 'a\ud800' }], 'CONFIG_INVALID'],
    [
      'with a schema that no value fits',
      [{ name: 'a', inputSchema: { properties: { b: false }, required: ['b'] } }],
      'SCHEMA_INVALID',
    ],
    ['whose `execute` is not a function', [{ ...lamp(), execute: 'rm' }], 'CONFIG_INVALID'],
    ['with an invalid schema', [{ name: 'a', inputSchema: { type: 'color' } }], 'SCHEMA_INVALID'],
    [
      'with an endless reference',
      [{ name: 'a', inputSchema: { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } } }],
      'SCHEMA_INVALID',
    ],
    ['with a reference to nothing', [{ name: 'a', inputSchema: { $ref: '#/$defs/b' } }], 'SCHEMA_INVALID'],
    ['whose arguments are a string', [tool({ name: 'a', inputSchema: z.string() })], 'SCHEMA_INVALID'],
    ['whose arguments are a list', [{ name: 'a', inputSchema: { type: ['array', 'null'] } }], 'SCHEMA_INVALID'],
    [
      'with the schema of an unknown library',
      [{ name: 'a', inputSchema: { '~standard': { version: 1, vendor: 'x', validate: () => ({ value: 1 }) } } }],
      'SCHEMA_INVALID',
    ],
  ])('%s is refused when a session is opened', async (_, tools, code) => {
    const agent = await startAgent();
    await expect(agent.createSession({ tools: tools as Tool[] })).rejects.toMatchObject({ code });
    expect(agent.health()).toMatchObject({ openSessions: 0, activeSessions: 0 });
  });
});

it('half a surrogate pair in a tool or a call does not make a turn fail', async () => {
  const description = 'Half of \ud83d';
  const inputSchema = { type: 'object', properties: { of: { type: 'string', description } } };
  const session = await (await startAgent({ contextSize: 4096 })).createSession({
    tools: [{ name: 'halve', description, inputSchema }],
    messages: [
      { role: 'user', content: 'Halve it' },
      {
        role: 'assistant',
        content: '',
        toolCalls: [{ toolCallId: 'call00000', toolName: 'halve', input: { of: '\ud83d', '\udeb2': 1 } }],
      },
      { role: 'tool', toolCallId: 'call00000', content: '\udeb2' },
    ],
  });
  expect((await session.send('Thanks', { toolChoice: 'none', maxTokens: 3 })).usage.outputTokens).toBe(3);
});
