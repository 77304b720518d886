// Replies under the grammar of a schema fit the schema.
import fc from 'fast-check';
import type { Schema } from 'llama-headstart';
import { prepareSchema } from 'llama-headstart/internal';
import { jsonSchemaToGrammar } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { Bench } from '../helpers/sampling.js';
import { rounds } from '../helpers/soak.js';

let bench: Bench;

beforeAll(async () => {
  bench = await Bench.open(microModel('dense'));
});
afterAll(() => bench.close());

/** Samples a reply under the grammar of a schema. Returns undefined if the reply has no end after `count` tokens. */
async function draw(schema: object, seed: number, count: number): Promise<string | undefined> {
  const grammar = await jsonSchemaToGrammar(schema);
  const { eos } = bench.model.info.vocabulary;
  const [quote = 0] = await bench.model.tokenize('"');
  // Without this bias, the model would seldom end a text.
  const logitBias = { [quote]: 3, [eos as number]: 100 };
  const sampler = await bench.sampler({ grammar, temperature: 2, seed, logitBias });
  const tokens = await bench.write(sampler, count);
  const text = await bench.textOf(tokens.slice(0, -1));
  const isWhole = bench.model.isEndOfGeneration(tokens.at(-1) as number);
  return isWhole && !text.includes('\ufffd') ? text : undefined; // llama.cpp's grammars allow bytes that are not UTF-8
}

/**
 * Samples a reply for each seed, and requires that each complete reply fits the schema. Returns the number of complete
 * replies.
 */
async function requireValid(schema: Schema, seeds: readonly number[], count = 160): Promise<number> {
  const { grammarSchema, parse } = await prepareSchema(schema, 'it');
  let whole = 0;
  for (const seed of seeds) {
    const text = await draw(grammarSchema, seed, count);
    if (text !== undefined) {
      await parse(JSON.parse(text)).catch((error: Error) => expect.fail(`${text}: ${error.message}`));
      whole++;
    }
  }
  return whole;
}

const word = fc.constantFrom('a', 'b', 'name', 'x-y', 'ä', '0');
const bound = fc.integer({ min: -1200, max: 1200 });
const size = fc.integer({ min: 0, max: 4 });
const patterns = fc.constantFrom(
  ...['^[a-c]+$', '^\\d{2}\\/\\d$', '^(?<year>\\d{4})-\\w$', '^\\S+$', '^[^"\\s]{2}$', '^\\p{Lu}\\p{Ll}*$', '\\bok\\b'],
  ...['^a|b$', '^(?!no)[a-z]+$', '^(?=.*\\d)[a-z\\d]{3,}$', '^\\w+\\b$', '^["\\\\]+$', '^$|^x$', '^[\\s\\S]{3}$'],
);

const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const texts = fc.record({
  type: fc.constant('string'),
  pattern: optional(patterns),
  minLength: optional(size),
  maxLength: optional(fc.integer({ min: 2, max: 6 })),
});
const integers = fc.record({
  type: fc.constant('integer'),
  minimum: optional(bound),
  maximum: optional(bound),
  exclusiveMinimum: optional(bound),
});
const multiples = fc.record({
  type: fc.constantFrom('integer', 'number'),
  minimum: fc.integer({ min: -9, max: 9 }),
  maximum: fc.integer({ min: 0, max: 20 }),
  multipleOf: fc.constantFrom(1, 5, 0.5, 0.1),
});
const values = fc.record({
  type: optional(fc.constantFrom('string', 'integer')),
  enum: fc.constant([1, 2.5, 'a', 'bcd', null]),
});

const { schemas } = fc.letrec<{ schemas: object }>((tie) => ({
  schemas: fc.oneof(
    { maxDepth: 3, depthIdentifier: 'schema' },
    texts,
    integers,
    multiples,
    values,
    fc.record({ type: fc.constantFrom('boolean', 'null', ['boolean', 'null']) }),
    fc.record({
      type: fc.constant('array'),
      items: tie('schemas'),
      minItems: optional(size),
      maxItems: optional(size),
    }),
    fc.record({ prefixItems: fc.array(tie('schemas'), { minLength: 1, maxLength: 2 }), items: fc.constant(false) }),
    fc.record({
      type: fc.constant('object'),
      properties: fc.dictionary(word, tie('schemas'), { maxKeys: 3 }),
      required: fc.uniqueArray(word, { maxLength: 2 }),
      additionalProperties: optional(fc.oneof(fc.boolean(), tie('schemas'))),
      anyOf: optional(fc.array(fc.record({ required: fc.tuple(word) }), { minLength: 1, maxLength: 2 })),
    }),
    fc.record({ anyOf: fc.array(tie('schemas'), { minLength: 1, maxLength: 2 }) }),
    fc.record({
      allOf: fc.array(tie('schemas'), { minLength: 1, maxLength: 2 }),
      type: optional(fc.constant('object')),
    }),
  ),
}));

describe('a reply under a grammar', () => {
  it('fits the schema, for random schemas of every kind that grammars can enforce', async () => {
    let whole = 0;
    const property = fc.asyncProperty(schemas, fc.integer({ min: 1, max: 1000 }), async (candidate, seed) => {
      const schema = JSON.parse(JSON.stringify(candidate)) as object; // without undefined values
      try {
        whole += await requireValid(schema, [seed, seed + 1]);
      } catch (error) {
        expect(error).toMatchObject({ code: 'SCHEMA_INVALID', message: expect.stringMatching(/some value fits/) });
      }
    });
    await fc.assert(property, { numRuns: rounds(25, 100), seed: 14 });
    expect(whole).toBeGreaterThan(rounds(12, 50));
  });
});
