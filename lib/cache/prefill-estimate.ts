// What this machine was measured to do: how long a prefill should take, and whether a restore would be faster.

/** Before anything was measured. Slow: who waits for another's prefill should rather wait too long than repeat it. */
const ASSUMED_TOKENS_PER_MS = 0.1;
/** Of each new measurement in the running mean. */
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

  /** Whether both rates are known and a prefill is no slower than a restore. */
  prefillIsFaster(): boolean {
    const [prefill, restore] = [this.#prefill.value, this.#restore.value];
    return prefill !== undefined && restore !== undefined && prefill >= restore;
  }
}
