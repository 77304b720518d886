import { withDistinctReferences } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const item = (definition: object, reference = '#/$defs/Item') => ({
  type: 'object',
  properties: { item: { $ref: reference } },
  $defs: { Item: definition },
});
const referenceOf = (schema: object | undefined) =>
  (schema as { properties: { item: { $ref: string } } }).properties.item.$ref;

/** Returns the definition to which the reference of `schema` leads. */
function targetOf(schema: object | undefined): unknown {
  let at = schema as Record<string, unknown>;
  for (const name of referenceOf(schema).slice(2).split('/')) {
    at = at[name] as Record<string, unknown>;
  }
  return at;
}

describe('the references of several schemas', () => {
  it('stay unchanged if their definitions are equal or their names differ', () => {
    const schemas = [
      item({ type: 'string' }),
      item({ type: 'string' }),
      { $ref: '#/$defs/Other', $defs: { Other: {} } },
    ];
    for (const [index, schema] of withDistinctReferences(schemas).entries()) {
      expect(schema).toBe(schemas[index]);
    }
  });

  it('get different names if two schemas define one name differently, whatever the order of the schemas', () => {
    const schemas = [item({ type: 'string' }), item({ type: 'boolean' }), { type: 'object' }];
    const before = JSON.stringify(schemas);
    const [text, flag, plain] = withDistinctReferences(schemas);
    expect([targetOf(text), targetOf(flag), plain]).toEqual([
      { type: 'string' },
      { type: 'boolean' },
      { type: 'object' },
    ]);
    expect(referenceOf(text)).toMatch(/^#\/\$defs\/Item_[0-9a-f]{8}$/);
    expect(referenceOf(text)).not.toBe(referenceOf(flag));
    expect(withDistinctReferences([...schemas].reverse())).toEqual([plain, flag, text]);
    expect(JSON.stringify(schemas)).toBe(before);
  });

  it('keep their targets after a renaming, even if they are recursive or differ only in punctuation', () => {
    const tree = item({ type: 'object', properties: { item: { $ref: '#/$defs/Item' } } });
    const [renamed] = withDistinctReferences([tree, item({ type: 'null' })]);
    expect(referenceOf(targetOf(renamed) as object)).toBe(referenceOf(renamed));
    const inside = { type: 'object', properties: { a: { type: 'null' }, item: { $ref: '#/properties/a' } } };
    const other = { type: 'object', properties: { a: { type: 'string' }, item: { $ref: '#/properties/a' } } };
    expect(withDistinctReferences([inside, other]).map(targetOf)).toEqual([{ type: 'null' }, { type: 'string' }]);
    const signs = {
      type: 'object',
      properties: { item: { $ref: '#/$defs/a_b' }, other: { $ref: '#/$defs/a.b' } },
      $defs: { a_b: { type: 'null' }, 'a.b': { type: 'string' } },
    };
    const [renamedSigns] = withDistinctReferences([signs]) as [typeof signs];
    expect(targetOf(renamedSigns)).toEqual({ type: 'null' });
    expect(targetOf({ properties: { item: renamedSigns.properties.other }, $defs: renamedSigns.$defs })).toEqual({
      type: 'string',
    });
  });

  it('stay unchanged inside `enum` values, and if they have no target', () => {
    const data = { type: 'object', properties: { item: { enum: [{ $ref: '#/$defs/Item' }] } }, $defs: { Item: {} } };
    expect(withDistinctReferences([data, item({ type: 'null' })])[0]).toBe(data);
    const broken = item({ $ref: '#/$defs/Nothing' });
    expect(targetOf(withDistinctReferences([broken, item({ type: 'null' })])[0])).toEqual({ $ref: '#/$defs/Nothing' });
  });
});
