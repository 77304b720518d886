// Which strings a `pattern` allows, as an expression without anchors and lookarounds: grammars have none.
import {
  CharSet,
  type Concatenation,
  combineTransformers,
  DFA,
  type Element,
  type Expression,
  JS,
  NFA,
  type NoParent,
  Transformers,
  transform,
} from 'refa';

export type Language = NoParent<Expression>;
type Sequence = NoParent<Concatenation>;
type Part = NoParent<Element>;

/** A length in characters. */
export interface Lengths {
  min: number;
  /** `Infinity`: any. */
  max: number;
}

/** Bounds of what is computed for one pattern: some milliseconds. What passes them is checked after generation alone. */
const MAX_STATES = 2000;
const MAX_CHARACTER = 0x10ffff;
const MAX_NODES = 4000;

/** Whole strings: with no alternatives none. If it is not exact, it also holds strings that are forbidden. */
interface Found {
  language: Language;
  isExact: boolean;
}

/**
 * @param lengths what the strings have beside the patterns
 * @returns what all patterns allow; undefined if that cannot be said
 */
export function languageOfAll(patterns: readonly string[], lengths: Lengths): Found | undefined {
  const each = patterns.map((pattern, index) => languageOf(pattern, index === 0 ? lengths : ANY_LENGTH));
  const [first, ...more] = each.filter((found) => found !== undefined);
  return first && more.reduce(bothLanguages, { ...first, isExact: first.isExact && each.length === more.length + 1 });
}

const ANY_LENGTH: Lengths = { min: 0, max: Number.POSITIVE_INFINITY };

function bothLanguages(left: Found, right: Found): Found {
  try {
    const both = intersection(automatonOf(left.language), automatonOf(right.language));
    return { language: expressionOf(both), isExact: left.isExact && right.isExact };
  } catch {
    return { ...left, isExact: false };
  }
}

function languageOf(pattern: string, lengths: Lengths): Found | undefined {
  const parsed = parse(pattern);
  if (parsed === undefined) {
    return undefined;
  }
  const wide: Sequence[] = [];
  const exact: Sequence[] = [];
  let isExact = true;
  for (const alternative of parsed.alternatives) {
    const anchored = withoutAnchors(alternative);
    const body = anchored && withoutAssertions(anchored.body);
    if (anchored === undefined || body === undefined) {
      return undefined;
    }
    wide.push(...body.alternatives);
    const narrowed: Language | undefined = isExact ? narrow(body, anchored.lookaheads, lengths) : undefined;
    isExact = narrowed !== undefined;
    exact.push(...(narrowed?.alternatives ?? []));
  }
  return { language: expression(isExact ? exact : wide), isExact };
}

/** Escapes that are errors with the flag `u`, as in /\-/, and that validators take without it. */
const NEEDLESS_ESCAPE = /\\(?![\^$\\.*+?()[\]{}|/A-Za-z0-9])([\x20-\x7e])/g;

function parse(pattern: string): Language | undefined {
  const hex = (character: string) => `\\x${character.charCodeAt(0).toString(16)}`;
  const source = pattern.replace(/\\\\|\\(.)/gsu, (escaped) =>
    escaped.replace(NEEDLESS_ESCAPE, (_, each) => hex(each)),
  );
  try {
    return JS.Parser.fromLiteral({ source, flags: 'u' }).parse().expression;
  } catch {
    return undefined; // with backreferences, for one
  }
}

/** The strings that hold a match of the alternative, and the lookaheads that stand right after its `^`. */
function withoutAnchors({ elements }: Sequence): { body: Language; lookaheads: Part[] } | undefined {
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
  const whole = [...(isAtStart ? [] : [anything()]), ...rest, ...(isAtEnd ? [] : [anything()])];
  return { body: expression([sequence(whole)]), lookaheads };
}

/** Whether it is `^` or `$`: no character stands there. */
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

/** Word boundaries and the like, said by the characters beside them. */
function withoutAssertions(language: Language): Language | undefined {
  if (!hasAssertion(language)) {
    return language;
  }
  const applied = transform(withAssertionsApplied, language, { maxPasses: 20 });
  const settled = expression(applied.alternatives.flatMap((each) => settledAt(each, 'behind')));
  const both = expression(settled.alternatives.flatMap((each) => settledAt(each, 'ahead')));
  return hasAssertion(both) ? undefined : both;
}

/** What looks beyond an end of the string sees nothing: it holds if it is negated, and nothing fits otherwise. */
function settledAt({ elements }: Sequence, kind: 'ahead' | 'behind'): Sequence[] {
  const rest = [...elements];
  const outermost = kind === 'behind' ? rest.shift() : rest.pop();
  if (outermost === undefined) {
    return [sequence([])];
  }
  const withEnd = (parts: Part[]) => sequence(kind === 'behind' ? [...parts, ...rest] : [...rest, ...parts]);
  if (outermost.type === 'Assertion' && outermost.kind === kind) {
    return outermost.negate ? settledAt(sequence(rest), kind) : [];
  }
  if (outermost.type === 'Alternation') {
    return outermost.alternatives.flatMap((each) => settledAt(each, kind).map(({ elements: inner }) => withEnd(inner)));
  }
  return [withEnd([outermost])];
}

function hasAssertion(node: NoParent<Expression | Concatenation | Element>): boolean {
  if (node.type === 'Assertion' || node.type === 'Unknown') {
    return true;
  }
  const below = node.type === 'Concatenation' ? node.elements : node.type === 'CharacterClass' ? [] : node.alternatives;
  return below.some(hasAssertion);
}

/** The strings of a language that the lookaheads and the length allow; undefined if that grows too large. */
function narrow(language: Language, lookaheads: readonly Part[], { min, max }: Lengths): Language | undefined {
  if (lookaheads.length === 0 && min === 0 && max === Number.POSITIVE_INFINITY) {
    return language;
  }
  try {
    let automaton = automatonOf(language);
    for (const lookahead of lookaheads) {
      automaton = intersection(automaton, beginsWith(lookahead));
    }
    if (min > 0 || max < Number.POSITIVE_INFINITY) {
      automaton = intersection(automaton, automatonOf(expression([sequence([anything(min, max)])])));
    }
    return expressionOf(automaton);
  } catch {
    return undefined; // it has too many states or nodes, or a lookaround inside of a lookahead
  }
}

/** The strings that a lookahead at their start allows. */
function beginsWith(lookahead: Part): DFA {
  if (lookahead.type !== 'Assertion') {
    throw new Error('Expected a lookahead');
  }
  const automaton = automatonOf(
    expression(
      lookahead.alternatives.map(({ elements }) =>
        isEdge(elements.at(-1), 'ahead') ? sequence(elements.slice(0, -1)) : sequence([...elements, anything()]),
      ),
    ),
  );
  if (lookahead.negate) {
    automaton.complement(new DFA.LimitedNodeFactory(MAX_STATES));
  }
  return automaton;
}

function automatonOf(language: Language): DFA {
  const creation = { maxCharacter: MAX_CHARACTER };
  return minimal(NFA.fromRegex(language, creation, {}, new NFA.LimitedNodeFactory(MAX_STATES)));
}

function expressionOf(automaton: DFA): Language {
  return automaton.isEmpty ? expression([]) : automaton.toRegex({ maxNodes: MAX_NODES });
}

function intersection(left: DFA, right: DFA): DFA {
  return minimal(NFA.fromIntersection(left, right, new NFA.LimitedNodeFactory(MAX_STATES)));
}

function minimal(automaton: NFA): DFA {
  const deterministic = DFA.fromFA(automaton, new DFA.LimitedNodeFactory(MAX_STATES));
  deterministic.minimize();
  return deterministic;
}

function expression(alternatives: Sequence[]): Language {
  return { type: 'Expression', alternatives };
}

function sequence(elements: Part[]): Sequence {
  return { type: 'Concatenation', elements };
}

/** Any characters. */
function anything(min = 0, max = Number.POSITIVE_INFINITY): Part {
  const character: Part = { type: 'CharacterClass', characters: CharSet.all(MAX_CHARACTER) };
  return { type: 'Quantifier', min, max, lazy: false, alternatives: [sequence([character])] };
}
