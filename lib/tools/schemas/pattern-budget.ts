/**
 * Limits the work on patterns, which runs on the event loop. It counts steps of about 10 microseconds instead of time,
 * so that a schema gives the same grammar on every machine.
 */
export class PatternBudget {
  #left: number;

  constructor(steps: number) {
    this.#left = steps;
  }

  /** @throws OverBudget if fewer steps are left. The remaining steps stay available to other patterns. */
  spend(steps: number): void {
    if (steps > this.#left) {
      throw new OverBudget();
    }
    this.#left -= steps;
  }

  /**
   * Runs work that may spend half of the remaining steps, so that one costly pattern does not use up the budget of all
   * others.
   */
  withHalf<T>(work: (budget: PatternBudget) => T): T {
    const half = this.#left / 2;
    const budget = new PatternBudget(half);
    try {
      return work(budget);
    } finally {
      this.#left = half + budget.#left;
    }
  }
}

/** A pattern needs more steps than the budget has left. */
export class OverBudget extends Error {}
