// Rewrites a `pattern` for llama.cpp's converter to grammars. The rewritten pattern describes the text between the
// quotes of a JSON string. Therefore it matches the escaped form of each character that JSON escapes.
import { CharSet } from 'refa';
import { MAX_REPETITIONS } from './grammar-values.js';
import type { Part, Sequence } from './pattern-alphabet.js';
import { OverBudget, PatternBudget } from './pattern-budget.js';
import { type Lengths, stringsOfAll } from './pattern-language.js';

/** Maximum length of a rewritten pattern, in characters. The grammar of a longer pattern would take too much time. */
const MAX_LENGTH = 16_384;
/** The budget for all patterns of one schema, in steps. */
const MAX_STEPS = 6000;

const MAX_CHARACTER = 0x10ffff;
/** The characters that a JSON string may contain unescaped. Halves of surrogate pairs have no UTF-8 encoding. */
const PLAIN = CharSet.empty(MAX_CHARACTER).union([
  { min: 0x20, max: 0x21 },
  { min: 0x23, max: 0x5b },
  { min: 0x5d, max: 0xd7ff },
  { min: 0xe000, max: MAX_CHARACTER },
]);
/**
 * For each character with a short JSON escape, the letter after the backslash. Patterns allow no other control
 * characters.
 */
const ESCAPES = new Map([
  [0x22, '"'],
  [0x5c, '\\'],
  [0x08, 'b'],
  [0x09, 't'],
  [0x0a, 'n'],
  [0x0c, 'f'],
  [0x0d, 'r'],
]);

/** Rewrites the patterns of one schema. */
export class PatternGrammar {
  readonly #budget = new PatternBudget(MAX_STEPS);
  readonly #rewritten = new Map<string, string | undefined>();

  /**
   * Combines patterns and lengths in one pattern for the converter.
   *
   * @param patterns at least one pattern
   * @param lengths the range of lengths that the strings must also have
   * @returns a pattern that allows the same strings, or some more strings. '' if no string fits. Undefined if the
   *   pattern would allow nearly every string, or if rewriting would take too much work.
   */
  rewrite(patterns: readonly string[], lengths: Lengths): string | undefined {
    const key = JSON.stringify([patterns, lengths.min, lengths.max]);
    if (!this.#rewritten.has(key)) {
      this.#rewritten.set(key, this.#compute(patterns, lengths));
    }
    return this.#rewritten.get(key);
  }

  #compute(patterns: readonly string[], lengths: Lengths): string | undefined {
    try {
      const strings = stringsOfAll(patterns, lengths, this.#budget);
      if (strings === undefined) {
        return undefined;
      }
      if (strings.language.alternatives.length === 0) {
        return strings.isExact ? '' : undefined;
      }
      const text = `^${alternatives(strings.language)}$`;
      return text.length <= MAX_LENGTH ? text : undefined;
    } catch (error) {
      if (error instanceof Inexpressible || error instanceof OverBudget) {
        return undefined;
      }
      throw error;
    }
  }
}

/** Thrown if the converter's patterns cannot express a part of the pattern. */
class Inexpressible extends Error {}

function alternatives({ alternatives: each }: { alternatives: readonly Sequence[] }): string {
  const texts = [...new Set(each.map(concatenation))];
  const filled = texts.filter((text) => text !== '');
  if (filled.length === 0) {
    return '';
  }
  const all = filled.length === 1 ? (filled[0] as string) : `(?:${filled.join('|')})`;
  return filled.length === texts.length ? all : `(?:${all})?`;
}

function concatenation({ elements }: Sequence): string {
  return elements.map(element).join('');
}

function element(node: Part): string {
  switch (node.type) {
    case 'CharacterClass':
      return characters(node.characters);
    case 'Alternation':
      return alternatives(node);
    case 'Quantifier':
      return repeated(node);
    default:
      throw new Inexpressible();
  }
}

function repeated({ min, max, alternatives: each }: Extract<Part, { type: 'Quantifier' }>): string {
  const inner = alternatives({ alternatives: each });
  if (max === 0 || inner === '') {
    return '';
  }
  if (min > MAX_REPETITIONS) {
    throw new Inexpressible();
  }
  const isOpen = max > MAX_REPETITIONS;
  const times = min === 0 && isOpen ? '*' : min === 1 && isOpen ? '+' : `{${min},${isOpen ? '' : max}}`;
  const isOne = /^\[[^\]]*\]$/.test(inner);
  return times === '{1,1}' ? inner : `${isOne ? inner : `(?:${inner})`}${times}`;
}

function characters(set: CharSet): string {
  const plain = set.intersect(PLAIN);
  const escaped = [...ESCAPES].filter(([character]) => set.has(character)).map(([, letter]) => letter);
  const texts = [
    ...(plain.isEmpty ? [] : [bracketed(plain.ranges)]),
    ...(escaped.length === 0 ? [] : [`[\\x5c]${bracketed(escaped.map(characterRange))}`]),
  ];
  if (texts.length === 0) {
    throw new Inexpressible();
  }
  return texts.length === 1 ? (texts[0] as string) : `(?:${texts.join('|')})`;
}

function characterRange(text: string): { min: number; max: number } {
  const character = text.charCodeAt(0);
  return { min: character, max: character };
}

function bracketed(ranges: readonly { min: number; max: number }[]): string {
  const texts = ranges.map(({ min, max }) => (min === max ? coded(min) : `${coded(min)}-${coded(max)}`));
  return `[${texts.join('')}]`;
}

/**
 * Writes letters and digits unchanged. Writes all other characters as codes, because they may have a special meaning in
 * grammars or patterns.
 */
function coded(character: number): string {
  const hex = character.toString(16);
  if (character < 0x80) {
    const text = String.fromCharCode(character);
    return /[A-Za-z0-9]/.test(text) ? text : `\\x${hex.padStart(2, '0')}`;
  }
  return character < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`;
}
