// Computes with the languages of patterns as automata, within a budget.
import { CharSet, DFA, NFA } from 'refa';
import { type Language, type Part, type Sequence, visitParts } from './pattern-alphabet.js';
import type { PatternBudget } from './pattern-budget.js';

/** A regular expression with more parts makes no useful grammar. */
const MAX_PARTS = 2000;
/** So many transitions between states are made in one step of the budget. */
const TRANSITIONS_PER_STEP = 2;
/** The cost of a state when an automaton becomes a regular expression, in steps. */
const STEPS_TO_REMOVE_STATE = 10;

export class PatternAutomata {
  readonly #maxCharacter: number;
  readonly #budget: PatternBudget;

  /** @param maxCharacter the largest character of the alphabet */
  constructor(maxCharacter: number, budget: PatternBudget) {
    this.#maxCharacter = maxCharacter;
    this.#budget = budget;
  }

  /** @throws OverBudget, and an Error for a language with lookarounds. */
  of(language: Language): DFA {
    this.#budget.spend(transitionsOf(language) / TRANSITIONS_PER_STEP);
    const creation = { maxCharacter: this.#maxCharacter };
    return this.#minimal(NFA.fromRegex(language, creation, {}, this.#counted(NFA.nodeFactory)));
  }

  /** @throws OverBudget */
  intersection(left: DFA, right: DFA): DFA {
    return this.#minimal(NFA.fromIntersection(left, right, this.#counted(NFA.nodeFactory)));
  }

  /** @throws OverBudget */
  complement(automaton: DFA): DFA {
    const result = automaton.copy();
    result.complement(this.#counted(DFA.nodeFactory));
    return result;
  }

  /** @throws OverBudget, and an Error for an expression of too many parts. */
  expression(automaton: DFA): Language {
    if (automaton.isEmpty) {
      return { type: 'Expression', alternatives: [] };
    }
    const states = [...automaton.nodes()].length;
    this.#budget.spend(states * STEPS_TO_REMOVE_STATE);
    return automaton.toRegex({ maxNodes: MAX_PARTS });
  }

  #minimal(automaton: NFA): DFA {
    const deterministic = DFA.fromFA(automaton, this.#counted(DFA.nodeFactory));
    deterministic.minimize();
    return deterministic;
  }

  /** Each state may have a transition for each character of the alphabet. */
  #counted<Node>(factory: { createNode: () => Node }): { createNode: () => Node } {
    const steps = (2 + this.#maxCharacter) / TRANSITIONS_PER_STEP;
    return {
      createNode: () => {
        this.#budget.spend(steps);
        return factory.createNode();
      },
    };
  }
}

/**
 * An estimate of the transitions that refa makes for an expression: optional parts in a row may follow each other in any
 * combination, and refa links the ends of repetitions in repetitions again for each level.
 */
function transitionsOf(language: Language): number {
  let parts = 0;
  let links = 0;
  visitParts(language, (_, repetitions) => {
    parts++;
    links += repetitions ** 2;
  });
  return parts ** 2 / 64 + links / 4;
}

/** Strings of any characters, `min` to `max` of them. */
export function anything(maxCharacter: number, min = 0, max = Number.POSITIVE_INFINITY): Part {
  const alternatives: Sequence[] = [
    { type: 'Concatenation', elements: [{ type: 'CharacterClass', characters: CharSet.all(maxCharacter) }] },
  ];
  return { type: 'Quantifier', min, max, lazy: false, alternatives };
}
