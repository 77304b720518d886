// Describes the strings that a `pattern` allows by an expression without anchors and lookarounds. Grammars have no
// anchors and no lookarounds.
import { combineTransformers, type DFA, JS, Transformers, transform } from 'refa';
import { type Language, type Part, PatternAlphabet, type Sequence, visitParts } from './pattern-alphabet.js';
import { anything, PatternAutomata } from './pattern-automata.js';
import type { PatternBudget } from './pattern-budget.js';

/** A range of lengths, in characters. */
export interface Lengths {
  min: number;
  /** `Infinity` if there is no limit. */
  max: number;
}

const ANY_LENGTH: Lengths = { min: 0, max: Number.POSITIVE_INFINITY };

/**
 * A set of whole strings. Without alternatives, the set is empty. A set that is not exact also contains some strings
 * that the pattern forbids.
 */
export interface Strings {
  language: Language;
  isExact: boolean;
}

/**
 * @param lengths the range of lengths that the strings must also have
 * @returns the strings that all patterns allow. Undefined if no expression without lookarounds can describe these
 *   strings, or if it would take too much work to find one.
 */
export function stringsOfAll(
  patterns: readonly string[],
  lengths: Lengths,
  budget: PatternBudget,
): Strings | undefined {
  const parsed = patterns.map((pattern) => parse(pattern, budget));
  const readable = parsed.filter((each) => each !== undefined);
  const alphabet = new PatternAlphabet(readable, budget);
  return budget.withHalf((half) => {
    const patternStrings = new PatternStrings(alphabet.maxCharacter, half);
    const each = readable.map((language, index) =>
      patternStrings.of(alphabet.compress(language), index === 0 ? lengths : ANY_LENGTH),
    );
    const [first, ...more] = each.filter((strings) => strings !== undefined);
    if (first === undefined) {
      return undefined;
    }
    const isComplete = more.length + 1 === patterns.length;
    const all = more.reduce((left, right) => patternStrings.both(left, right), first);
    return { language: alphabet.expand(all.language), isExact: all.isExact && isComplete };
  });
}

/** Matches escapes that are errors with the flag `u`, as in /\-/. Validators accept them without this flag. */
const NEEDLESS_ESCAPE = /\\(?![\^$\\.*+?()[\]{}|/A-Za-z0-9])([\x20-\x7e])/g;

/** @throws OverBudget */
function parse(pattern: string, budget: PatternBudget): Language | undefined {
  budget.spend(pattern.length);
  const hex = (character: string) => `\\x${character.charCodeAt(0).toString(16)}`;
  const source = pattern.replace(/\\\\|\\(.)/gsu, (escaped) =>
    escaped.replace(NEEDLESS_ESCAPE, (_, each) => hex(each)),
  );
  try {
    return JS.Parser.fromLiteral({ source, flags: 'u' }).parse().expression;
  } catch {
    return undefined; // for example because of a backreference
  }
}

/** The strings of parsed patterns, in one small alphabet. */
class PatternStrings {
  readonly #maxCharacter: number;
  readonly #budget: PatternBudget;
  readonly #automata: PatternAutomata;

  constructor(maxCharacter: number, budget: PatternBudget) {
    this.#maxCharacter = maxCharacter;
    this.#budget = budget;
    this.#automata = new PatternAutomata(maxCharacter, budget);
  }

  /** Returns the strings that contain a match of the pattern and have an allowed length. */
  of(pattern: Language, lengths: Lengths): Strings | undefined {
    const wide: Sequence[] = [];
    const exact: Sequence[] = [];
    let isExact = true;
    for (const alternative of pattern.alternatives) {
      const { body, lookaheads } = this.#withoutAnchors(alternative);
      const plain = this.#withoutAssertions(body);
      if (plain === undefined) {
        return undefined;
      }
      wide.push(...plain.alternatives);
      const narrowed: Language | undefined = isExact ? this.#narrow(plain, lookaheads, lengths) : undefined;
      isExact = narrowed !== undefined;
      exact.push(...(narrowed?.alternatives ?? []));
    }
    return { language: expression(isExact ? exact : wide), isExact };
  }

  both(left: Strings, right: Strings): Strings {
    try {
      const both = this.#automata.intersection(this.#automata.of(left.language), this.#automata.of(right.language));
      return { language: this.#automata.expression(both), isExact: left.isExact && right.isExact };
    } catch {
      return { ...left, isExact: false }; // too much work
    }
  }

  /** Returns the strings that contain a match of the alternative, and the lookaheads right after its `^`. */
  #withoutAnchors({ elements }: Sequence): { body: Language; lookaheads: Part[] } {
    const rest = [...elements];
    const isAtStart = isEdge(rest[0], 'behind');
    while (isEdge(rest[0], 'behind')) {
      rest.shift();
    }
    const isAtEnd = isEdge(rest.at(-1), 'ahead');
    while (isEdge(rest.at(-1), 'ahead')) {
      rest.pop();
    }
    const lookaheads: Part[] = [];
    while (isAtStart && rest[0]?.type === 'Assertion' && rest[0].kind === 'ahead') {
      lookaheads.push(rest.shift() as Part);
    }
    const any = anything(this.#maxCharacter);
    return {
      body: expression([sequence([...(isAtStart ? [] : [any]), ...rest, ...(isAtEnd ? [] : [any])])]),
      lookaheads,
    };
  }

  /**
   * Replaces word boundaries and other assertions by restrictions of the characters beside them. Returns undefined if
   * that is impossible.
   */
  #withoutAssertions(language: Language): Language | undefined {
    if (!hasAssertion(language)) {
      return language;
    }
    const onPassStart = (ast: Language) => this.#budget.spend(sizeOf(ast) * STEPS_PER_PASS);
    try {
      const applied = transform(withAssertionsApplied, language, { maxPasses: 20, events: { onPassStart } });
      const resolvedAtStart = expression(applied.alternatives.flatMap((each) => resolvedAt(each, 'behind')));
      const resolvedAtBothEnds = expression(resolvedAtStart.alternatives.flatMap((each) => resolvedAt(each, 'ahead')));
      return hasAssertion(resolvedAtBothEnds) ? undefined : resolvedAtBothEnds;
    } catch {
      return undefined; // too much work
    }
  }

  /** Returns the strings of a language that the lookaheads and lengths allow. Undefined if that is too much work. */
  #narrow(language: Language, lookaheads: readonly Part[], { min, max }: Lengths): Language | undefined {
    if (lookaheads.length === 0 && min === 0 && max === Number.POSITIVE_INFINITY) {
      return language;
    }
    const automata = this.#automata;
    try {
      let automaton = automata.of(language);
      for (const lookahead of lookaheads) {
        automaton = automata.intersection(automaton, this.#beginningWith(lookahead));
      }
      if (min > 0 || max < Number.POSITIVE_INFINITY) {
        const anyOfLength = expression([sequence([anything(this.#maxCharacter, min, max)])]);
        automaton = automata.intersection(automaton, automata.of(anyOfLength));
      }
      return automata.expression(automaton);
    } catch {
      return undefined; // too much work, or a lookaround inside a lookahead
    }
  }

  /** Returns the strings that a lookahead at their start allows. */
  #beginningWith(lookahead: Part): DFA {
    if (lookahead.type !== 'Assertion') {
      throw new Error('Expected a lookahead');
    }
    const automaton = this.#automata.of(
      expression(
        lookahead.alternatives.map(({ elements }) =>
          isEdge(elements.at(-1), 'ahead')
            ? sequence(elements.slice(0, -1))
            : sequence([...elements, anything(this.#maxCharacter)]),
        ),
      ),
    );
    return lookahead.negate ? this.#automata.complement(automaton) : automaton;
  }
}

/** Whether a part is `^` (no character is in front of the position) or `$` (no character follows the position). */
function isEdge(part: Part | undefined, kind: 'ahead' | 'behind'): boolean {
  if (part?.type !== 'Assertion' || !part.negate || part.kind !== kind || part.alternatives.length !== 1) {
    return false;
  }
  const [only, ...more] = part.alternatives[0]?.elements ?? [];
  return only?.type === 'CharacterClass' && only.characters.isAll && more.length === 0;
}

const withAssertionsApplied = combineTransformers([
  Transformers.inline(),
  Transformers.removeDeadBranches(),
  Transformers.applyAssertions(),
  Transformers.unionCharacters(),
]);
/** The cost in steps of one part of an expression in one pass of these transformers. */
const STEPS_PER_PASS = 2;

/**
 * Resolves the assertions at one end of a string. Beyond that end there is no character. So a negated assertion is
 * always true there, and any other assertion is always false.
 */
function resolvedAt({ elements }: Sequence, kind: 'ahead' | 'behind'): Sequence[] {
  const rest = [...elements];
  const outermost = kind === 'behind' ? rest.shift() : rest.pop();
  if (outermost === undefined) {
    return [sequence([])];
  }
  const withEnd = (parts: Part[]) => sequence(kind === 'behind' ? [...parts, ...rest] : [...rest, ...parts]);
  if (outermost.type === 'Assertion' && outermost.kind === kind) {
    return outermost.negate ? resolvedAt(sequence(rest), kind) : [];
  }
  if (outermost.type === 'Alternation') {
    return outermost.alternatives.flatMap((each) =>
      resolvedAt(each, kind).map(({ elements: inner }) => withEnd(inner)),
    );
  }
  return [withEnd([outermost])];
}

function hasAssertion(language: Language): boolean {
  let hasOne = false;
  visitParts(language, ({ type }) => {
    hasOne ||= type === 'Assertion' || type === 'Unknown';
  });
  return hasOne;
}

/** The number of parts of an expression, counted at all levels. */
function sizeOf(language: Language): number {
  let size = 0;
  visitParts(language, () => size++);
  return size;
}

function expression(alternatives: Sequence[]): Language {
  return { type: 'Expression', alternatives };
}

function sequence(elements: Part[]): Sequence {
  return { type: 'Concatenation', elements };
}
