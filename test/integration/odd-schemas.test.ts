// Tests schemas that validators accept but llama.cpp's converter to grammars refuses. The grammar enforces only a part
// of such a schema.
import { tool } from 'llama-headstart';
import { prepareSchema, ToolSet } from 'llama-headstart/internal';
import { jsonSchemaToGrammar } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';

const named = (count: number, schema: object) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`property_${index}`, schema]));
const deep = (levels: number): object =>
  levels === 0 ? { type: 'null' } : { type: 'object', properties: { a: deep(levels - 1) }, required: ['a'] };
const properties = (schemas: Record<string, unknown>, more: object = {}) => ({
  type: 'object',
  properties: schemas,
  ...more,
});
const types = ['string', 'number', 'object', 'array', 'boolean', 'null'];
const multiplied = (levels: number): object => ({
  type: types,
  ...(levels > 0 && { items: multiplied(levels - 1), properties: named(2, multiplied(levels - 1)) }),
});

const ODD: [string, object][] = [
  ['references with ~1', properties({ a: { $ref: '#/$defs/a~1b' } }, { $defs: { 'a/b': { type: 'null' } } })],
  ['references with ~0 and percent codes', properties({ a: { $ref: '#/$defs/a~0%20b' } }, { $defs: { 'a~ b': {} } })],
  ['references to an anchor', properties({ a: { $ref: '#b' } }, { $defs: { b: { $anchor: 'b', type: 'null' } } })],
  ['references to an identifier', properties({ a: { $ref: 'b' } }, { $id: 'http://x/y', $defs: { b: { $id: 'b' } } })],
  ['dynamic references', properties({ a: { $dynamicRef: '#b' } }, { $defs: { b: { $dynamicAnchor: 'b' } } })],
  ['a recursive reference beside other keywords', properties({ a: { $ref: '#', required: ['a'] }, b: {} })],
  [
    'two recursive definitions',
    properties(
      { a: { allOf: [{ $ref: '#' }, { $ref: '#/$defs/b' }] } },
      { $defs: { b: properties({ a: { $ref: '#/$defs/b' } }) } },
    ),
  ],
  ['an optional property that no value fits', properties({ a: { minimum: 5, maximum: 3 }, b: { type: 'null' } })],
  ['600 properties', properties(named(600, { type: 'string' }))],
  ['600 required properties', properties(named(600, { type: 'null' }), { required: Object.keys(named(600, {})) })],
  ['1,500 properties', properties(named(1500, { type: 'string', description: 'x'.repeat(40) }))],
  ['70 levels', deep(70)],
  ['400 levels', deep(400)],
  ['a long enum', properties({ a: { enum: Object.keys(named(3000, {})) } })],
  ['a huge array', properties({ a: { items: { type: 'string' }, minItems: 100_000, maxItems: 1e9 } })],
  ['a huge text', properties({ a: { type: 'string', minLength: 1e6, maxLength: 1e12 } })],
  ['huge bounds', properties({ a: { type: 'integer', minimum: -1e300, maximum: 2 ** 64 }, b: { maximum: 1e300 } })],
  ['patterns with backreferences', properties({ a: { type: 'string', pattern: '^(a|b)\\1$' } })],
  ['patterns that expand to a huge size', properties({ a: { type: 'string', pattern: '^((a{999}){99}b){99}$' } })],
  ['patterns that are invalid with the flag `u`', properties({ a: { type: 'string', pattern: '^\\-{2}$' } })],
  ['constants that are objects', properties({ a: { const: { b: [1, { c: null }] } } })],
  [
    '`not`, `if` and `else`',
    properties({ a: { not: { type: 'null' }, if: { type: 'string' }, else: { minimum: 2 } } }),
  ],
  [
    'patterns of property names',
    { type: 'object', patternProperties: { '^x-': { type: 'string' } }, additionalProperties: false },
  ],
  ['tuples', properties({ a: { prefixItems: [{}, true, { type: 'null' }], items: false } })],
  ['nested types whose combinations multiply', properties({ a: multiplied(6) })],
  [
    'alternatives whose combinations multiply',
    properties({ a: { allOf: Array.from({ length: 12 }, (_, i) => ({ anyOf: [{ minimum: i }, { maxLength: i }] })) } }),
  ],
  ['long names', properties({ ['n'.repeat(1000)]: { type: 'null' } })],
  ['no keywords that restrict the values', { $comment: 'all is well' }],
];

describe('the schema of a tool', () => {
  it.each(ODD)('becomes a grammar although it has %s', async (_, schema) => {
    const { grammarSchema, shortSchema } = await prepareSchema(schema, 'it', true);
    for (const converted of [grammarSchema, shortSchema]) {
      expect(await jsonSchemaToGrammar(converted)).toMatch(/^root ::= /m);
    }
  });
});

it('schemas of several tools that are too large together are enforced in part', async () => {
  const large = properties(named(20, { type: 'string', pattern: '^[a-c]{3}\\p{L}$' }));
  const tools = ['a', 'b', 'c'].map((name) => ({ name, parameters: { ...large, title: name } }));
  const { definitions } = await ToolSet.prepare(tools);
  const grammars = await Promise.all(definitions.map(({ grammarSchema = {} }) => jsonSchemaToGrammar(grammarSchema)));
  const lengths = grammars.map(({ length }) => length);
  expect(Math.max(...lengths)).toBeGreaterThan(100_000);
  expect(Math.min(...lengths)).toBeLessThan(20_000);
  expect(lengths.reduce((sum, each) => sum + each)).toBeLessThan(500_000);
});

describe('a session', () => {
  const lamp = tool({
    name: 'lamp',
    parameters: properties({ on: { type: 'boolean' } }, { required: ['on'] }),
    execute: () => 'lit',
  });
  const tested = ['references with ~1', '70 levels'];

  it.each(ODD.filter(([name]) => tested.includes(name)))(
    'with a tool whose schema has %s can be opened and calls the tool',
    async (_, parameters) => {
      const odd = { name: 'odd', parameters, execute: () => 'done' };
      const session = await (await startAgent({ contextSize: 4096 })).createSession({ tools: [odd, lamp] });
      for (const name of ['odd', 'lamp']) {
        const { toolCalls } = await session.send('Go', { toolChoice: { name }, maxSteps: 1, maxTokens: 400 });
        expect(toolCalls.map(({ toolName }) => toolName)).toContain(name);
      }
    },
  );

  it('with a tool whose schema no value fits is refused, and the error names the tool', async () => {
    const parameters = properties({ count: { type: 'integer', minimum: 5, maximum: 3 } }, { required: ['count'] });
    const agent = await startAgent();
    await expect(agent.createSession({ tools: [{ name: 'odd', parameters }] })).rejects.toMatchObject({
      code: 'SCHEMA_INVALID',
      message:
        'Expected `parameters` of the tool "odd" to be a schema that some value fits, but the property `count` must be there, and `minimum` is above `maximum`',
    });
  });
});
