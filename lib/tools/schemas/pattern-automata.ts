// Combines the languages of patterns by means of automata, within a budget.
import { CharSet, DFA, NFA } from 'refa';
import { type Language, type Part, type Sequence, visitParts } from './pattern-alphabet.js';
import type { PatternBudget } from './pattern-budget.js';

/** Maximum number of parts of a regular expression. An expression with more parts makes no useful grammar. */
const MAX_PARTS = 2000;
/** Number of transitions between states that cost one step of the budget. */
const TRANSITIONS_PER_STEP = 2;
/** Cost of each state in steps when an automaton is converted to a regular expression. */
const STEPS_TO_REMOVE_STATE = 10;

export class PatternAutomata {
  readonly #maxCharacter: number;
  readonly #budget: PatternBudget;

  /** @param maxCharacter the largest character of the alphabet */
  constructor(maxCharacter: number, budget: PatternBudget) {
    this.#maxCharacter = maxCharacter;
    this.#budget = budget;
  }

  /** Returns the automaton of a language. @throws OverBudget, and an Error for a language with lookarounds. */
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

  /** Converts an automaton to an expression. @throws OverBudget, and an Error for an expression with too many parts. */
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
 * Estimates the number of transitions that refa makes for an expression. The number grows with the square of the parts,
 * because any of several optional parts may follow another one. For nested repetitions, refa links the ends again at
 * each level.
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

/** An expression for all strings of `min` to `max` characters. */
export function anything(maxCharacter: number, min = 0, max = Number.POSITIVE_INFINITY): Part {
  const alternatives: Sequence[] = [
    { type: 'Concatenation', elements: [{ type: 'CharacterClass', characters: CharSet.all(maxCharacter) }] },
  ];
  return { type: 'Quantifier', min, max, lazy: false, alternatives };
}
