import { Baseline, type Probe, sizeClass, type Verdict, verdictOf, type Work } from './thread-probe.js';

/** Why a number of threads was measured: decodes suddenly became slower or faster, or a regular probe was due. */
export type ThreadChangeReason = 'slower' | 'faster' | 'routine';

/** A change of the number of threads. */
export interface ThreadChange {
  /** The earlier number of threads. */
  from: number;
  /** The new number of threads. */
  to: number;
  /**
   * `slower` or `faster`: decodes had suddenly become slower or faster, so another number was measured. `routine`: a
   * regular probe measured another number.
   */
  reason: ThreadChangeReason;
  /** Measured tokens per second with the new number, divided by tokens per second with the earlier number. */
  speedup: number;
  /** When the number changed, in ms since 1970. */
  at: number;
}

/** The number of threads for one kind of work. */
export interface ThreadCount {
  /** The current number. */
  threads: number;
  /** How often the number changed, by reason. */
  changes: Record<ThreadChangeReason, number>;
  /** The newest change. Absent until the first change. */
  lastChange?: ThreadChange;
}

/**
 * The shares of the computing time that probes for each reason may cost, together less than 3 %. The cost of a probe is
 * its time, minus the time that its work would have taken with the current number of threads. Higher numbers of threads
 * cost most: on a busy machine, one decode with too many threads takes as long as ten others.
 */
const COST_SHARES: Record<ThreadChangeReason, number> = { slower: 0.006, faster: 0.014, routine: 0.009 };
/** Computing time between two regular probes, ms. It doubles after each probe that changes nothing. */
const MIN_INTERVAL_MS = 250;
const MAX_INTERVAL_MS = 2000;
/** After this time without decodes, ms, the machine may have changed, so no probe runs at once. */
const STALE_MS = 10_000;
/** While a probe is due, prompts are cut so that a decode takes about this long, ms. A probe must not be longer. */
const PROBE_STEP_MS = 250;
const MIN_PROBE_TOKENS = 32;
/** Newest decodes that differ by more than this factor, and by more than usual, are a sudden change. */
const SUDDEN_FACTOR = 1.2;
/** After a sudden change, the durations probably vary more: mean of |log(duration / mean)|. */
const BUSY_NOISE = 0.2;

/**
 * Chooses the number of threads for one kind of work. It measures the time for each token with the current number, and
 * sometimes decodes a few batches with a higher or lower number (a probe). It keeps the number that is faster. Other
 * programs that need the processors show only in these times.
 */
export class ThreadTuner {
  /** The numbers to choose from, in ascending order. */
  readonly #counts: readonly number[];
  readonly #now: () => number;
  /** The index of the current number. */
  #current: number;
  /** Costs with the current number, by the size of the batch. */
  readonly #baselines = new Map<number, Baseline>();
  #probe: Probe | undefined;
  /** Why the next probe will run. */
  #reason: ThreadChangeReason = 'routine';
  /** Whether the next probe tries a higher number (1) or a lower one (-1) first. */
  #direction: 1 | -1 = -1;
  /** How far the next probe is from the current number. */
  #distance = 1;
  /** Computing time up to now, ms. */
  #elapsedMs = 0;
  /** The computing time from which on the next probe for each reason may run, ms. */
  readonly #notBefore: Record<ThreadChangeReason, number> = { slower: 0, faster: 0, routine: 0 };
  /** The reason whose next probe waits for the cost of the current probe. */
  #payer: ThreadChangeReason = 'routine';
  #intervalMs = MIN_INTERVAL_MS;
  /** The logarithm of (cost of the newest decodes / baseline), and how much single decodes differ from it. */
  #drift = 0;
  #noise = 0;
  /** Maximum tokens in the decodes of the next probe, and in those before it. All have the same size. */
  #probeTokens: number | undefined;
  #updatedAt = 0;
  #lastChange: ThreadChange | undefined;
  readonly #changes: Record<ThreadChangeReason, number> = { slower: 0, faster: 0, routine: 0 };

  /**
   * @param max the highest number of threads, which is also the first one
   * @param now a clock in ms since 1970
   */
  constructor(max: number, now: () => number = Date.now) {
    this.#counts = threadCounts(max);
    this.#current = this.#counts.length - 1;
    this.#now = now;
  }

  /** The number of threads for the next decode. */
  next(work: Work): number {
    this.#dropStale();
    if (this.#probe === undefined && this.#baselines.get(sizeClass(work))?.isReliable === true) {
      this.#startProbe();
    }
    return this.#counts[this.#probe?.index ?? this.#current] as number;
  }

  /** Maximum tokens in the next batch, so that a probe does not take too long. */
  get maxTokens(): number {
    return this.#probeTokens ?? Number.POSITIVE_INFINITY;
  }

  /** Records the duration of a decode with the number of threads that {@link next} returned. */
  record(work: Work, ms: number): void {
    this.#updatedAt = this.#now();
    this.#elapsedMs += ms;
    if (this.#probe === undefined) {
      this.#recordUsual(work, ms);
      if (this.#dueProbe() !== undefined) {
        this.#probeTokens ??= tokensIn(PROBE_STEP_MS, ms / work.tokens);
      }
    } else {
      this.#recordProbe(this.#probe, work, ms);
    }
  }

  status(): ThreadCount {
    const change = this.#lastChange;
    return {
      threads: this.#counts[this.#current] as number,
      changes: { ...this.#changes },
      ...(change && { lastChange: { ...change } }),
    };
  }

  #recordUsual(work: Work, ms: number): void {
    const size = sizeClass(work);
    let baseline = this.#baselines.get(size);
    if (baseline?.isPrecise === true && this.#isSuddenChange(ms / work.tokens / baseline.msPerToken, ms)) {
      this.#onSuddenChange(this.#drift > 0 ? 'slower' : 'faster');
      baseline = undefined;
    }
    if (baseline === undefined) {
      baseline = new Baseline();
      this.#baselines.set(size, baseline);
    }
    baseline.add(work.tokens, ms);
  }

  /** @param ratio the cost of the newest decode, divided by the baseline */
  #isSuddenChange(ratio: number, ms: number): boolean {
    const difference = Math.log(ratio);
    const weight = Math.max(0.05, 1 - Math.exp(-ms / 2000)); // a long decode is a mean of many moments
    this.#drift += weight * (difference - this.#drift);
    this.#noise += 0.3 * weight * (Math.abs(difference - this.#drift) - this.#noise);
    return Math.abs(this.#drift) > Math.log(SUDDEN_FACTOR) + 0.15 * this.#noise;
  }

  /** Fewer threads may be better if decodes became slower, and more threads if they became faster. */
  #onSuddenChange(reason: 'slower' | 'faster'): void {
    this.#forget();
    this.#noise = Math.max(this.#noise, BUSY_NOISE);
    this.#direction = reason === 'slower' ? -1 : 1;
    this.#search(reason, 1);
  }

  /** Lets the next probe try the number at this distance for `reason`, if there is one. */
  #search(reason: ThreadChangeReason, distance: number): void {
    const exists = this.#counts[this.#current + distance * this.#direction] !== undefined;
    this.#reason = exists ? reason : 'routine';
    this.#distance = exists ? distance : 1;
  }

  #recordProbe(probe: Probe, work: Work, ms: number): void {
    const baseline = this.#baselines.get(sizeClass(work));
    if (baseline === undefined) {
      probe.unknownSteps++;
    } else {
      const expectedMs = work.tokens * baseline.msPerToken;
      probe.steps++;
      probe.ms += ms;
      probe.expectedMs += expectedMs;
    }
    const verdict = verdictOf(probe);
    if (verdict !== undefined) {
      this.#endProbe(probe, verdict);
    }
  }

  #startProbe(): void {
    const index = this.#dueProbe();
    if (index !== undefined) {
      this.#probe = { index, steps: 0, ms: 0, expectedMs: 0, unknownSteps: 0 };
      this.#payer = this.#elapsedMs < this.#notBefore[this.#reason] ? 'routine' : this.#reason;
    }
  }

  /** The index of the number to probe now, if any. */
  #dueProbe(): number | undefined {
    const isFirst = this.#distance === 1;
    if (isFirst && this.#elapsedMs < Math.min(this.#notBefore.routine, this.#notBefore[this.#reason])) {
      return undefined;
    }
    const directions = this.#reason === 'routine' ? [this.#direction, -this.#direction] : [this.#direction];
    return directions
      .map((direction) => this.#current + direction * this.#distance)
      .find((index) => this.#counts[index] !== undefined);
  }

  #endProbe(probe: Probe, verdict: Verdict): void {
    const pauseMs = Math.max(0, probe.ms - probe.expectedMs) / COST_SHARES[this.#payer];
    this.#notBefore[this.#payer] = Math.max(this.#notBefore[this.#payer], this.#elapsedMs) + pauseMs;
    this.#probe = undefined;
    this.#probeTokens = undefined;
    if (verdict === 'better') {
      this.#change(probe);
    } else if (this.#reason !== 'routine') {
      this.#search(this.#reason, 2 * this.#distance); // one busy processor slows down all threads, so try much fewer
    } else {
      this.#waitAtLeast(this.#intervalMs);
      this.#intervalMs = Math.min(MAX_INTERVAL_MS, 2 * this.#intervalMs);
      this.#direction = this.#direction === 1 ? -1 : 1;
    }
  }

  #change({ index, ms, expectedMs }: Probe): void {
    const [from, to] = [this.#counts[this.#current] as number, this.#counts[index] as number];
    this.#lastChange = { from, to, reason: this.#reason, speedup: expectedMs / ms, at: this.#now() };
    this.#changes[this.#reason]++;
    const skipsNumbers = this.#distance > 1;
    this.#direction = index > this.#current === skipsNumbers ? -1 : 1; // back to skipped numbers, or further
    this.#current = index;
    this.#forget();
    this.#search(this.#reason, 1);
  }

  #forget(): void {
    this.#baselines.clear();
    this.#restartInterval();
  }

  #dropStale(): void {
    if (this.#now() - this.#updatedAt > STALE_MS) {
      this.#probe = undefined;
      this.#search('routine', 1);
      this.#restartInterval();
    }
  }

  #restartInterval(): void {
    this.#probeTokens = undefined;
    this.#drift = 0;
    this.#intervalMs = MIN_INTERVAL_MS;
    this.#waitAtLeast(MIN_INTERVAL_MS);
  }

  /** Delays the next regular probe. After an expensive probe, it waits longer. */
  #waitAtLeast(ms: number): void {
    this.#notBefore.routine = Math.max(this.#notBefore.routine, this.#elapsedMs + ms);
  }
}

/** The number of tokens that take about `ms`, as a power of two. */
function tokensIn(ms: number, msPerToken: number): number {
  return Math.max(MIN_PROBE_TOKENS, 2 ** Math.floor(Math.log2(ms / msPerToken)));
}

/** All numbers up to 4, then fewer: a probe of each number would take too long on a machine with many processors. */
function threadCounts(max: number): number[] {
  const counts: number[] = [];
  for (let count = 1; count < max; count += Math.max(1, count >> 2)) {
    counts.push(count);
  }
  return [...counts, max];
}
