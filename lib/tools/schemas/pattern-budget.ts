/**
 * Limits the work on patterns, because this work blocks the event loop. Counts steps of about 10 microseconds instead
 * of time, so that a schema gives the same grammar on every machine.
 */
export class PatternBudget {
  #remaining: number;

  constructor(steps: number) {
    this.#remaining = steps;
  }

  /** @throws OverBudget if fewer steps are left. The steps that are left stay available for other patterns. */
  spend(steps: number): void {
    if (steps > this.#remaining) {
      throw new OverBudget();
    }
    this.#remaining -= steps;
  }

  /**
   * Runs work that may spend at most half of the remaining steps, so that one costly pattern does not use up the budget
   * of all others.
   */
  withHalf<T>(work: (budget: PatternBudget) => T): T {
    const half = this.#remaining / 2;
    const budget = new PatternBudget(half);
    try {
      return work(budget);
    } finally {
      this.#remaining = half + budget.#remaining;
    }
  }
}

/** Thrown if a pattern needs more steps than the budget has left. */
export class OverBudget extends Error {}
