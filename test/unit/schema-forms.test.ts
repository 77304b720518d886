import { schemaForms } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const parametersOf = (properties: object, more: object = {}) =>
  [...schemaForms({ name: 'f', description: 'Does it.', parameters: { type: 'object', properties, ...more } })].map(
    ({ parameters }) => parameters as { properties: Record<string, unknown> },
  );

describe('the forms of a schema for chat templates', () => {
  it.each<[string, unknown, unknown]>([
    ['a list of one type', { type: ['string'], minLength: 1 }, { type: 'string', minLength: 1 }],
    [
      'a list of types',
      { type: ['string', 'null'], description: 'd', minLength: 1 },
      { description: 'd', anyOf: [{ type: 'string', minLength: 1 }, { enum: [null] }] },
    ],
    ['an enum of several types', { type: ['string', 'null'], enum: ['a', null] }, { enum: ['a', null] }],
    ['a list of any items', { type: 'array' }, { type: 'array', items: {} }],
    ['a boolean schema', true, {}],
    ['oneOf', { oneOf: [{ type: 'array' }] }, { anyOf: [{ type: 'array', items: {} }] }],
    ['a tuple', { type: 'array', prefixItems: [{ type: 'string' }] }, { type: 'array', items: { type: 'string' } }],
    ['a tuple of draft 7', { type: 'array', items: [{}, true] }, { type: 'array', items: { anyOf: [{}, {}] } }],
  ])('begin with a form that has the same meaning and fewer keywords: %s', (_, schema, expected) => {
    expect(parametersOf({ p: schema })[0]?.properties.p).toEqual(expected);
  });

  it.each<[string, unknown, unknown]>([
    ['a union', { anyOf: [{ type: 'null' }, { type: 'string' }], title: 'T' }, { type: 'string', title: 'T' }],
    ['a reference', { $ref: '#/$defs/d', description: 'x' }, { type: 'integer', description: 'x' }],
    ['a constant', { const: 'a' }, { type: 'string', enum: ['a'] }],
    ['an enum', { enum: [1, null] }, { type: 'number', enum: [1, null] }],
    ['keywords of one type', { maxLength: 3 }, { type: 'string', maxLength: 3 }],
    ['anything', {}, { type: 'any' }],
    [
      'allOf',
      { allOf: [{ properties: { a: { type: 'string' } } }, { type: 'object', properties: { b: { type: 'string' } } }] },
      { type: 'object', properties: { a: { type: 'string' }, b: { type: 'string' } } },
    ],
  ])('continue with a form that has a single type for each value: %s', (_, schema, expected) => {
    expect(parametersOf({ p: schema }, { $defs: { d: { type: 'integer' } } })[1]?.properties.p).toEqual(expected);
  });

  it('stay small even if each reference leads to many others', () => {
    const many = (to: string) => Object.fromEntries(Array.from({ length: 20 }, (_, at) => [`p${at}`, { $ref: to }]));
    const level = (at: number) => ({ type: 'object', properties: many(`#/$defs/${(at + 1) % 9}`) });
    const $defs = Object.fromEntries(Array.from({ length: 9 }, (_, at) => [at, level(at)]));
    const [, typed] = parametersOf({ p: { $ref: '#/$defs/0' }, self: { $ref: '#' } }, { $defs });
    expect(JSON.stringify(typed).length).toBeLessThan(500_000);
    expect(typed?.properties.self).toEqual({ type: 'any' });
  });

  it('end with forms that describe the schemas of lists and objects in text', () => {
    const [, , described, bare] = parametersOf({ n: { type: 'number' }, l: { type: 'array', description: 'All.' } });
    expect(described?.properties).toEqual({
      n: { type: 'number' },
      l: { description: 'All. JSON Schema: {"type":"array","items":{"type":"any"}}' },
    });
    expect(bare?.properties).toEqual({});
  });
});
