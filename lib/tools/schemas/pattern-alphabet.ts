// Automata are slow if character classes have hundreds of ranges, such as `\p{L}`. All characters that belong to the
// same classes behave alike. Therefore each group of such characters becomes one character of a small alphabet.
import { CharBase, CharSet, type Concatenation, type Element, type Expression, type NoParent } from 'refa';
import type { PatternBudget } from './pattern-budget.js';

export type Language = NoParent<Expression>;
export type Sequence = NoParent<Concatenation>;
export type Part = NoParent<Element>;

const MAX_CHARACTER = 0x10ffff;
/** Number of comparisons (of a range with a class) that cost one step of the budget. */
const COMPARISONS_PER_STEP = 100;

export class PatternAlphabet {
  /** The largest character of the small alphabet. */
  readonly maxCharacter: number;
  readonly #base: CharBase;

  /**
   * @param languages parsed patterns
   * @throws OverBudget
   */
  constructor(languages: readonly Language[], budget: PatternBudget) {
    const classes = new Set([CharSet.all(MAX_CHARACTER)]);
    for (const language of languages) {
      visitParts(language, (part) => part.type === 'CharacterClass' && classes.add(part.characters));
    }
    const ranges = [...classes].reduce((sum, each) => sum + each.ranges.length, 0);
    budget.spend((ranges * classes.size) / COMPARISONS_PER_STEP);
    this.#base = new CharBase(classes);
    this.maxCharacter = this.#base.sets.length - 1;
  }

  /** Converts a language to the small alphabet. */
  compress(language: Language): Language {
    return mapClasses(language, (characters) =>
      CharSet.fromCharacters(this.maxCharacter, this.#base.split(characters)),
    );
  }

  /** Converts a language back to real characters. */
  expand(language: Language): Language {
    return mapClasses(language, (characters) => {
      const groups = this.#base.sets.filter((_, index) => characters.has(index));
      return CharSet.empty(MAX_CHARACTER).union(groups.flatMap(({ ranges }) => ranges));
    });
  }
}

/** Visits all parts of a language. @param visit receives each part and the number of repetitions around this part */
export function visitParts(language: Language, visit: (part: Part, repetitions: number) => void): void {
  const visitAll = (alternatives: readonly Sequence[], repetitions: number) => {
    for (const part of alternatives.flatMap(({ elements }) => elements)) {
      visit(part, repetitions);
      if ('alternatives' in part) {
        visitAll(part.alternatives, repetitions + (part.type === 'Quantifier' ? 1 : 0));
      }
    }
  };
  visitAll(language.alternatives, 0);
}

function mapClasses(language: Language, map: (characters: CharSet) => CharSet): Language {
  const mapPart = (part: Part): Part => {
    switch (part.type) {
      case 'CharacterClass':
        return { type: 'CharacterClass', characters: map(part.characters) };
      case 'Unknown':
        return part;
      default:
        return { ...part, alternatives: part.alternatives.map(mapSequence) };
    }
  };
  const mapSequence = ({ elements }: Sequence): Sequence => ({
    type: 'Concatenation',
    elements: elements.map(mapPart),
  });
  return { type: 'Expression', alternatives: language.alternatives.map(mapSequence) };
}
