// The measurements of `ThreadTuner`: costs with the current number of threads, and probes of another number.

/** The size of a decode. */
export interface Work {
  /** Tokens in the batch. */
  tokens: number;
  /** Mean number of earlier tokens of each token in its sequence. */
  cells: number;
}

/** A baseline is a mean over about this much computing time, ms. */
const WINDOW_MS = 3000;
/** A baseline is reliable after this many decodes, or after this much time and two decodes, or after one long decode. */
const RELIABLE_STEPS = 8;
const RELIABLE_MS = 150;
const LONG_MS = 500;
/** A baseline is precise after this many decodes, or after this much time. */
const PRECISE_STEPS = 32;
const PRECISE_MS = 1000;

/** The mean cost of a token in batches of similar size, with the current number of threads. */
export class Baseline {
  #ms = 0;
  #tokens = 0;
  #steps = 0;
  #totalMs = 0;

  add(tokens: number, ms: number): void {
    const kept = Math.exp(-ms / WINDOW_MS);
    this.#ms = this.#ms * kept + ms;
    this.#tokens = this.#tokens * kept + tokens;
    this.#steps++;
    this.#totalMs += ms;
  }

  get msPerToken(): number {
    return this.#ms / this.#tokens;
  }

  get isReliable(): boolean {
    const neededMs = this.#steps >= 2 ? RELIABLE_MS : LONG_MS;
    return this.#steps >= RELIABLE_STEPS || this.#totalMs >= neededMs;
  }

  /** Whether the mean is precise enough to recognize that the machine became slower or faster. */
  get isPrecise(): boolean {
    return this.#steps >= PRECISE_STEPS || this.#totalMs >= PRECISE_MS;
  }
}

/**
 * Groups batches whose costs for each token are comparable. The cost depends on the number of tokens, because each
 * batch reads all weights once, and on the number of earlier tokens.
 */
export function sizeClass({ tokens, cells }: Work): number {
  const tokenClass = tokens <= 8 ? tokens : Math.round(2 + 2 * Math.log2(tokens));
  const cellClass = Math.round(Math.log2(Math.max(1, cells / 512)));
  return tokenClass * 32 + cellClass;
}

/** A measurement of another number of threads. */
export interface Probe {
  /** Index of the measured number. */
  index: number;
  steps: number;
  /** Time of its decodes. */
  ms: number;
  /** Time that these decodes would have taken with the current number. */
  expectedMs: number;
  /** Decodes of sizes without a baseline. */
  unknownSteps: number;
}

/** A probe without a clear result ends after this many decodes, or after this much time and four decodes. */
const MAX_STEPS = 64;
const MAX_MS = 600;
/** A number of threads is better only if it saves at least this share of the time. */
const MIN_GAIN = 0.06;

/** Whether the measured number of threads is better than the current one. */
export type Verdict = 'better' | 'worse' | 'same';

/**
 * Judges a probe after each of its decodes. The fewer decodes, the larger the difference must be. `undefined`: decode
 * more.
 */
export function verdictOf({ steps, ms, expectedMs, unknownSteps }: Probe): Verdict | undefined {
  const ratio = ms / expectedMs;
  const doubt = 1 / Math.sqrt(steps);
  if (steps > 0 && ratio > 1 + 0.5 * doubt) {
    return 'worse';
  }
  if (steps > 1 && ratio < 1 - Math.max(MIN_GAIN, 0.4 * doubt)) {
    return 'better';
  }
  const isLong = steps >= MAX_STEPS || (steps >= 4 && ms >= MAX_MS) || unknownSteps >= 8;
  return isLong ? 'same' : undefined;
}
