import type { Schema } from 'llama-headstart';
import { prepareSchema } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';

const prepare = (schema: Schema) => prepareSchema(schema, 'it');

/** Returns the problem of a value, or undefined if the value fits the schema. */
async function problemOf(schema: Schema, value: unknown): Promise<string | undefined> {
  return (await prepare(schema)).parse(value).then(
    () => undefined,
    (error: Error) => error.message,
  );
}

describe('values that have to fit a schema', () => {
  it.each<[string, object, unknown, RegExp]>([
    ['numbers in bounds', { type: 'number', exclusiveMaximum: 0.5 }, 0.5, /must be < 0.5/],
    ['multiples', { multipleOf: 5 }, 7, /multiple of 5/],
    ['names of properties', { propertyNames: { pattern: '^x' } }, { a: 1 }, /property name must be valid/],
    ['properties by pattern', { patternProperties: { '^x': { type: 'null' } } }, { xy: 1 }, /must be null/],
    ['the number of properties', { minProperties: 1 }, {}, /fewer than 1 properties/],
    ['unique items', { uniqueItems: true }, [1, 1], /duplicate items/],
    ['required items', { contains: { type: 'null' } }, [1], /at least 1 valid item/],
    [
      'the number of required items',
      { contains: { type: 'null' }, maxContains: 1 },
      [null, null],
      /no more than 1 valid item/,
    ],
    ['`not`', { not: { type: 'string' } }, 'a', /must NOT be valid/],
    ['conditions', { if: { type: 'string' }, else: { required: ['a'] } }, {}, /required property 'a'/],
    [
      'properties that require others',
      { dependentRequired: { a: ['b'] } },
      { a: 1 },
      /must have property b when property a/,
    ],
    ['unevaluated properties', { unevaluatedProperties: false }, { a: 1 }, /unevaluated properties/],
    ['exactly one of several schemas', { oneOf: [{ type: 'number' }, { minimum: 1 }] }, 2, /exactly one schema/],
  ])('are checked for constraints that grammars cannot enforce: %s', async (_, schema, value, problem) => {
    expect(await problemOf(schema, value)).toMatch(problem);
  });

  it.each([
    [0.07, 0.01],
    [1.1, 0.1],
    [19.99, 0.01],
    [1_234_567.89, 0.01],
    [-0.3, 0.1],
    [0.0075, 0.0001],
  ])('may be multiples of a fraction: %d is a multiple of %d', async (value, multipleOf) => {
    expect(await problemOf({ type: 'number', multipleOf }, value)).toBeUndefined();
  });

  it.each([
    [0.075, 0.01],
    [0.00751, 0.0001],
    [1.05, 0.1],
  ])('are refused if they are not multiples of a fraction: %d is not a multiple of %d', async (value, multipleOf) => {
    expect(await problemOf({ type: 'number', multipleOf }, value)).toMatch(/must be multiple of/);
  });

  it('are checked even if the schema sets `$async`', async () => {
    const schema = { $async: true, type: 'object', properties: { a: { type: 'integer' } } };
    expect(await problemOf(schema, { a: 'one' })).toMatch(/must be integer/);
    expect(await problemOf(schema, { a: 1 })).toBeUndefined();
  });

  it('are checked against patterns that are valid only without the flag `u`', async () => {
    const schema = z.object({ code: z.string().regex(/^\d{3}-\d{4}$/) });
    expect(await problemOf(schema, { code: '555-1234' })).toBeUndefined();
    expect(await problemOf(schema, { code: '5551234' })).toMatch(/code/);
    await expect(prepare({ type: 'string', pattern: '(' })).rejects.toMatchObject({ code: 'SCHEMA_INVALID' });
  });
});

it('a property `__proto__` is refused, because it cannot be checked', async () => {
  const schema = JSON.parse('{"type":"object","properties":{"a":{"properties":{"__proto__":{"type":"integer"}}}}}');
  await expect(prepare(schema)).rejects.toMatchObject({
    code: 'SCHEMA_INVALID',
    message: expect.stringContaining('`__proto__`'),
  });
});
