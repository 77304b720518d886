// Estimates the duration of a prefill, and whether a restore is faster, from measurements in this process.

/**
 * The prefill speed before the first measurement. It is low, because the estimate limits the wait for another process:
 * waiting too long costs less than repeating the prefill.
 */
const ASSUMED_TOKENS_PER_MS = 0.1;
/** Weight of a new measurement in the running mean. */
const WEIGHT = 0.3;

class RunningMean {
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

  /** Whether both were measured and a prefill is no slower than a restore. */
  prefillIsFaster(): boolean {
    const [prefill, restore] = [this.#prefill.value, this.#restore.value];
    return prefill !== undefined && restore !== undefined && prefill >= restore;
  }
}
