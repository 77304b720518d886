import { expect, it } from 'vitest';
import { schemaForGrammar } from '../../lib/tools/grammar-schema.js';

it.each<[string, object, object]>([
  [
    'what grammars can say stays',
    { type: 'object', properties: { a: { type: 'string' } } },
    { type: 'object', properties: { a: { type: 'string' } } },
  ],
  ['`true` is any value', { properties: { a: true }, items: true }, { properties: { a: {} }, items: {} }],
  ['`additionalProperties` stays a switch', { additionalProperties: true }, { additionalProperties: true }],
  [
    'tuples end where they end',
    { prefixItems: [{ type: 'null' }, true], items: false },
    { prefixItems: [{ type: 'null' }, {}] },
  ],
  ['classes are written out', { pattern: '^\\d[\\w-]\\\\d\\[\\d$' }, { pattern: '^[0-9][A-Za-z0-9_-]\\\\d\\[[0-9]$' }],
  [
    'data that looks like schemas is left alone',
    { enum: [{ $ref: '#' }], const: { items: true }, properties: { pattern: { default: { pattern: '\\d' } } } },
    { enum: [{ $ref: '#' }], const: { items: true }, properties: { pattern: { default: { pattern: '\\d' } } } },
  ],
])('%s', (_, schema, expected) => {
  const before = JSON.stringify(schema);
  expect(schemaForGrammar(schema as never)).toEqual(expected);
  expect(JSON.stringify(schema)).toBe(before);
});

it('a schema in itself gets a name', () => {
  const schema = { properties: { next: { $ref: '#' } }, $defs: { self: { type: 'null' } } };
  const properties = { next: { $ref: '#/$defs/self_' } };
  const whole = { properties, $defs: { self: { type: 'null' } } };
  expect(schemaForGrammar(schema)).toEqual({ properties, $defs: { self: { type: 'null' }, self_: whole } });
});

it('what the whole schema refers to stands in its place, where that has an end', () => {
  const tree = { type: 'object', properties: { next: { $ref: '#/$defs/Tree' } } };
  const schema = { $ref: '#/$defs/Alias', $defs: { Alias: { $ref: '#/$defs/Tree' }, Tree: tree } };
  expect(schemaForGrammar(schema)).toEqual({ ...tree, $defs: schema.$defs });
  const older = { $ref: '#/definitions/Tree', definitions: { Tree: { type: 'null' } } };
  expect(schemaForGrammar(older)).toEqual({ type: 'null', definitions: older.definitions });
  const endless = { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } };
  expect(schemaForGrammar(endless)).toEqual(endless);
  const described = { $ref: '#/$defs/a', title: 'A tree', $defs: { a: tree } };
  expect(schemaForGrammar(described)).toEqual({ title: 'A tree', ...tree, $defs: { a: tree } });
  const elsewhere = { $ref: '#/components/a', components: { a: { properties: { b: { $ref: '#/components/a' } } } } };
  expect(schemaForGrammar(elsewhere)).toEqual(elsewhere);
  const nothing = { $ref: '#/$defs/b' };
  expect(schemaForGrammar(nothing)).toEqual(nothing);
});
