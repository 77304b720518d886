// Estimates from measurements in this process how long a prefill takes, and whether a restore is faster.

/**
 * The assumed prefill speed before the first measurement. The value is low on purpose: the estimate limits the wait for
 * another process, and a wait that is too long costs less than a duplicate prefill.
 */
const ASSUMED_TOKENS_PER_MS = 0.1;
/** Weight of a new measurement in the running mean. */
const WEIGHT = 0.3;

/** A mean of measurements that gives newer measurements more weight. */
export class RunningMean {
  #mean: number | undefined;

  get value(): number | undefined {
    return this.#mean;
  }

  add(value: number): void {
    if (Number.isFinite(value) && value > 0) {
      this.#mean = this.#mean === undefined ? value : this.#mean + WEIGHT * (value - this.#mean);
    }
  }
}

export class PrefillEstimate {
  readonly #prefill = new RunningMean();
  readonly #restore = new RunningMean();

  notePrefill(tokens: number, ms: number): void {
    this.#prefill.add(tokens / ms);
  }

  noteRestore(tokens: number, ms: number): void {
    this.#restore.add(tokens / ms);
  }

  expectedPrefillMs(tokens: number): number {
    return tokens / (this.#prefill.value ?? ASSUMED_TOKENS_PER_MS);
  }

  /** Whether a prefill is at least as fast as a restore. False until both were measured. */
  prefillIsFaster(): boolean {
    const [prefill, restore] = [this.#prefill.value, this.#restore.value];
    return prefill !== undefined && restore !== undefined && prefill >= restore;
  }
}
