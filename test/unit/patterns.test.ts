// The rewriting of patterns for a grammar runs on the event loop. A limit on its work keeps the event loop responsive.
import { schemaForGrammar } from 'llama-headstart/internal';
import { DFA, NFA } from 'refa';
import { afterEach, describe, expect, it, vi } from 'vitest';

type JsonObject = Parameters<typeof schemaForGrammar>[0];

const DETAIL = { patterns: true, depth: 32, entries: 400, items: 256 };
const rewritten = (schema: JsonObject) => schemaForGrammar({ type: 'string', ...schema }, DETAIL);
const repeated = (count: number, text: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => text(index));

/** Without the limit, rewriting took from 0.3 to 14 seconds for each of these schemas. */
const COSTLY: Record<string, JsonObject> = {
  'lookaheads with classes of Unicode': {
    pattern: '^(?=.*\\p{Ll})(?=.*\\p{Lu})(?=.*\\p{Nd})(?=.*\\p{P}).{8,64}$',
  },
  'a length of classes of Unicode': { pattern: '^\\p{L}+(\\P{L}\\p{L}+)*$', minLength: 5, maxLength: 400 },
  'an automaton of exponential size': { pattern: '^(a|b)*a(a|b){14}$', minLength: 1, maxLength: 1000 },
  'repetitions in repetitions': { pattern: `^${'('.repeat(240)}a${'|b)*'.repeat(240)}$`, minLength: 1, maxLength: 100 },
  'optional parts in a row': { pattern: `^(${'[ab]*c?'.repeat(400)})*$`, minLength: 1, maxLength: 1000 },
  'a thousand classes': {
    pattern: `^(${repeated(1000, (index) => `[\\p{L}${String.fromCharCode(0x2000 + index)}]`).join('')})*$`,
    maxLength: 9,
  },
  'forty patterns at once': { allOf: repeated(40, (index) => `${index}x`).map((pattern) => ({ pattern })) },
  'word boundaries in a row': { pattern: `^${'\\b\\w+\\b.*'.repeat(500)}$` },
  'megabytes of pattern': { pattern: `^(${repeated(200_000, (index) => `w${index}`).join('|')})$` },
};

afterEach(() => vi.restoreAllMocks());

describe('a costly pattern', () => {
  it.each(Object.entries(COSTLY))('is given up after a fixed amount of work: %s', async (_, schema) => {
    const states = [NFA.nodeFactory, DFA.nodeFactory].map((factory) => vi.spyOn(factory, 'createNode'));
    await rewritten({ ...schema });
    expect(states.reduce((sum, { mock }) => sum + mock.calls.length, 0)).toBeLessThan(10_000);
  });

  it('uses its budget only once if several properties have the same pattern', async () => {
    const one = { type: 'string', pattern: '^(a|b)*a(a|b){14}$', maxLength: 100 };
    const states = vi.spyOn(NFA.nodeFactory, 'createNode');
    await schemaForGrammar({ properties: { a: one } }, DETAIL);
    const ofOne = states.mock.calls.length;
    await schemaForGrammar({ properties: { a: one, b: one, c: one } }, DETAIL);
    expect([ofOne > 0, states.mock.calls.length]).toEqual([true, 2 * ofOne]);
  });

  it('does not remove the patterns of other properties from the grammar', async () => {
    const costly = Object.values(COSTLY).map(
      (schema, index) => [`costly${index}`, { type: 'string', ...schema }] as const,
    );
    const code = { type: 'string', pattern: '^[a-c]+$', minLength: 3, maxLength: 5 };
    const properties = { ...Object.fromEntries(costly), code };
    expect(await schemaForGrammar({ type: 'object', properties }, DETAIL)).toMatchObject({
      properties: { code: { type: 'string', pattern: '^[a-c]{3,5}$' } },
    });
  });
});

describe('an ordinary pattern', () => {
  it.each<[string, JsonObject, good: string[], bad: string[]]>([
    [
      'a name with a length',
      { pattern: '^[a-z0-9]+(-[a-z0-9]+)*$', maxLength: 5 },
      ['a-b', 'abcde'],
      ['a-', 'a-b-c-d'],
    ],
    [
      'letters of any script with a length',
      { pattern: '^\\p{Lu}+$', minLength: 2, maxLength: 3 },
      ['ÄЖ', 'ABC'],
      ['A', 'Ab'],
    ],
    ['lookaheads', { pattern: '^(?=.*[a-z])(?=.*[0-9])[a-z0-9]{2,3}$' }, ['a1', '1ba'], ['ab', '12', 'ab12']],
    ['two patterns', { pattern: '^a.*$', allOf: [{ pattern: 'b$' }] }, ['ab', 'axb'], ['a', 'b', 'ba']],
  ])('is enforced completely by the grammar: %s', async (_, schema, good, bad) => {
    const { pattern } = (await rewritten(schema)) as { pattern: string };
    const expression = new RegExp(pattern.replace(/\\U00([0-9a-f]{6})/g, '\\u{$1}'), 'u'); // JavaScript's notation
    expect([good, bad].map((texts) => texts.filter((text) => expression.test(text)))).toEqual([good, []]);
  });
});
