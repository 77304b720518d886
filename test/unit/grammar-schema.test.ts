import { Never, schemaForGrammar, shownSchema } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const DETAIL = { patterns: true, depth: 32, entries: 400, items: 256 };
const said = (schema: object, detail = {}) => schemaForGrammar(schema as never, { ...DETAIL, ...detail });

const NUMBERS = { type: 'integer', minimum: 1, maximum: 3 };
const a = { type: 'object', properties: { a: { type: 'string' } }, additionalProperties: false };
const either = (...required: string[]) => required.map((name) => ({ required: [name] }));

describe('what a grammar is made of', () => {
  it.each<[string, object, object]>([
    ['what grammars can say stays', { ...a, required: ['a'] }, { ...a, required: ['a'] }],
    [
      'remarks go, but for descriptions',
      { type: 'null', title: 'N', description: 'none' },
      { type: 'null', description: 'none' },
    ],
    [
      '`true` is any value',
      { properties: { a: true }, required: ['a'] },
      { type: 'object', properties: { a: {} }, required: ['a'], additionalProperties: false },
    ],
    [
      'what must be there is named',
      { type: 'object', required: ['a'] },
      { type: 'object', properties: { a: {} }, required: ['a'], additionalProperties: true },
    ],
    [
      'what can never be there is not written',
      { properties: { a: { type: 'null' }, b: false } },
      { type: 'object', properties: { a: { type: 'null' } }, additionalProperties: false },
    ],
    [
      'names that are listed are properties',
      { type: 'object', propertyNames: { enum: ['a'] }, additionalProperties: NUMBERS },
      { type: 'object', properties: { a: NUMBERS }, additionalProperties: false },
    ],
    [
      'patterns of names hold for known names',
      { properties: { ab: {} }, patternProperties: { '^a': NUMBERS } },
      { type: 'object', properties: { ab: NUMBERS }, additionalProperties: false },
    ],
    [
      'an object of no properties is empty',
      { type: 'object', properties: { a: {} }, maxProperties: 0 },
      { type: 'object', additionalProperties: false },
    ],
    ['properties belong to each alternative', { ...a, anyOf: either('a') }, { ...a, required: ['a'] }],
    [
      'alternatives that ask for different properties stay apart',
      { type: 'object', properties: { a: NUMBERS, b: NUMBERS }, anyOf: either('a', 'b') },
      {
        anyOf: ['a', 'b'].map((name) => ({
          type: 'object',
          properties: { a: NUMBERS, b: NUMBERS },
          required: [name],
          additionalProperties: false,
        })),
      },
    ],
    [
      'alternatives that no value fits go',
      { anyOf: [false, { type: 'null' }, { allOf: [{ type: 'null' }, { type: 'string' }] }] },
      { type: 'null' },
    ],
    ['`allOf` is joined', { allOf: [{ minimum: 1 }, { type: 'integer', maximum: 3 }] }, NUMBERS],
    [
      'what stands beside a reference is joined',
      { $ref: '#/$defs/n', maximum: 3, $defs: { n: { type: 'integer', minimum: 1 } } },
      NUMBERS,
    ],
    [
      'of two lower bounds the higher one counts',
      { type: 'integer', minimum: -9, exclusiveMinimum: 0, maximum: 3.5 },
      NUMBERS,
    ],
    ['one bound gets another one', { type: 'integer', minimum: 7 }, { type: 'integer', minimum: 7, maximum: 1e17 }],
    [
      'the bounds of safe integers are none: more digits are refused, not cut',
      { type: 'integer', minimum: -9007199254740991, maximum: 9007199254740991 },
      { type: 'integer' },
    ],
    [
      'bounds of 64 bits are none either',
      { type: 'integer', minimum: 0, maximum: 2 ** 64 },
      { type: 'integer', minimum: 0, maximum: 1e17 },
    ],
    [
      'whole multiples are integers',
      { type: 'number', multipleOf: 1, minimum: 1, maximum: 300 },
      { type: 'integer', minimum: 1, maximum: 300 },
    ],
    [
      'few multiples are listed',
      { type: 'integer', minimum: 1, maximum: 20, multipleOf: 7 },
      { type: 'integer', enum: [7, 14] },
    ],
    [
      'few multiples of a fraction are listed',
      { type: 'number', minimum: 0.06, maximum: 0.08, multipleOf: 0.01 },
      { type: 'number', enum: [0.06, 0.07, 0.08] },
    ],
    [
      'values of other types are not listed',
      { type: 'string', enum: ['a', 1, 'bc'], minLength: 2 },
      { type: 'string', const: 'bc' },
    ],
    [
      'each type has what is said of it',
      { type: ['string', 'null'], minLength: 2 },
      { anyOf: [{ type: 'string', minLength: 2 }, { type: 'null' }] },
    ],
    ['types of which nothing is said stay a list', { type: ['string', 'null'] }, { type: ['string', 'null'] }],
    ['a keyword tells the type', { maxLength: 2 }, { type: 'string', maxLength: 2 }],
    [
      'a format has no length beside it',
      { type: 'string', format: 'date-time', maxLength: 3 },
      { type: 'string', maxLength: 3 },
    ],
    [
      'a format whose length fits stays',
      { type: 'string', format: 'date', minLength: 3 },
      { type: 'string', format: 'date' },
    ],
    [
      'pattern and length are one',
      { type: 'string', pattern: '^[a-c]+$', minLength: 3, maxLength: 5 },
      { type: 'string', pattern: '^[a-c]{3,5}$' },
    ],
    ['a pattern of nothing', { type: 'string', pattern: '^$' }, { type: 'string', const: '' }],
    [
      'what is in a pattern is written as JSON has it',
      { type: 'string', pattern: '^a"\\/$' },
      { type: 'string', pattern: '^[a][\\x5c][\\x22][\\x2f]$' },
    ],
    [
      'tuples end where they end',
      { prefixItems: [{ type: 'null' }], items: false },
      { type: 'array', prefixItems: [{ type: 'null' }] },
    ],
    [
      'tuples of older drafts',
      { items: [{ type: 'null' }], additionalItems: NUMBERS, minItems: 2 },
      { type: 'array', prefixItems: [{ type: 'null' }, NUMBERS] },
    ],
    ['a list of nothing is empty', { type: 'array', items: false }, { type: 'array', items: {}, maxItems: 0 }],
    [
      'data that looks like schemas is left alone',
      { enum: [{ $ref: '#' }, { pattern: '\\d' }] },
      { enum: [{ $ref: '#' }, { pattern: '\\d' }] },
    ],
  ])('%s', (_, schema, expected) => {
    const before = JSON.stringify(schema);
    expect(said(schema)).toEqual(expected);
    expect(JSON.stringify(schema)).toBe(before);
  });

  it('follows references however they are written, and names what they lead to', () => {
    const properties = Object.fromEntries(
      ['#/$defs/a~1b', '#/$defs/c~0d', '#/$defs/e%20f', '#'].map(($ref, index) => [`p${index}`, { $ref }]),
    );
    const $defs = { 'a/b': { type: 'null' }, 'c~d': { type: 'boolean' }, 'e f': NUMBERS };
    const converted = said({ properties, $defs }) as { properties: Record<string, { $ref: string }>; $defs: object };
    const names = Object.values(converted.properties).map(({ $ref }) => $ref.slice('#/$defs/'.length));
    expect(names.map((name) => (converted.$defs as Record<string, unknown>)[name])).toEqual([
      { type: 'null' },
      { type: 'boolean' },
      NUMBERS,
      expect.objectContaining({ properties: converted.properties }),
    ]);
  });

  it('of a reference that leads elsewhere is anything', () => {
    expect(said({ properties: { a: { $ref: '#there' }, b: { $ref: 'https://example.org/b' } } })).toMatchObject({
      properties: { a: {}, b: {} },
    });
  });

  it('is less where less is asked for', () => {
    const schema = { properties: { a: { items: { type: 'string', pattern: '^a$' } }, b: {} } };
    expect(said(schema, { patterns: false })).toMatchObject({ properties: { a: { items: { type: 'string' } } } });
    expect(said(schema, { depth: 1 })).toMatchObject({ properties: { a: { items: {} } } });
    expect(said(schema, { entries: 1 })).toMatchObject({ properties: { a: {} }, additionalProperties: true });
  });
});

describe('a schema that no value fits says why', () => {
  const endless = { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } } };
  it.each<[object, RegExp]>([
    [{ type: 'integer', minimum: 5, maximum: 3 }, /`minimum` is above `maximum`/],
    [{ type: 'integer', exclusiveMinimum: 5, maximum: 5 }, /`minimum` is above `maximum`/],
    [{ type: 'number', minimum: 0.5, maximum: 0.25 }, /`minimum` is above `maximum`/],
    [{ type: 'number', minimum: 2, exclusiveMinimum: 0, exclusiveMaximum: 1 }, /`minimum` is above `maximum`/],
    [{ type: 'number', exclusiveMinimum: 0.5, exclusiveMaximum: 0.5 }, /`minimum` is above `maximum`/],
    [{ type: 'number', exclusiveMinimum: 0.5, maximum: 0.5 }, /`minimum` is above `maximum`/],
    [{ type: 'integer', minimum: 2 ** 60 }, /beyond 2\^53/],
    [{ type: 'string', minLength: 5, maxLength: 3 }, /`minLength` is above `maxLength`/],
    [{ type: 'string', pattern: '^a+$', allOf: [{ pattern: '^b+$' }] }, /no string fits/],
    [{ type: 'string', pattern: '^a$', minLength: 2 }, /no string fits/],
    [{ type: 'array', items: false, minItems: 1 }, /more items than it may have/],
    [{ prefixItems: [{}], items: false, minItems: 2 }, /more items than it may have/],
    [{ properties: { a: false }, required: ['a'] }, /property `a` must be there, and a schema is `false`/],
    [{ properties: {}, required: ['a'], additionalProperties: false }, /property `a` must be there/],
    [{ type: 'object', required: ['a', 'b'], maxProperties: 1 }, /more properties than it may have/],
    [{ enum: ['a'], type: 'integer' }, /none of the values/],
    [{ type: 'string', allOf: [{ type: 'null' }] }, /types exclude each other/],
    [{ anyOf: [false, { type: 'integer', minimum: 2, maximum: 1 }] }, /a schema is `false`/],
    [
      { properties: { a: { $ref: '#/$defs/no' } }, required: ['a'], $defs: { no: { allOf: [false] } } },
      /`a` must be there/,
    ],
    [endless, /leads back to itself/],
    [{ $ref: '#' }, /leads back to itself/],
  ])('%j', (schema, reason) => {
    const result = said(schema);
    expect(result).toBeInstanceOf(Never);
    expect((result as Never).reason).toMatch(reason);
  });
});

describe('what the model is told', () => {
  it('is the schema itself, but for `true` and what its root refers to', () => {
    const tree = { type: 'object', properties: { next: { $ref: '#/$defs/Tree' } } };
    const schema = { $ref: '#/$defs/Alias', $defs: { Alias: { $ref: '#/$defs/Tree' }, Tree: tree } };
    expect(shownSchema(schema)).toEqual({ ...tree, $defs: schema.$defs });
    const older = { $ref: '#/definitions/Tree', definitions: { Tree: { type: 'null' } } };
    expect(shownSchema(older)).toEqual({ type: 'null', definitions: older.definitions });
    const odd = { properties: { a: true, b: { pattern: '\\d', minimum: 3, maximum: 1 } }, enum: [true] };
    expect(shownSchema(odd)).toEqual({ ...odd, properties: { a: {}, b: odd.properties.b } });
    for (const same of [{ $ref: '#/$defs/b' }, { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } }]) {
      expect(shownSchema(same)).toEqual(same);
    }
  });

  it('ends where no chat template could follow', () => {
    const deep = (levels: number): object => (levels === 0 ? {} : { items: deep(levels - 1) });
    expect(JSON.stringify(shownSchema(deep(300) as never)).split('items')).toHaveLength(57);
  });
});
