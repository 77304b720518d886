import { schemaForGrammar, shownSchema, Unsatisfiable } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const DETAIL = { patterns: true, depth: 32, entries: 400, items: 256 };
const convert = (schema: object, detail = {}) => schemaForGrammar(schema as never, { ...DETAIL, ...detail });

const NUMBERS = { type: 'integer', minimum: 1, maximum: 3 };
const a = { type: 'object', properties: { a: { type: 'string' } }, additionalProperties: false };
const either = (...required: string[]) => required.map((name) => ({ required: [name] }));

describe('the schema for the grammar', () => {
  it.each<[string, object, object]>([
    ['keeps the constraints that grammars can enforce', { ...a, required: ['a'] }, { ...a, required: ['a'] }],
    [
      'has no annotations other than descriptions',
      { type: 'null', title: 'N', description: 'none' },
      { type: 'null', description: 'none' },
    ],
    [
      'reads `true` as any value',
      { properties: { a: true }, required: ['a'] },
      { type: 'object', properties: { a: {} }, required: ['a'], additionalProperties: false },
    ],
    [
      'lists each required property as a property',
      { type: 'object', required: ['a'] },
      { type: 'object', properties: { a: {} }, required: ['a'], additionalProperties: true },
    ],
    [
      'leaves out properties that no value fits',
      { properties: { a: { type: 'null' }, b: false } },
      { type: 'object', properties: { a: { type: 'null' } }, additionalProperties: false },
    ],
    [
      'turns the names in `propertyNames` into properties',
      { type: 'object', propertyNames: { enum: ['a'] }, additionalProperties: NUMBERS },
      { type: 'object', properties: { a: NUMBERS }, additionalProperties: false },
    ],
    [
      'applies patterns of names to named properties',
      { properties: { ab: {} }, patternProperties: { '^a': NUMBERS } },
      { type: 'object', properties: { ab: NUMBERS }, additionalProperties: false },
    ],
    [
      'has no properties if `maxProperties` is 0',
      { type: 'object', properties: { a: {} }, maxProperties: 0 },
      { type: 'object', additionalProperties: false },
    ],
    ['copies properties into each alternative', { ...a, anyOf: either('a') }, { ...a, required: ['a'] }],
    [
      'separates alternatives with different required properties',
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
      'leaves out alternatives that no value fits',
      { anyOf: [false, { type: 'null' }, { allOf: [{ type: 'null' }, { type: 'string' }] }] },
      { type: 'null' },
    ],
    ['joins the schemas of `allOf`', { allOf: [{ minimum: 1 }, { type: 'integer', maximum: 3 }] }, NUMBERS],
    [
      'joins a reference with the keywords beside it',
      { $ref: '#/$defs/n', maximum: 3, $defs: { n: { type: 'integer', minimum: 1 } } },
      NUMBERS,
    ],
    [
      'uses the higher one of two lower bounds',
      { type: 'integer', minimum: -9, exclusiveMinimum: 0, maximum: 3.5 },
      NUMBERS,
    ],
    ['adds a missing upper bound', { type: 'integer', minimum: 7 }, { type: 'integer', minimum: 7, maximum: 1e17 }],
    [
      'leaves out bounds that equal the limits of safe integers',
      { type: 'integer', minimum: -9007199254740991, maximum: 9007199254740991 },
      { type: 'integer' },
    ],
    [
      'replaces bounds beyond 2^53 by 10^17',
      { type: 'integer', minimum: 0, maximum: 2 ** 64 },
      { type: 'integer', minimum: 0, maximum: 1e17 },
    ],
    [
      'reads numbers that are multiples of an integer as integers',
      { type: 'number', multipleOf: 1, minimum: 1, maximum: 300 },
      { type: 'integer', minimum: 1, maximum: 300 },
    ],
    [
      'lists multiples if they are few',
      { type: 'integer', minimum: 1, maximum: 20, multipleOf: 7 },
      { type: 'integer', enum: [7, 14] },
    ],
    [
      'lists multiples of a fraction if they are few',
      { type: 'number', minimum: 0.06, maximum: 0.08, multipleOf: 0.01 },
      { type: 'number', enum: [0.06, 0.07, 0.08] },
    ],
    [
      'leaves out listed values of other types',
      { type: 'string', enum: ['a', 1, 'bc'], minLength: 2 },
      { type: 'string', const: 'bc' },
    ],
    [
      'gives each type its own keywords',
      { type: ['string', 'null'], minLength: 2 },
      { anyOf: [{ type: 'string', minLength: 2 }, { type: 'null' }] },
    ],
    ['keeps a list of types without other keywords', { type: ['string', 'null'] }, { type: ['string', 'null'] }],
    ['derives the type from a keyword', { maxLength: 2 }, { type: 'string', maxLength: 2 }],
    [
      'leaves out a format that does not fit the length',
      { type: 'string', format: 'date-time', maxLength: 3 },
      { type: 'string', maxLength: 3 },
    ],
    [
      'keeps a format that fits the length',
      { type: 'string', format: 'date', minLength: 3 },
      { type: 'string', format: 'date' },
    ],
    [
      'joins pattern and length',
      { type: 'string', pattern: '^[a-c]+$', minLength: 3, maxLength: 5 },
      { type: 'string', pattern: '^[a-c]{3,5}$' },
    ],
    [
      'reads a pattern of the empty string as a constant',
      { type: 'string', pattern: '^$' },
      { type: 'string', const: '' },
    ],
    [
      'escapes the characters of a pattern as JSON does',
      { type: 'string', pattern: '^a"\\/$' },
      { type: 'string', pattern: '^[a][\\x5c][\\x22][\\x2f]$' },
    ],
    [
      'keeps the length of a closed tuple',
      { prefixItems: [{ type: 'null' }], items: false },
      { type: 'array', prefixItems: [{ type: 'null' }] },
    ],
    [
      'reads tuples of older drafts',
      { items: [{ type: 'null' }], additionalItems: NUMBERS, minItems: 2 },
      { type: 'array', prefixItems: [{ type: 'null' }, NUMBERS] },
    ],
    [
      'allows only an empty list if no item fits',
      { type: 'array', items: false },
      { type: 'array', items: {}, maxItems: 0 },
    ],
    [
      'does not change data that looks like a schema',
      { enum: [{ $ref: '#' }, { pattern: '\\d' }] },
      { enum: [{ $ref: '#' }, { pattern: '\\d' }] },
    ],
  ])('%s', async (_, schema, expected) => {
    const before = JSON.stringify(schema);
    expect(await convert(schema)).toEqual(expected);
    expect(JSON.stringify(schema)).toBe(before);
  });

  it('follows references in every notation, and names their targets', async () => {
    const properties = Object.fromEntries(
      ['#/$defs/a~1b', '#/$defs/c~0d', '#/$defs/e%20f', '#'].map(($ref, index) => [`p${index}`, { $ref }]),
    );
    const $defs = { 'a/b': { type: 'null' }, 'c~d': { type: 'boolean' }, 'e f': NUMBERS };
    const converted = (await convert({ properties, $defs })) as {
      properties: Record<string, { $ref: string }>;
      $defs: object;
    };
    const names = Object.values(converted.properties).map(({ $ref }) => $ref.slice('#/$defs/'.length));
    expect(names.map((name) => (converted.$defs as Record<string, unknown>)[name])).toEqual([
      { type: 'null' },
      { type: 'boolean' },
      NUMBERS,
      expect.objectContaining({ properties: converted.properties }),
    ]);
  });

  it('allows any value for a reference to a target outside of the schema', async () => {
    expect(
      await convert({ properties: { a: { $ref: '#there' }, b: { $ref: 'https://example.org/b' } } }),
    ).toMatchObject({
      properties: { a: {}, b: {} },
    });
  });

  it('leaves out patterns, nested schemas and properties if less detail is requested', async () => {
    const schema = { properties: { a: { items: { type: 'string', pattern: '^a$' } }, b: {} } };
    expect(await convert(schema, { patterns: false })).toMatchObject({
      properties: { a: { items: { type: 'string' } } },
    });
    expect(await convert(schema, { depth: 1 })).toMatchObject({ properties: { a: { items: {} } } });
    expect(await convert(schema, { entries: 1 })).toMatchObject({ properties: { a: {} }, additionalProperties: true });
  });
});

describe('a schema that no value fits gives the reason', () => {
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
    [{ enum: ['a'], type: 'integer' }, /none of its listed values/],
    [{ type: 'string', allOf: [{ type: 'null' }] }, /types exclude each other/],
    [{ anyOf: [false, { type: 'integer', minimum: 2, maximum: 1 }] }, /a schema is `false`/],
    [
      { properties: { a: { $ref: '#/$defs/no' } }, required: ['a'], $defs: { no: { allOf: [false] } } },
      /`a` must be there/,
    ],
    [endless, /leads back to itself/],
    [{ $ref: '#' }, /leads back to itself/],
  ])('%j', async (schema, reason) => {
    const result = await convert(schema);
    expect(result).toBeInstanceOf(Unsatisfiable);
    expect((result as Unsatisfiable).reason).toMatch(reason);
  });
});

describe('the schema for the prompt', () => {
  it('is the original schema with `{}` instead of `true`, and without a reference at its root', () => {
    const tree = { type: 'object', properties: { next: { $ref: '#/$defs/Tree' } } };
    const schema = { $ref: '#/$defs/Alias', $defs: { Alias: { $ref: '#/$defs/Tree' }, Tree: tree } };
    expect(shownSchema(schema)).toEqual({ ...tree, $defs: schema.$defs });
    const older = { $ref: '#/definitions/Tree', definitions: { Tree: { type: 'null' } } };
    expect(shownSchema(older)).toEqual({ type: 'null', definitions: older.definitions });
    const plain = { properties: { a: true, b: { pattern: '\\d', minimum: 3, maximum: 1 } }, enum: [true] };
    expect(shownSchema(plain)).toEqual({ ...plain, properties: { a: {}, b: plain.properties.b } });
    for (const same of [{ $ref: '#/$defs/b' }, { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } }]) {
      expect(shownSchema(same)).toEqual(same);
    }
  });

  it('is cut at a depth that chat templates can write', () => {
    const deep = (levels: number): object => (levels === 0 ? {} : { items: deep(levels - 1) });
    expect(JSON.stringify(shownSchema(deep(300) as never)).split('items')).toHaveLength(57);
  });
});
