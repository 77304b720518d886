// A `pattern` in words that llama.cpp's converter to grammars has. It writes what stands between the quotes of a JSON string:
// what JSON escapes is escaped here.
import { CharSet, type Concatenation, type Element, type NoParent } from 'refa';
import { type Language, type Lengths, languageOfAll } from './pattern-language.js';

/** Longer ones make grammars that cost more than they are worth. */
const MAX_LENGTH = 16_384;
/** llama.cpp takes more repetitions for any number. */
const MAX_REPETITIONS = 2000;

const MAX_CHARACTER = 0x10ffff;
/** What stands in a JSON string as it is. Halves of surrogate pairs are no characters of UTF-8. */
const PLAIN = CharSet.empty(MAX_CHARACTER).union([
  { min: 0x20, max: 0x21 },
  { min: 0x23, max: 0x5b },
  { min: 0x5d, max: 0xd7ff },
  { min: 0xe000, max: MAX_CHARACTER },
]);
/** The letter that JSON writes after a backslash, by character. Other control characters are left out. */
const ESCAPES = new Map([
  [0x22, '"'],
  [0x5c, '\\'],
  [0x08, 'b'],
  [0x09, 't'],
  [0x0a, 'n'],
  [0x0c, 'f'],
  [0x0d, 'r'],
]);

/**
 * @param patterns at least one
 * @param lengths what the strings have beside them
 * @returns a pattern for the converter that allows nothing else, or nearly (what it cannot say is left out); '' if no string
 *   fits; undefined if it cannot be said at all
 */
export function patternForGrammar(patterns: readonly string[], lengths: Lengths): string | undefined {
  const { language, isExact } = languageOfAll(patterns, lengths) ?? {};
  if (language === undefined || isExact === undefined) {
    return undefined;
  }
  if (language.alternatives.length === 0) {
    return isExact ? '' : undefined;
  }
  try {
    const text = `^${alternatives(language)}$`;
    return text.length <= MAX_LENGTH ? text : undefined;
  } catch (error) {
    if (error instanceof Unsayable) {
      return undefined;
    }
    throw error;
  }
}

class Unsayable extends Error {}

function alternatives({ alternatives: each }: Pick<Language, 'alternatives'>): string {
  const texts = [...new Set(each.map(concatenation))];
  const filled = texts.filter((text) => text !== '');
  if (filled.length === 0) {
    return '';
  }
  const all = filled.length === 1 ? (filled[0] as string) : `(?:${filled.join('|')})`;
  return filled.length === texts.length ? all : `(?:${all})?`;
}

function concatenation({ elements }: NoParent<Concatenation>): string {
  return elements.map(element).join('');
}

function element(node: NoParent<Element>): string {
  switch (node.type) {
    case 'CharacterClass':
      return characters(node.characters);
    case 'Alternation':
      return alternatives(node);
    case 'Quantifier':
      return repeated(node);
    default:
      throw new Unsayable();
  }
}

function repeated({ min, max, alternatives: each }: NoParent<Extract<Element, { type: 'Quantifier' }>>): string {
  const inner = alternatives({ alternatives: each });
  if (max === 0 || inner === '') {
    return '';
  }
  if (min > MAX_REPETITIONS) {
    throw new Unsayable();
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
    throw new Unsayable();
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

/** Letters and digits as they are, all others by number: grammars and patterns have signs of their own. */
function coded(character: number): string {
  const hex = character.toString(16);
  if (character < 0x80) {
    const text = String.fromCharCode(character);
    return /[A-Za-z0-9]/.test(text) ? text : `\\x${hex.padStart(2, '0')}`;
  }
  return character < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`;
}
