// Combines the languages of patterns as automata, within a budget.
import { CharSet, DFA, NFA } from 'refa';
import { type Language, type Part, type Sequence, visitParts } from './pattern-alphabet.js';
import type { PatternBudget } from './pattern-budget.js';

/** The most parts of a regular expression. An expression with more parts makes no useful grammar. */
const MAX_PARTS = 2000;
/** The number of transitions between states that cost one step of the budget. */
const TRANSITIONS_PER_STEP = 2;
/** The cost in steps of each state when an automaton is converted to a regular expression. */
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
    return this.#minimal(NFA.fromRegex(language, creation, {}, this.#chargedFactory(NFA.nodeFactory)));
  }

  /** @throws OverBudget */
  intersection(left: DFA, right: DFA): DFA {
    return this.#minimal(NFA.fromIntersection(left, right, this.#chargedFactory(NFA.nodeFactory)));
  }

  /** @throws OverBudget */
  complement(automaton: DFA): DFA {
    const result = automaton.copy();
    result.complement(this.#chargedFactory(DFA.nodeFactory));
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
    const deterministic = DFA.fromFA(automaton, this.#chargedFactory(DFA.nodeFactory));
    deterministic.minimize();
    return deterministic;
  }

  /** Charges the budget for each new state, which may have a transition for each character of the alphabet. */
  #chargedFactory<Node>(factory: { createNode: () => Node }): { createNode: () => Node } {
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
 * Estimates the transitions that refa makes for an expression. Consecutive optional parts may follow each other in any
 * combination. For nested repetitions, refa links the ends again at each level.
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

/** All strings of `min` to `max` characters. */
export function anything(maxCharacter: number, min = 0, max = Number.POSITIVE_INFINITY): Part {
  const alternatives: Sequence[] = [
    { type: 'Concatenation', elements: [{ type: 'CharacterClass', characters: CharSet.all(maxCharacter) }] },
  ];
  return { type: 'Quantifier', min, max, lazy: false, alternatives };
}
